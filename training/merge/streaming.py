"""The stream of weights: one thread reads, one hashes, one computes, one writes.

Memory is a fixed number of buffers, whatever the size of the model.
"""

import math
import queue
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch

from pipelines.checkpoints.low_rank import TILE_ELEMENTS, Factors, convert_rows
from pipelines.checkpoints.offsets import StoredTensor, read_into

from .background import InBackground, Sink
from .input_hashes import InputHashes
from .products import Product
from .shards import Shard, ShardWriter, open_writer

BLOCK_BYTES = 16 * 2**20
QUEUE_BLOCKS = 4


@dataclass
class _Block:
    """Some rows of a tensor on their way."""

    shard: Shard
    name: str
    product: Product
    first_row: int
    content: torch.Tensor  # (n, columns), or (n,) for a tensor that is only cast
    is_first: bool
    offset: int | None = None  # in the source's file, of what was read from there


_Item = tuple[_Block, Callable[[], None]]  # with what gives its buffer back


def write_shards(
    shards: list[Shard], folder: Path, hashes: InputHashes, progress: Callable[[int], Any] = lambda num_bytes: None
) -> None:
    """Write shards into a folder.

    Args:
        shards: each is read, computed and written in this order.
        folder: exists, with the shards' own folders.
        hashes: fed with everything that is read.
        progress: called with the number of bytes whenever some were written.

    Raises:
        OSError: a file cannot be read or written; unfinished files are removed.
        ValueError: an input changed while it was read.
    """
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a tile is too small to share, and the other threads need the processor
    try:
        _stream(shards, folder, hashes, progress)
    finally:
        torch.set_num_threads(num_threads)


def _stream(shards: list[Shard], folder: Path, hashes: InputHashes, progress: Callable[[int], Any]) -> None:
    work = torch.empty(max([TILE_ELEMENTS, *(_row_elements(p) for s in shards for p in s.products.values())]))
    targets: queue.SimpleQueue = queue.SimpleQueue()
    with ExitStack() as stack:
        writing = _Writing(folder, progress)
        sink = stack.enter_context(Sink(writing, writing.close, QUEUE_BLOCKS))
        blocks = stack.enter_context(InBackground(_read_blocks(shards), QUEUE_BLOCKS))
        sources = stack.enter_context(InBackground(_hashed(blocks, hashes), QUEUE_BLOCKS))
        factors: list[Factors] = []
        for block, give_back in sources:
            if block.is_first:
                factors = [change.factors() for change in block.product.changes]
            if block.product.dtype == block.content.dtype and not factors:
                _check_finite(block.content, block)
                sink.put((block, give_back))
                continue
            target = _take(targets, num_bytes := block.content.numel() * block.product.dtype.itemsize)
            rows = target[:num_bytes].view(block.product.dtype).view(block.content.shape)
            convert_rows(block.content, rows, factors, block.first_row, work)
            _check_finite(rows, block)
            give_back()
            block.content = rows
            sink.put((block, lambda target=target: targets.put(target)))


def _check_finite(values: torch.Tensor, block: _Block) -> None:
    """What is written can be computed with."""
    if not values.dtype.is_floating_point or not values.numel() or values.dtype.itemsize < 2:
        return
    low, high = values.aminmax()
    if math.isfinite(low) and math.isfinite(high):
        return
    source = block.product.source
    where = f" in {str(source.file)!r}" if isinstance(source, StoredTensor) else ""
    if not torch.isfinite(source.read() if isinstance(source, StoredTensor) else source).all():
        raise ValueError(
            f"{block.name}{where} holds values that are not finite (inf or NaN): the file is damaged. Copy it again."
        )
    raise ValueError(
        f"{block.name}{where} has values that {str(block.product.dtype).removeprefix('torch.')} cannot hold. Give --dtype bfloat16 or float32."
    )


def _row_elements(product: Product) -> int:
    return torch.Size(product.shape[1:]).numel() if product.changes else 1


def _take(pool: queue.SimpleQueue, num_bytes: int) -> torch.Tensor:
    """A buffer of at least so many bytes: a used one, or a new one when none is free or large enough."""
    try:
        buffer = pool.get_nowait()
    except queue.Empty:
        buffer = torch.empty(BLOCK_BYTES, dtype=torch.uint8)  # takes memory only as far as it is used
    return buffer if len(buffer) >= num_bytes else torch.empty(num_bytes, dtype=torch.uint8)


def _hashed(blocks: Iterable[_Item], hashes: InputHashes) -> Iterator[_Item]:
    for block, give_back in blocks:
        if block.offset is not None:
            hashes.feed(block.product.source.file, block.offset, _bytes(block.content))
        yield block, give_back


def _bytes(content: torch.Tensor) -> memoryview:
    return memoryview(content.flatten().view(torch.uint8).numpy())


def _read_blocks(shards: list[Shard]) -> Iterator[_Item]:
    """Blocks in order, each with what gives its buffer back."""
    pool: queue.SimpleQueue = queue.SimpleQueue()
    with ExitStack() as stack:
        handles: dict[Path, BinaryIO] = {}
        for shard in shards:
            for name, product in shard.products.items():
                source = product.source
                if not isinstance(source, StoredTensor):
                    yield _Block(shard, name, product, 0, source.flatten(), True), lambda: None
                    continue
                if source.file not in handles:
                    handles[source.file] = stack.enter_context(open(source.file, "rb", buffering=0))
                rows = source.num_elements // max(_row_elements(product), 1)
                if source.stride is not None or not rows:
                    content = source.read().view(rows, -1) if product.changes else source.read().flatten()
                    yield _Block(shard, name, product, 0, content, True), lambda: None
                    continue
                row_bytes = source.num_bytes // rows
                step = max(1, BLOCK_BYTES // row_bytes)
                for first in range(0, rows, step):
                    count = min(step, rows - first)
                    buffer = _take(pool, count * row_bytes)
                    content = buffer[: count * row_bytes]
                    offset = source.offset + first * row_bytes
                    read_into(handles[source.file], offset, memoryview(content.numpy()))
                    content = content.view(source.dtype)
                    if product.changes:
                        content = content.view(count, -1)
                    block = _Block(shard, name, product, first, content, first == 0, offset)
                    yield block, lambda buffer=buffer: pool.put(buffer)


class _Writing:
    """Puts blocks into the files they belong to."""

    def __init__(self, folder: Path, progress: Callable[[int], Any]):
        self.folder, self.progress = folder, progress
        self.shard: Shard | None = None
        self.writer: ShardWriter | None = None

    def __call__(self, item: _Item) -> None:
        block, give_back = item
        if block.shard is not self.shard:
            self._finish_shard()
            self.shard, self.writer = block.shard, open_writer(self.folder / block.shard.path, block.shard)
        if block.is_first:
            self.writer.begin(block.name, block.product)
        content = _bytes(block.content)
        self.writer.write(content)
        give_back()
        self.progress(len(content))

    def _finish_shard(self) -> None:
        if self.writer is not None:
            self.writer.finish()
            self.writer = None

    def close(self, is_whole: bool) -> None:
        try:
            if is_whole:
                self._finish_shard()
        finally:
            if self.writer is not None:
                self.writer.abandon()
