"""Where the tensors of a weight file lie: by offset, so that a model is read piece by piece and never as a whole.

Reads the headers of safetensors files here and those of PyTorch's pickles in `torch_pickles.py`; which files a folder's
weights are in is `pipelines.weights`' knowledge. No file is mapped into memory: its pages would count as ours.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch

from ..weights import SAFETENSORS_DTYPES, weight_files

MAX_HEADER_BYTES = 100 * 2**20


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file.

    Attributes:
        file: the file.
        offset: of its first element, in bytes from the start of the file.
        dtype: of its elements.
        shape: of the tensor.
        stride: in elements; None when the elements lie one after another in order.
    """

    file: Path
    offset: int
    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...] | None = None

    @property
    def num_elements(self) -> int:
        return torch.Size(self.shape).numel()

    @property
    def num_bytes(self) -> int:
        """Bytes it takes in the file; with a stride, from its first element to its last."""
        if self.stride is None or not self.num_elements:
            return self.num_elements * self.dtype.itemsize
        last = sum((size - 1) * step for size, step in zip(self.shape, self.stride, strict=True))
        return (last + 1) * self.dtype.itemsize

    def read(self) -> torch.Tensor:
        """The tensor, in the file's dtype. For small ones: a large one is read in blocks, see `streaming.py`."""
        content = bytearray(self.num_bytes)
        with open(self.file, "rb", buffering=0) as handle:
            read_into(handle, self.offset, memoryview(content))
        return self.view(content)

    def view(self, content: bytearray | memoryview) -> torch.Tensor:
        """The bytes of the tensor as a tensor that shares their memory (a copy when it has a stride)."""
        if not self.num_elements:
            return torch.empty(self.shape, dtype=self.dtype)
        flat = torch.frombuffer(content, dtype=self.dtype, count=self.num_bytes // self.dtype.itemsize)
        if self.stride is None:
            return flat.view(self.shape)
        return flat.as_strided(self.shape, self.stride).contiguous()


def stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """All tensors of a folder's weight files, by name.

    Raises:
        FileNotFoundError: there are no weights, or a shard is missing.
        ValueError: a file is broken, or holds more than tensors.
    """
    files = weight_files(folder)
    if not files:
        raise FileNotFoundError(
            f"{str(folder)!r} holds no weights (model.safetensors, pytorch_model.bin, adapter_model.*, or shards with their "
            "index). Give the folder that the model was saved in."
        )
    tensors: dict[str, StoredTensor] = {}
    for file in files:
        tensors |= read_header(file)
    return tensors


def read_header(file: Path) -> dict[str, StoredTensor]:
    """The tensors of one file, without reading them; names in the order of their offsets.

    Raises:
        ValueError: the file is broken, cut off, or holds more than tensors.
    """
    if file.suffix == ".safetensors":
        tensors = _read_safetensors_header(file)
    else:
        from .torch_pickles import read_pickle_header

        tensors = read_pickle_header(file)
    file_bytes = file.stat().st_size
    for name, tensor in tensors.items():
        end = tensor.offset + tensor.num_bytes
        if tensor.offset < 0 or end > file_bytes:
            raise ValueError(
                f"{str(file)!r} is cut off: it has {file_bytes} bytes, but {name} ends at byte {end}. Copy the file again."
            )
    return dict(sorted(tensors.items(), key=lambda item: item[1].offset))


def read_into(handle: BinaryIO, offset: int, buffer: memoryview) -> None:
    """Fill a buffer from an offset of an unbuffered file.

    Raises:
        ValueError: the file ends before.
    """
    handle.seek(offset)
    filled = 0
    while filled < len(buffer):
        count = handle.readinto(buffer[filled:])
        if not count:
            raise ValueError(f"{handle.name!r} ended at byte {offset + filled}: it was changed while it was read.")
        filled += count
    if hasattr(os, "posix_fadvise"):  # the system's cache gets its memory back for the next read: fresh memory is slow to get
        os.posix_fadvise(handle.fileno(), offset, filled, os.POSIX_FADV_DONTNEED)


def _read_safetensors_header(file: Path) -> dict[str, StoredTensor]:
    with open(file, "rb") as handle:
        file_bytes = os.fstat(handle.fileno()).st_size
        header_bytes = int.from_bytes(handle.read(8), "little")
        if file_bytes < 8 or header_bytes > min(file_bytes - 8, MAX_HEADER_BYTES):
            raise ValueError(f"{str(file)!r} is not a safetensors file, or cut off ({file_bytes} bytes). Copy the file again.")
        content = handle.read(header_bytes)
    tensors = {}
    try:
        for name, entry in json.loads(content).items():
            if name == "__metadata__":
                continue
            start, end = entry["data_offsets"]
            tensor = StoredTensor(
                file, 8 + header_bytes + start, SAFETENSORS_DTYPES[entry["dtype"]], tuple(map(int, entry["shape"]))
            )
            if end - start != tensor.num_bytes:
                raise ValueError(f"{name} has {end - start} bytes, its shape and dtype say {tensor.num_bytes}")
            tensors[name] = tensor
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{str(file)!r} has a broken header ({error!r}). Copy the file again.") from error
    return tensors
