"""Weight files, read without trusting them: which there are, what is in them, the tensors.

Knows safetensors and PyTorch's pickles (zip and legacy container, sharded or not) and nothing of any model family. Pickles
are opened with `weights_only=True`: no code of a checkpoint runs.
"""

import json
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

SAFETENSORS_NAMES = ("model.safetensors", "adapter_model.safetensors")
PICKLE_NAMES = ("pytorch_model.bin", "adapter_model.bin")
INDEX_NAMES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")


@dataclass(frozen=True)
class TensorHeader:
    """Shape and dtype of a tensor in a file."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    file: Path

    @property
    def num_elements(self) -> int:
        return torch.Size(self.shape).numel()


def weight_files(folder: Path) -> list[Path]:
    """The weight files of a folder: safetensors before pickles, all shards of an index. Empty when there are none.

    Raises:
        FileNotFoundError: an index names a shard that is not there.
        ValueError: an index is no JSON.
    """
    for single, index in ((SAFETENSORS_NAMES, INDEX_NAMES[0]), (PICKLE_NAMES, INDEX_NAMES[1])):
        for name in single:
            if (folder / name).is_file():
                return [folder / name]
        if (folder / index).is_file():
            try:
                shards = sorted(set(json.loads((folder / index).read_text(encoding="utf-8"))["weight_map"].values()))
            except (ValueError, KeyError, AttributeError) as error:
                raise ValueError(f"{folder / index} is not a weight index: {error!r}. Copy the file again.") from error
            if missing := [shard for shard in shards if not (folder / shard).is_file()]:
                raise FileNotFoundError(
                    f"{folder / index} names {missing}, which {'is' if len(missing) == 1 else 'are'} not there."
                )
            return [folder / shard for shard in shards]
    return []


def tensor_headers(folder: Path) -> dict[str, TensorHeader]:
    """Names, shapes and dtypes of all tensors of a folder, without reading their values.

    Raises:
        ValueError: a file is broken or holds more than tensors.
    """
    headers = {}
    for file in weight_files(folder):
        if file.suffix == ".safetensors":
            try:
                with safe_open(file, framework="pt") as handle:
                    for name in handle.keys():  # noqa: SIM118 - safe_open is no mapping
                        view = handle.get_slice(name)
                        headers[name] = TensorHeader(tuple(view.get_shape()), SAFETENSORS_DTYPES[view.get_dtype()], file)
            except SafetensorError as error:
                raise ValueError(_broken(file, error)) from error
        else:
            for name, tensor in _load_pickle(file, map_location="meta").items():
                headers[name] = TensorHeader(tuple(tensor.shape), tensor.dtype, file)
    return headers


def load_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a folder, on the CPU, in the dtype of the file.

    Raises:
        FileNotFoundError: the folder has no weight file.
        ValueError: a file is broken or holds more than tensors.
    """
    files = weight_files(folder)
    if not files:
        raise FileNotFoundError(
            f"{str(folder)!r} holds no weights: none of {[*SAFETENSORS_NAMES, *PICKLE_NAMES, *INDEX_NAMES]}."
        )
    return {name: tensor for file in files for name, tensor in _tensors_of(file)}


def _tensors_of(file: Path) -> Iterator[tuple[str, torch.Tensor]]:
    if file.suffix == ".safetensors":
        try:
            with safe_open(file, framework="pt") as handle:
                for name in handle.keys():  # noqa: SIM118 - safe_open is no mapping
                    yield name, handle.get_tensor(name)
        except SafetensorError as error:
            raise ValueError(_broken(file, error)) from error
    else:
        yield from _load_pickle(file, map_location="cpu").items()


def _load_pickle(file: Path, map_location: str) -> dict[str, torch.Tensor]:
    try:
        content = torch.load(file, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{str(file)!r} was not opened: it is broken, or it holds more than tensors and could run code. "
            f"({str(error).splitlines()[0]})"
        ) from error
    except Exception as error:  # broken bytes lead the unpickler anywhere
        raise ValueError(_broken(file, error)) from error
    if not isinstance(content, dict) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise ValueError(f"{str(file)!r} is not a checkpoint: it holds something else than named tensors.")
    return content


def _broken(file: Path, error: Exception) -> str:
    reason = next(iter(str(error).splitlines()), "") or type(error).__name__
    return f"{str(file)!r} is broken or half-written ({reason}). Copy the file again."


SAFETENSORS_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
