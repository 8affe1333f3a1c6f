"""The tensors of published files, mapped and not read: a 7B checkpoint is opened in a second and costs no memory.

The reader is `pipelines.checkpoints.stored_tensors`.
"""

import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file

from ..checkpoints.stored_tensors import read_header
from ..checkpoints.weight_files import weight_files

MAX_SHARD_BYTES = 2 * 2**30
_BUFFERS = re.compile(r"(rotary_emb\.inv_freq|\.position_ids)$")


def stored_tensors(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a weight file or of a folder's weight files, as they are stored. Buffers that models compute are left out.

    Raises:
        FileNotFoundError: there is no such file, or no weights in the folder.
        ValueError: a file is broken, could run code, or holds no named tensors; the same name stands in two files.
    """
    if not path.exists():
        raise FileNotFoundError(f"{str(path)!r} is not there. Give the file that was published, or the folder it lies in.")
    files = [path] if path.is_file() else weight_files(path)
    if not files:
        raise FileNotFoundError(f"{str(path)!r} holds no weights (pytorch_model*.bin, *.safetensors). Give the model's folder.")
    tensors: dict[str, torch.Tensor] = {}
    for file in files:
        found = _open(file)
        if twice := sorted(tensors.keys() & found.keys()):
            raise ValueError(
                f"{str(file)!r} holds {twice[:3]} that another file holds, too. Remove the file that is not the model's."
            )
        tensors |= found
    return {name: tensor for name, tensor in tensors.items() if not _BUFFERS.search(name)}


def _open(file: Path) -> dict[str, torch.Tensor]:
    tensors = {name: tensor.map() for name, tensor in read_header(file).items()}
    if not tensors:
        raise ValueError(f"{str(file)!r} is not a checkpoint: it holds something else than named tensors.")
    return tensors


def check_placed(given: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor], source: str) -> None:
    """Every given tensor has a place of its own shape, and no place is left empty.

    Raises:
        ValueError: not so; names the tensors.
    """
    missing = [name for name in expected if name not in given]
    unknown = [name for name in given if name not in expected]
    wrong = [
        f"{name} {tuple(given[name].shape)}, here {tuple(expected[name].shape)}"
        for name in expected
        if name in given and given[name].shape != expected[name].shape
    ]
    problems = [
        f"{len(names)} tensors {what}: {', '.join(names[:3])}{' ...' if len(names) > 3 else ''}"
        for what, names in (("are missing", missing), ("have no place", unknown), ("have another shape", wrong))
        if names
    ]
    if problems:
        raise ValueError(f"{source} does not fit: {'; '.join(problems)}. Is it whole, and of this model?")


def check_finite(tensors: Mapping[str, torch.Tensor], source: str) -> None:
    """Raises ValueError when a value is infinite or no number."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{source}: {name} holds values that are not finite. The file is damaged; copy it again.")


def write_safetensors(
    tensors: Iterable[tuple[str, torch.Tensor]], folder: Path, max_shard_bytes: int = MAX_SHARD_BYTES
) -> None:
    """Write tensors as they come, in shards when they are many; of what is not mapped, one shard is in memory at a time."""
    save = partial(save_file, metadata={"format": "pt"})
    _write_shards(tensors, folder, "model", "safetensors", save, max_shard_bytes)


def write_pickles(tensors: Iterable[tuple[str, torch.Tensor]], folder: Path, max_shard_bytes: int = MAX_SHARD_BYTES) -> None:
    """As `write_safetensors`, in the `.bin` files that the originals read."""
    _write_shards(tensors, folder, "pytorch_model", "bin", torch.save, max_shard_bytes)


def _write_shards(tensors, folder: Path, stem: str, suffix: str, save, max_shard_bytes: int) -> None:
    shards: list[tuple[Path, list[str]]] = []
    shard: dict[str, torch.Tensor] = {}
    total = shard_bytes = 0

    def flush() -> None:
        file = folder / f"{stem}-part{len(shards):05d}.{suffix}"
        save(shard, file)
        file.chmod(0o644)  # safetensors writes for its owner alone
        shards.append((file, list(shard)))
        shard.clear()

    for name, tensor in tensors:
        if shard and shard_bytes + tensor.nbytes > max_shard_bytes:
            flush()
            shard_bytes = 0
        tensor = tensor.contiguous()
        # a view would be written with all of the storage it is a part of
        shard[name] = tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()
        shard_bytes += tensor.nbytes
        total += tensor.nbytes
    flush()
    if len(shards) == 1:
        shards[0][0].rename(folder / f"{stem}.{suffix}")
        return
    weight_map = {}
    for number, (file, names) in enumerate(shards, start=1):
        final = f"{stem}-{number:05d}-of-{len(shards):05d}.{suffix}"
        file.rename(folder / final)
        weight_map |= dict.fromkeys(names, final)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps(index, indent=2, sort_keys=True), encoding="utf-8")


@contextmanager
def new_folder(target: Path, force: bool = False) -> Iterator[Path]:
    """A folder under a temporary name beside `target`, which takes its place when the block ends well, and is gone when not.

    What a killed run left is thrown away, and a model that it had put aside is put back.

    Args:
        target: does not exist yet, is empty, or holds a model and `force` is given.

    Raises:
        FileExistsError: the target holds something else.
        BlockingIOError: another process is making the same folder.
    """
    partial_folder, old = (target.with_name(f".{target.name}.{state}") for state in ("partial", "old"))
    with _locked(partial_folder, target):
        if old.exists() and not target.exists():
            old.rename(target)
        holds_something = target.exists() and (not target.is_dir() or any(target.iterdir()))
        if holds_something and not (force and (target / "config.json").is_file()):
            hint = (
                "--force replaces a model, but this is none. Choose another folder."
                if force
                else "Choose another, or give --force."
            )
            raise FileExistsError(f"{str(target)!r} exists already and is not empty. {hint}")
        yield partial_folder
        if target.exists():
            target.rename(old)
        partial_folder.rename(target)
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def _locked(partial_folder: Path, target: Path) -> Iterator[None]:
    """Makes the folder anew and keeps others from doing the same; it is gone afterwards unless it was renamed."""
    partial_folder.mkdir(parents=True, exist_ok=True)
    lock = None
    try:
        import fcntl

        lock = os.open(partial_folder, os.O_RDONLY)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:  # not on Windows
        pass
    except OSError as error:
        os.close(lock)
        raise BlockingIOError(f"Another process is making {str(target)!r}. Wait for it, or end it.") from error
    try:
        for path in partial_folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        yield
    finally:
        shutil.rmtree(partial_folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)
