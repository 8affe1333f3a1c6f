"""Where the tensors of a weight file lie: by offset, so that a model is read piece by piece and never as a whole.

The one reader of weight files: the headers of safetensors here, those of PyTorch's pickles in `torch_pickles.py`. Nothing in a file
is trusted and no code of it runs. No file is mapped into memory: its pages would count as ours.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from ..json_files import parse_json
from .offsets import StoredTensor
from .torch_pickles import read_pickle_header
from .weight_files import ADAPTER_NAMES, MODEL_NAMES, adapter_files, model_files, weight_files

MAX_HEADER_BYTES = 16 * 2**20
"""Of a safetensors file; 200,000 tensors need no more."""

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


def stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """All tensors of a folder's weight files (or of one file), by name; nothing is read but headers.

    Raises:
        FileNotFoundError: there are no weights, or a shard is missing.
        ValueError: a file is broken or holds more than tensors, or two files hold the same name.
    """
    return _of_files(folder, weight_files(folder), [*MODEL_NAMES, *ADAPTER_NAMES])


def model_tensors(folder: Path) -> dict[str, StoredTensor]:
    """As `stored_tensors`, of a whole model: an adapter beside it does not count."""
    return _of_files(folder, model_files(folder), MODEL_NAMES)


def adapter_tensors(folder: Path) -> dict[str, StoredTensor]:
    """As `stored_tensors`, of an adapter: a whole model beside it does not count."""
    return _of_files(folder, adapter_files(folder), ADAPTER_NAMES)


def tensor_headers(folder: Path) -> dict[str, StoredTensor]:
    """As `stored_tensors`, but nothing where there are no weights."""
    return stored_tensors(folder) if weight_files(folder) else {}


def load_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a folder, read, on the CPU, in the dtype of the file.

    Raises:
        FileNotFoundError, ValueError: see `stored_tensors`.
    """
    return {name: tensor.read() for name, tensor in stored_tensors(folder).items()}


def _of_files(folder: Path, files: list[Path], names: Iterable[str]) -> dict[str, StoredTensor]:
    if not files:
        raise FileNotFoundError(
            f"{str(folder)!r} holds no weights ({', '.join(names)}, or shards with their index). Give the folder that the model was "
            "saved in."
        )
    tensors: dict[str, StoredTensor] = {}
    for file in files:
        found = read_header(file)
        if twice := sorted(tensors.keys() & found.keys()):
            raise ValueError(
                f"{str(file)!r} holds {twice[:3]}, which another file of {str(folder)!r} holds too: which one counts?"
            )
        tensors |= found
    return tensors


def read_header(file: Path) -> dict[str, StoredTensor]:
    """The tensors of one file, without reading them; names in the order of their offsets.

    Raises:
        ValueError: the file is broken, cut off, foreign, or holds more than tensors.
    """
    with open(file, "rb") as handle:
        start = handle.read(512)
    if problem := what_is_it(start):
        raise ValueError(f"{str(file)!r} {problem}")
    tensors = _read_safetensors_header(file) if file.suffix == ".safetensors" else read_pickle_header(file)
    file_bytes = file.stat().st_size
    for name, tensor in tensors.items():
        end = tensor.offset + tensor.num_bytes
        if tensor.offset < 0 or end > file_bytes:
            raise ValueError(
                f"{str(file)!r} is cut off: it has {file_bytes} bytes, but {name} ends at byte {end}. Copy the file again."
            )
    return dict(sorted(tensors.items(), key=lambda item: item[1].offset))


def what_is_it(start: bytes) -> str | None:
    """What a weight file is that is none, told by its first bytes, as the end of a sentence; None when it may be one."""
    if start.startswith(b"GGUF"):
        return (
            "is a GGUF file: that is llama.cpp's. Load it with the web UI's llama.cpp loader, or get the model as safetensors."
        )
    if start.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the weights themselves. Fetch them: git lfs pull"
    if start.lstrip()[:9].lower() in (b"<!doctype", b"<html>") or start.lstrip()[:6].lower() == b"<html>":
        return "is an HTML page, not weights: the download failed. Download the file again."
    return None


def _read_safetensors_header(file: Path) -> dict[str, StoredTensor]:
    with open(file, "rb") as handle:
        file_bytes = os.fstat(handle.fileno()).st_size
        header_bytes = int.from_bytes(handle.read(8), "little")
        if file_bytes < 8 or header_bytes > min(file_bytes - 8, MAX_HEADER_BYTES):
            raise ValueError(
                f"{str(file)!r} is not a safetensors file, or broken or half-written ({file_bytes} bytes). Copy the file again."
            )
        content = handle.read(header_bytes)
    try:
        entries = parse_json(content, file)
        entries.pop("__metadata__", None)
        tensors = {name: _entry(file, 8 + header_bytes, name, entry) for name, entry in entries.items()}
        _check_layout(tensors, 8 + header_bytes, file_bytes)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{str(file)!r} is broken or half-written ({reason}). Copy the file again.") from error
    return tensors


def _entry(file: Path, data: int, name: str, entry: Any) -> StoredTensor:
    if entry["dtype"] not in SAFETENSORS_DTYPES:
        raise ValueError(f"{name} has the unknown dtype {entry['dtype']!r}; known are {', '.join(SAFETENSORS_DTYPES)}")
    start, end = map(_count, entry["data_offsets"])
    tensor = StoredTensor(file, data + start, SAFETENSORS_DTYPES[entry["dtype"]], tuple(map(_count, entry["shape"])))
    if end - start != tensor.num_bytes:
        raise ValueError(f"{name} has {end - start} bytes, its shape and dtype say {tensor.num_bytes}")
    return tensor


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**62:
        raise ValueError(f"{value!r} is no size")
    return value


def _check_layout(tensors: dict[str, StoredTensor], data: int, file_bytes: int) -> None:
    """As the safetensors library demands it: the tensors lie one after another, and nothing else lies between or behind."""
    end = data
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].offset, item[1].num_bytes)):
        if tensor.offset != end:
            raise ValueError(f"{name} {'overlaps another tensor' if tensor.offset < end else 'leaves a gap before it'}")
        end += tensor.num_bytes
    if end > file_bytes:
        raise ValueError(f"the file is cut off: it has {file_bytes} bytes, its tensors end at {end}")
    if end < file_bytes:
        raise ValueError(f"{file_bytes - end} bytes belong to no tensor")
