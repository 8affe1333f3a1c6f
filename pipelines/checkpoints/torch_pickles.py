"""PyTorch's pickles, read without running them and written without holding them.

The three containers in use are read: zip, the older one of five pickles followed by raw storages ("legacy"), and either with
many tensors in one flat storage. A pickle is a program: here it may call nothing but stubs that note where a tensor lies, and
any other name in it is refused.
"""

import collections
import io
import pickle
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch

from .stored_tensors import StoredTensor

_STORAGE_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_STORAGE_NAMES = {dtype: name for name, dtype in _STORAGE_DTYPES.items()}

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_ZIP_START = b"PK\x03\x04"


@dataclass(frozen=True)
class _Storage:
    dtype: torch.dtype
    key: str
    first: int = 0  # element of the stored one at which a view of it starts


@dataclass(frozen=True)
class _View:
    storage: _Storage
    first: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def read_pickle_header(file: Path) -> dict[str, StoredTensor]:
    """Where the tensors of a PyTorch file lie.

    Raises:
        ValueError: the file is broken, could run code, or is no dictionary of tensors.
    """
    try:
        with open(file, "rb") as handle:
            is_zip = handle.read(4) == _ZIP_START
            handle.seek(0)
            content, offsets = _read_zip(file, handle) if is_zip else _read_legacy(handle)
    except _Refused as error:
        raise ValueError(f"{str(file)!r} was not opened: {error}.") from error
    except OSError:
        raise
    except Exception as error:  # a broken pickle can raise anything
        raise ValueError(f"{str(file)!r} is broken or half-written ({error!r}). Copy the file again.") from error
    if not isinstance(content, dict) or not all(isinstance(view, _View) for view in content.values()):
        raise ValueError(f"{str(file)!r} is not a checkpoint: it holds something else than named tensors.")
    tensors = {}
    for name, view in content.items():
        storage = view.storage
        if storage.key not in offsets:
            raise ValueError(f"{str(file)!r} is broken: the values of {name} are not in it. Copy the file again.")
        tensors[name] = StoredTensor(
            file,
            offsets[storage.key] + (storage.first + view.first) * storage.dtype.itemsize,
            storage.dtype,
            view.shape,
            None if view.stride == _row_major(view.shape) else view.stride,
        )
    return tensors


class _Refused(ValueError):
    pass


class _StubUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if module == "torch._utils" and name in _REBUILDERS:
            return _REBUILDERS[name]
        if module == "torch" and name in _STORAGE_DTYPES:
            return _STORAGE_DTYPES[name]
        if (module, name) == ("torch", "Size"):
            return tuple
        raise _Refused(f"it holds more than tensors ({module}.{name}) and could run code. Get the weights as safetensors")

    def persistent_load(self, reference: tuple) -> _Storage:
        kind, dtype, key, _location, _num_elements, *rest = reference
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise _Refused(f"it holds {kind!r}, which is no tensor")
        first = rest[0][1] if rest and rest[0] is not None else 0
        return _Storage(dtype, str(key), first)


def _rebuild_tensor(storage: _Storage, first: int, shape: tuple, stride: tuple, *_rest: Any) -> _View:
    if min(first, *shape, *stride, 0) < 0 or len(shape) != len(stride):
        raise _Refused(f"a tensor of shape {tuple(shape)} with stride {tuple(stride)} cannot be")
    return _View(storage, int(first), tuple(map(int, shape)), tuple(map(int, stride)))


_REBUILDERS = {
    "_rebuild_tensor": _rebuild_tensor,
    "_rebuild_tensor_v2": _rebuild_tensor,
    "_rebuild_parameter": lambda view, *_rest: view,
}


def _read_zip(file: Path, handle: BinaryIO) -> tuple[Any, dict[str, int]]:
    offsets, content = {}, None
    with zipfile.ZipFile(handle) as archive:
        for entry in archive.infolist():
            folder, _, key = entry.filename.partition("/")[2].rpartition("/")
            if folder == "data":
                if entry.compress_type != zipfile.ZIP_STORED:
                    raise _Refused("its tensors are compressed, which PyTorch never does")
                handle.seek(entry.header_offset + 26)
                name_bytes, extra_bytes = (int.from_bytes(handle.read(2), "little") for _ in range(2))
                offsets[key] = entry.header_offset + 30 + name_bytes + extra_bytes
            elif (folder, key) == ("", "data.pkl"):
                content = _StubUnpickler(io.BytesIO(archive.read(entry)), encoding="utf-8").load()
            elif (folder, key) == ("", "byteorder") and archive.read(entry) != b"little":
                raise _Refused("it was written by a big-endian machine")
    return content, offsets


def _read_legacy(handle: BinaryIO) -> tuple[Any, dict[str, int]]:
    def load() -> Any:
        return _StubUnpickler(handle, encoding="utf-8").load()

    if load() != _LEGACY_MAGIC:
        raise _Refused("it is no PyTorch checkpoint")
    _protocol, _system, content, keys = load(), load(), load(), load()
    dtypes = {view.storage.key: view.storage.dtype for view in content.values() if isinstance(view, _View)}
    offsets = {}
    for key in map(str, keys):
        num_elements = int.from_bytes(handle.read(8), "little")
        offsets[key] = handle.tell()
        if key not in dtypes:
            raise _Refused(f"storage {key} belongs to no tensor, so its size is not known")
        handle.seek(num_elements * dtypes[key].itemsize, io.SEEK_CUR)
    return content, offsets


def _row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    stride, step = [], 1
    for size in reversed(shape):
        stride.append(step)
        step *= max(size, 1)
    return tuple(reversed(stride))


class _Reference:
    """Pickles as a reference to a storage."""

    def __init__(self, dtype: torch.dtype, key: str, num_elements: int):
        self.values = ("storage", getattr(torch, _STORAGE_NAMES[dtype]), key, "cpu", num_elements)


class _Rebuilt:
    """Pickles as a tensor that is one whole storage."""

    def __init__(self, dtype: torch.dtype, key: str, shape: tuple[int, ...]):
        self.storage = _Reference(dtype, key, torch.Size(shape).numel())
        self.shape = shape

    def __reduce__(self) -> tuple:
        arguments = (self.storage, 0, self.shape, _row_major(self.shape), False, collections.OrderedDict())
        return torch._utils._rebuild_tensor_v2, arguments


class _TensorPickler(pickle.Pickler):
    def persistent_id(self, item: Any) -> tuple | None:
        return item.values if isinstance(item, _Reference) else None


def pickle_head(tensors: dict[str, tuple[torch.dtype, tuple[int, ...]]]) -> bytes:
    """The `data.pkl` of a zip container that holds each tensor as one storage, keyed "0", "1", ... in order.

    Args:
        tensors: name to dtype and shape.
    """
    content = collections.OrderedDict(
        (name, _Rebuilt(dtype, str(index), shape)) for index, (name, (dtype, shape)) in enumerate(tensors.items())
    )
    head = io.BytesIO()
    _TensorPickler(head, protocol=2).dump(content)
    return head.getvalue()
