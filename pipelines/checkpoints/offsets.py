"""A tensor in a file, by offset: what every reader of weight files finds, and how its bytes are read. Nothing is mapped unless asked for."""

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch


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
        return math.prod(self.shape)

    @property
    def num_bytes(self) -> int:
        """Bytes it takes in the file; with a stride, from its first element to its last."""
        if self.stride is None or not self.num_elements:
            return self.num_elements * self.dtype.itemsize
        last = sum((size - 1) * step for size, step in zip(self.shape, self.stride, strict=True))
        return (last + 1) * self.dtype.itemsize

    def read(self) -> torch.Tensor:
        """The tensor, in the file's dtype. For small ones: a large one is best read in blocks."""
        content = bytearray(self.num_bytes)
        with open(self.file, "rb", buffering=0) as handle:
            read_into(handle, self.offset, memoryview(content))
        return self.view(content)

    def map(self) -> torch.Tensor:
        """The tensor without reading it: its values come from the file when they are used, and writing to it never reaches the file."""
        if not self.num_elements or self.offset % self.dtype.itemsize:
            return self.read()
        return self.view(np.memmap(self.file, np.uint8, "c", self.offset, (self.num_bytes,)))

    def view(self, content: bytearray | memoryview | np.ndarray) -> torch.Tensor:
        """The bytes of the tensor as a tensor that shares their memory (a copy when it has a stride)."""
        if not self.num_elements:
            return torch.empty(self.shape, dtype=self.dtype)
        values = content if isinstance(content, np.ndarray) else np.frombuffer(content, np.uint8, self.num_bytes)
        flat = torch.from_numpy(values).view(self.dtype)
        if self.stride is None:
            return flat.view(self.shape)
        return flat.as_strided(self.shape, self.stride).contiguous()


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
