"""A planned model onto the disk: whole or not at all, and going on where a killed run of the same recipe stopped."""

import hashlib
import os
import sys
from pathlib import Path

import torch
from tqdm import tqdm

from pipelines.checkpoints.offsets import StoredTensor

from ..versions import versions
from .card import PACKAGES, model_card
from .folder import Layout, plan_shards, small_files
from .input_hashes import InputHashes
from .output_folder import OutputFolder
from .plan import plan_merge
from .products import MergePlan, Product
from .shards import Shard
from .streaming import write_shards

SMALL_FILES_BYTES = 2**20


def write_model(
    plan: MergePlan, layout: Layout, target: Path, max_shard_bytes: int, force: bool = False, links: bool = False
) -> None:
    """Write a model folder.

    Args:
        plan: the model.
        layout: of the folder.
        target: the folder to make.
        max_shard_bytes: of tensors per weight file.
        force: replace a model that is there.
        links: link weight files of the inputs where they can stand as they are.

    Raises:
        FileExistsError, ValueError, OSError: see `OutputFolder`; the model cannot have this layout; the disk is full.
    """
    shards = plan_shards(plan, layout, max_shard_bytes, links)
    small = small_files(plan, layout, shards)  # before any weight: what is missing is missed now
    with OutputFolder(target, recipe_hash(shards), [folder for _, folder in plan.inputs], force) as output:
        write_weights(shards, output, hashes := InputHashes(), sum(map(len, small.values())))
        small["README.md"] = model_card(plan, layout, hashes.finish(plan.input_files))
        for path, content in small.items():
            output.write(path, content)
        check_written(plan, output.folder)
        output.publish()


def check_written(plan: MergePlan, folder: Path) -> None:
    """Open a folder as anybody else would, before it gets its name: everything that was planned is in it, and it is a whole model.

    Raises:
        ValueError: it is not.
    """
    found = plan_merge(folder, None, [], None).products
    wrong = [
        name
        for name, product in plan.products.items()
        if name not in found or (found[name].shape, found[name].dtype) != (product.shape, product.dtype)
    ]
    if wrong:
        raise ValueError(
            f"{len(wrong)} tensors are not in {str(folder)!r} as they were meant to be, the first: {wrong[:3]}. Is the disk whole? "
            "Remove that folder and merge again; if it happens again, please report it."
        )


def write_weights(shards: list[Shard], output: OutputFolder, hashes: InputHashes, more_bytes: int = 0) -> None:
    """Write those shards that are not finished, with a progress bar on stderr."""
    todo = [shard for shard in shards if not output.is_finished(shard.path)]
    to_write = [shard for shard in todo if shard.link is None]
    num_bytes = sum(shard.num_bytes for shard in to_write)
    output.check_space(num_bytes + more_bytes + SMALL_FILES_BYTES)
    for shard in todo:
        (output.folder / shard.path).parent.mkdir(parents=True, exist_ok=True)
        if shard.link is not None:
            _link(shard.link, output.folder / shard.path)
    with tqdm(total=num_bytes, unit="B", unit_scale=True, unit_divisor=1000, file=sys.stderr, desc="weights") as bar:
        write_shards(to_write, output.folder, hashes, bar.update)


def _link(source: Path, path: Path) -> None:
    try:
        os.link(os.path.realpath(source), path)
    except OSError as error:
        raise OSError(
            f"{str(source)!r} cannot be hard-linked into {str(path.parent)!r} ({error.strerror}): both must lie on one disk that "
            "has hard links. Leave --hardlink out."
        ) from error


def recipe_hash(shards: list[Shard]) -> str:
    """Of everything that decides the bytes of the weight files. Inputs count by place, size and time of change."""
    digest = hashlib.sha256(repr(versions(PACKAGES)).encode())
    stats = {}
    for shard in shards:
        digest.update(f"{shard.path} {shard.link}\n".encode())
        for name, product in shard.products.items():
            for source in _sources(product):
                if source.file not in stats:
                    stat = source.file.stat()
                    stats[source.file] = (str(source.file.absolute()), stat.st_size, stat.st_mtime_ns)
                digest.update(repr((stats[source.file], source.offset, source.dtype, source.shape, source.stride)).encode())
            value = product.source.tolist() if isinstance(product.source, torch.Tensor) else None
            scales = [(change.scale, change.is_transposed) for change in product.changes]
            digest.update(repr((name, product.shape, product.dtype, value, scales)).encode())
    return digest.hexdigest()


def _sources(product: Product) -> list[StoredTensor]:
    found = [product.source, *(tensor for change in product.changes for tensor in (change.a, change.b, change.magnitude))]
    return [source for source in found if isinstance(source, StoredTensor)]
