"""PyTorch pickles of foreign classes, opened without running anything of them.

`torch.load(weights_only=True)` refuses a file that names any class it does not know. Where such a file is a checkpoint with
settings of a foreign class beside the tensors, it is opened here: whatever is not a tensor, a plain container or a plain value
becomes an `Inert` object, which only keeps what it was given. No function of the file's choice is ever called.
"""

import pickle
import types
import zipfile
from pathlib import Path
from typing import Any

import torch

from .checkpoints.torch_pickles import check_cost


class Inert(dict):
    """Stands for an object of an unknown class: a dictionary of the items, `arguments` and `state` it was to be made from."""

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

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def append(self, item: Any) -> None:
        """A list's items, which nobody reads."""

    extend = add = append


_KNOWN = {
    ("collections", "OrderedDict"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_parameter"),
    ("torch", "Size"),
    ("torch", "device"),
    *(("torch", str(dtype).removeprefix("torch.")) for dtype in vars(torch).values() if isinstance(dtype, torch.dtype)),
    *((module, name) for module in ("builtins", "__builtin__") for name in ("set", "frozenset", "list", "tuple", "dict")),
}


class _InertUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _KNOWN:
            return super().find_class(module, name)
        return type(name.rpartition(".")[2], (Inert,), {"__module__": module})


def load_inert(file: Path, mmap: bool = True) -> Any:
    """What a PyTorch pickle holds, on the CPU.

    Args:
        file: in either container of `torch.save`.
        mmap: leave the tensors on disk until they are used, where the container allows it.

    Raises:
        ValueError: the file is broken, no pickle of PyTorch, holds code (TorchScript), or asks for too much memory.
    """
    inert = types.SimpleNamespace(
        __name__="inert", Unpickler=_InertUnpickler, load=lambda opened, **kwargs: _InertUnpickler(opened, **kwargs).load()
    )
    try:
        check_cost(file)
        mmap = mmap and zipfile.is_zipfile(file)
        return torch.load(file, map_location="cpu", mmap=mmap, weights_only=False, pickle_module=inert)
    except OSError:
        raise
    except Exception as error:  # broken bytes lead the unpickler anywhere
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise ValueError(f"{str(file)!r} is broken or no checkpoint of PyTorch ({reason}). Copy the file again.") from error
