"""PyTorch's pickles, read without running them and written without holding them.

The three containers in use are read: zip, the older one of five pickles followed by raw storages ("legacy"), and either with
many tensors in one flat storage. A pickle is a program: here it may call nothing but stubs that note where a tensor lies, and every
other name in it becomes an `Inert` object that does nothing. What it may cost is bounded before it is read.
"""

import collections
import io
import pickle
import pickletools
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch

from .offsets import StoredTensor

MAX_PICKLE_BYTES = 16 * 2**20
"""Of the pickle itself, without the tensors' values; a 7B model's has 100 kB."""

MAX_OPCODES = 1_000_000
WRAPPERS = ("model", "model_state_dict", "state_dict", "module")
"""What trainers put named tensors under."""

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


class Inert(dict):
    """Stands for anything in a pickle that is no tensor, plain container or plain value: the items, `arguments` and `state` it was to
    be made from. Nothing of it runs."""

    arguments: tuple = ()
    state: Any = None

    def __new__(cls, *args: Any, **kwargs: Any) -> "Inert":
        made = super().__new__(cls)
        made.arguments = args
        if len(args) == 1 and isinstance(args[0], dict):
            made.update(args[0])
        return made

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__()  # `__new__` has taken the items

    __hash__ = object.__hash__

    def __call__(self, *args: Any, **kwargs: Any) -> "Inert":
        return Inert(*args)

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def append(self, item: Any) -> None:
        """A list's items, which nobody reads."""

    extend = add = append


@dataclass(frozen=True)
class _Storage:
    dtype: torch.dtype
    key: str
    num_elements: int
    first: int = 0  # element of the stored one at which a view of it starts


@dataclass(frozen=True)
class _View:
    storage: _Storage
    first: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def read_pickle(file: Path) -> Any:
    """What a PyTorch file holds: containers and plain values as they are, `StoredTensor` for tensors, `Inert` for the rest.

    Raises:
        ValueError: the file is broken, or asks for more than a checkpoint needs.
    """
    try:
        with open(file, "rb") as handle:
            is_zip = handle.read(4) == _ZIP_START
            handle.seek(0)
            content, places = _read_zip(handle) if is_zip else _read_legacy(handle)
            return _placed(content, file, places, {})
    except _Refused as error:
        raise ValueError(f"{str(file)!r} was not opened: {error}.") from error
    except (FileNotFoundError, PermissionError):
        raise
    except Exception as error:  # a broken pickle can raise anything
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(f"{str(file)!r} is broken or half-written ({reason}). Copy the file again.") from error


def read_pickle_header(file: Path) -> dict[str, StoredTensor]:
    """The named tensors of a PyTorch file, without what a trainer wrapped around them.

    Raises:
        ValueError: the file is broken, or is no dictionary of tensors.
    """
    content = read_pickle(file)
    if isinstance(content, dict):
        inner = (content.get(wrapper) for wrapper in WRAPPERS)
        content = next((found for found in inner if isinstance(found, dict) and not isinstance(found, Inert)), content)
    others = (
        [type(value).__name__ for value in content.values() if not isinstance(value, StoredTensor)]
        if isinstance(content, dict) and not isinstance(content, Inert)
        else [type(content).__name__]
    )
    if others or not all(isinstance(name, str) for name in content):
        code = " It names classes or functions, which could run code and are not run." if "Inert" in others else ""
        raise ValueError(
            f"{str(file)!r} is not a checkpoint: it holds something else than named tensors ({', '.join(sorted(set(others))) or 'keys that are no names'}).{code} Get the weights as safetensors."
        )
    if content and all(name.startswith("module.") for name in content):
        content = {name.removeprefix("module."): tensor for name, tensor in content.items()}
    return dict(content)


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
        if module in ("builtins", "__builtin__") and name in _PLAIN:
            return _PLAIN[name]
        return Inert

    def persistent_load(self, reference: tuple) -> _Storage:
        kind, dtype, key, _location, num_elements, *rest = reference
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise _Refused(f"it holds {kind!r}, which is no tensor of a known dtype")
        first = rest[0][1] if rest and rest[0] is not None else 0
        return _Storage(dtype, str(key), int(num_elements), first)


_PLAIN = {"set": set, "frozenset": frozenset, "list": list, "tuple": tuple, "dict": dict}


def _rebuild_tensor(storage: _Storage, first: int, shape: tuple, stride: tuple, *_rest: Any) -> _View:
    numbers = (first, *shape, *stride)
    if (
        not isinstance(storage, _Storage)
        or any(type(number) is not int or number < 0 for number in numbers)
        or len(shape) != len(stride)
    ):
        raise _Refused(f"a tensor of shape {shape!r} with stride {stride!r} cannot be")
    return _View(storage, first, tuple(shape), tuple(stride))


_REBUILDERS = {
    "_rebuild_tensor": _rebuild_tensor,
    "_rebuild_tensor_v2": _rebuild_tensor,
    "_rebuild_parameter": lambda view, *_rest: view,
}


def _load(content: bytes) -> tuple[Any, int]:
    """One pickle and how many bytes it took."""
    num_bytes = _check_program(content)
    return _StubUnpickler(io.BytesIO(content[:num_bytes]), encoding="utf-8").load(), num_bytes


def _check_program(content: bytes) -> int:
    """How many bytes a pickle's program takes; nothing in it may reserve memory of its own."""
    opened = io.BytesIO(content)
    for count, (opcode, argument, _position) in enumerate(pickletools.genops(opened)):
        if count > MAX_OPCODES:
            raise _Refused(f"its pickle has more than {MAX_OPCODES} steps")
        if opcode.name in ("BYTEARRAY8", "NEXT_BUFFER", "READONLY_BUFFER", "EXT1", "EXT2", "EXT4", "INST"):
            raise _Refused(f"its pickle uses {opcode.name}, which PyTorch never writes")
        if "PUT" in opcode.name and int(argument) > count:
            raise _Refused("its pickle has a wrong memo")
    return opened.tell()


def _checked(archive: zipfile.ZipFile) -> list[tuple[zipfile.ZipInfo, str, str]]:
    """The files of an archive, each with its folder and name below the archive's own folder.

    Raises:
        _Refused: it is code, compressed, or has a pickle that is too large.
    """
    found = [(entry, *entry.filename.partition("/")[2].rpartition("/")[::2]) for entry in archive.infolist()]
    if any((folder, name) == ("", "constants.pkl") for _, folder, name in found):
        raise _Refused("it is a TorchScript archive: it holds code, which is not run")
    if any(entry.compress_type != zipfile.ZIP_STORED for entry, _, _ in found):
        raise _Refused("it is compressed, which PyTorch never does")
    for entry, _, name in found:
        if name == "data.pkl" and entry.file_size > MAX_PICKLE_BYTES:
            raise _Refused(
                f"its pickle alone has {entry.file_size} bytes, and no checkpoint's has more than {MAX_PICKLE_BYTES}"
            )
    return found


def _read_zip(handle: BinaryIO) -> tuple[Any, dict[str, tuple[int, int]]]:
    """The pickle's content, and (offset, bytes) of each storage."""
    places: dict[str, tuple[int, int]] = {}
    content, is_found = None, False
    with zipfile.ZipFile(handle) as archive:
        for entry, folder, key in _checked(archive):
            if folder == "data":
                handle.seek(entry.header_offset + 26)
                name_bytes, extra_bytes = (int.from_bytes(handle.read(2), "little") for _ in range(2))
                places[key] = (entry.header_offset + 30 + name_bytes + extra_bytes, entry.file_size)
            elif (folder, key) == ("", "data.pkl"):
                content, is_found = _load(archive.read(entry))[0], True
            elif (folder, key) == ("", "byteorder") and archive.read(entry) != b"little":
                raise _Refused("it was written by a big-endian machine")
    if not is_found:
        raise _Refused("it is a zip archive without a 'data.pkl', so no PyTorch checkpoint")
    return content, places


def _read_legacy(handle: BinaryIO) -> tuple[Any, dict[str, tuple[int, int]]]:
    position = 0

    def load() -> Any:
        nonlocal position
        handle.seek(position)
        content, num_bytes = _load(handle.read(MAX_PICKLE_BYTES))
        position += num_bytes
        return content

    if load() != _LEGACY_MAGIC:
        raise _Refused("it is no PyTorch checkpoint")
    _protocol, _system, content, keys = load(), load(), load(), load()
    storages = {view.storage.key: view.storage for view in _views(content, set())}
    places = {}
    for key in map(str, keys):
        handle.seek(position)
        num_elements = int.from_bytes(handle.read(8), "little")
        if key not in storages:
            raise _Refused(f"storage {key} belongs to no tensor, so its size is not known")
        num_bytes = num_elements * storages[key].dtype.itemsize
        places[key] = (position + 8, num_bytes)
        position += 8 + num_bytes
    return content, places


def _views(content: Any, seen: set[int]):
    """All tensors in nested containers."""
    if isinstance(content, _View):
        yield content
    elif isinstance(content, dict | list | tuple) and not isinstance(content, Inert) and id(content) not in seen:
        seen.add(id(content))
        for value in content.values() if isinstance(content, dict) else content:
            yield from _views(value, seen)


def _placed(content: Any, file: Path, places: dict[str, tuple[int, int]], done: dict[int, Any]) -> Any:
    """The content with every view in its place in the file; what stands in it several times is worked through once."""
    if isinstance(content, _View):
        return _stored(content, file, places)
    if not isinstance(content, dict | list | tuple) or isinstance(content, Inert):
        return content
    if id(content) in done:
        if done[id(content)] is None:
            raise _Refused("it contains itself")
        return done[id(content)]
    done[id(content)] = None
    if isinstance(content, dict):
        found: Any = {key: _placed(value, file, places, done) for key, value in content.items()}
    else:
        found = [_placed(value, file, places, done) for value in content]
    done[id(content)] = found
    return found


def _stored(view: _View, file: Path, places: dict[str, tuple[int, int]]) -> StoredTensor:
    storage = view.storage
    if storage.key not in places:
        raise _Refused(f"the values of a tensor (storage {storage.key!r}) are not in it: copy the file again")
    offset, num_bytes = places[storage.key]
    stride = None if view.stride == _row_major(view.shape) else view.stride
    start = (storage.first + view.first) * storage.dtype.itemsize
    tensor = StoredTensor(file, offset + start, storage.dtype, view.shape, stride)
    if tensor.num_elements and start + tensor.num_bytes > num_bytes:
        raise ValueError(
            f"a tensor of shape {view.shape} needs {start + tensor.num_bytes} bytes of storage {storage.key!r}, which has {num_bytes}"
        )
    if stride is not None and tensor.num_elements * storage.dtype.itemsize > max(num_bytes, 2**20):
        raise _Refused(f"a tensor of shape {view.shape} repeats its values, which no trained weight does")
    return tensor


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
