"""Which files of a folder hold its weights. Standard library only."""

from collections.abc import Iterable
from pathlib import Path, PurePath

from ..json_files import read_json

MODEL_NAMES = ("model.safetensors", "pytorch_model.bin")
ADAPTER_NAMES = ("adapter_model.safetensors", "adapter_model.bin")
NAMES = (MODEL_NAMES[0], ADAPTER_NAMES[0], MODEL_NAMES[1], ADAPTER_NAMES[1])
"""In the order in which they count: safetensors before pickles, whole weights before an adapter's."""


def weight_files(folder: Path, names: Iterable[str] = NAMES) -> list[Path]:
    """The weight files of a folder: one file, or all shards of an index. Empty when there are none.

    Args:
        folder: the folder; a single weight file is its own answer.
        names: which to look for, in this order; one whose index is there counts as well as the file itself.

    Raises:
        FileNotFoundError: an index names a shard that is not there.
        ValueError: an index is no index, or names files outside of its folder.
    """
    if folder.is_file():
        return [folder]
    for name in names:
        if (folder / name).is_file():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.is_file():
            return [folder / shard for shard in _shards(index)]
    return []


def adapter_files(folder: Path) -> list[Path]:
    """The weight file of an adapter, which whole weights beside it are not."""
    return weight_files(folder, ADAPTER_NAMES)


def model_files(folder: Path) -> list[Path]:
    """The weight files of a whole model, which an adapter's beside them are not."""
    return weight_files(folder, MODEL_NAMES)


def has_leftover_adapter(folder: Path) -> bool:
    """Whether an adapter's configuration or weights lie beside whole weights: transformers would apply them once more."""
    is_adapter = (folder / "adapter_config.json").is_file() or bool(adapter_files(folder))
    return is_adapter and bool(model_files(folder))


def _shards(index: Path) -> list[str]:
    shards = read_json(index).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(shard, str) for shard in shards.values()):
        raise ValueError(
            f"{str(index)!r} is not a weight index: its weight_map does not name a file per tensor. Copy the file again."
        )
    names = sorted(set(shards.values()))
    if outside := [name for name in names if PurePath(name).name != name or name in ("", ".", "..") or "\\" in name]:
        raise ValueError(f"{str(index)!r} names {outside[:3]}, which lie outside of its folder: they are not opened.")
    if missing := [name for name in names if not (index.parent / name).is_file()]:
        raise FileNotFoundError(f"{index} names {missing}, which {'is' if len(missing) == 1 else 'are'} not there.")
    return names
