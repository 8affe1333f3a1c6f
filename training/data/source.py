"""Where rows come from: a file, a mixture, or a generator that is named as module:function."""

import importlib
import inspect
import itertools
import random
from collections.abc import Callable, Iterator
from pathlib import Path

from torch.utils.data import Dataset, IterableDataset, Subset, get_worker_info

from .files import SUFFIXES, RowFile
from .mixture import Mixture, is_held_out, picture_key
from .rows import Row, content_items, text_of
from .shards import find_shards
from .streaming import ShardStream


class RowStream(IterableDataset):
    """The rows of a generator, sorted by length within windows so that a batch has little padding.

    Args:
        function: seed -> iterator of rows; the same seed gives the same rows. One that also takes `start` and `step` gives every
            step-th row from `start` on without making the others: so several workers share the work.
        seed: handed to it.
        batch_size: rows per batch.
        sort_window: batches per window; 1 keeps the order of the generator.
    """

    def __init__(self, function: Callable[[int], Iterator[Row]], seed: int, batch_size: int = 1, sort_window: int = 1):
        self.function, self.seed = function, seed
        self.batch_size, self.sort_window = batch_size, sort_window

    def __iter__(self) -> Iterator[Row]:
        worker = get_worker_info()
        if worker is None:
            rows = iter(self.function(self.seed))
        elif {"start", "step"} <= inspect.signature(self.function).parameters.keys():
            rows = iter(self.function(self.seed, start=worker.id, step=worker.num_workers))
        else:
            rows = itertools.islice(self.function(self.seed), worker.id, None, worker.num_workers)
        if self.sort_window < 2:
            yield from rows
            return
        rng = random.Random(self.seed)
        while window := list(itertools.islice(rows, self.batch_size * self.sort_window)):
            window.sort(key=_size)
            batches = [window[i : i + self.batch_size] for i in range(0, len(window), self.batch_size)]
            rng.shuffle(batches)
            yield from itertools.chain.from_iterable(batches)


def open_source(source: str, seed: int, batch_size: int = 1, sort_window: int = 1) -> Dataset:
    """A `source` as the configuration names it.

    Raises:
        FileNotFoundError, ValueError: there is no such file or function; see `RowFile`.
    """
    path = Path(source)
    if path.suffix.lower() in SUFFIXES or path.is_dir():
        return RowFile(path)
    if path.suffix.lower() in (".yaml", ".yml"):
        return Mixture.open(path, seed)
    if path.suffix.lower() == ".tar":
        return ShardStream(find_shards(path), seed)
    module_name, _, function_name = source.partition(":")
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"source {source!r} cannot be opened ({error}). Give a file of rows ({', '.join(SUFFIXES)}), a mixture (.yaml), shards ('shards/*.tar'), or module:function such "
            "as 'demo.world:instruction_rows'."
        ) from error
    return RowStream(function, seed, batch_size, sort_window)


_BYTES_PER_IMAGE = 100


def _size(row: Row) -> int:
    """About as long as the row will be."""
    items = [item for message in row.get("messages", ()) for item in content_items(message)]
    return sum(len(item["text"].encode()) for item in items if "text" in item) + _BYTES_PER_IMAGE * len(row["images"])


def split_by_picture(rows: Dataset, share: float) -> tuple[Dataset, Dataset]:
    """(rows to train on, held-out rows) of a file; a picture is in one of the two, and rows of pictures of both are in neither.

    Raises:
        ValueError: the rows are no file's, or one of the two is empty.
    """
    if not isinstance(rows, RowFile):
        raise ValueError("held_out divides a file of rows; a mixture says its own held_out, and streams have none.")
    sides: dict[bool, list[int]] = {True: [], False: []}
    for index in range(len(rows)):
        row = rows[index]
        keys = [picture_key(picture) for picture in row["images"]] or ["".join(map(text_of, row["messages"]))]
        if len(found := {is_held_out(key, share) for key in keys}) == 1:
            sides[found.pop()].append(index)
    if not all(sides.values()):
        raise ValueError(
            f"held_out {share:g} of {len(rows)} rows leaves {len(sides[False])} to train on and {len(sides[True])} to judge by. Give "
            "another share."
        )
    return Subset(rows, sides[False]), Subset(rows, sides[True])
