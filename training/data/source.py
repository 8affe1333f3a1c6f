"""Rows to learn from: `{"messages": [...], "images": [...]}`, from a file or from a generator.

`messages` is a conversation as chat templates take it, with one {"type": "image"} item per image; `images` are PIL images or
paths. What a row becomes is collator.py.
"""

import importlib
import itertools
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

from torch.utils.data import Dataset, IterableDataset, get_worker_info

Row: TypeAlias = dict[str, Any]


class RowFile(Dataset):
    """The rows of a JSONL file. Image paths are relative to it.

    Raises:
        FileNotFoundError: the file, or an image that it names, is not there.
        ValueError: a line is no row.
    """

    def __init__(self, path: Path):
        if not path.is_file():
            raise FileNotFoundError(f"{str(path)!r} is not a file. Give a .jsonl file or module:function as source.")
        self.rows = []
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if line.strip():
                self.rows.append(_read_row(line, path, number))
        if not self.rows:
            raise ValueError(f"{str(path)!r} holds no rows.")

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Row:
        return self.rows[index]


class RowStream(IterableDataset):
    """The rows of a generator, sorted by length within windows so that a batch has little padding.

    Args:
        function: seed -> iterator of rows; the same seed gives the same rows.
        seed: handed to it.
        batch_size: rows per batch.
        sort_window: batches per window; 1 keeps the order of the generator.
    """

    def __init__(self, function: Callable[[int], Iterator[Row]], seed: int, batch_size: int = 1, sort_window: int = 1):
        self.function, self.seed = function, seed
        self.batch_size, self.sort_window = batch_size, sort_window

    def __iter__(self) -> Iterator[Row]:
        rows = iter(self.function(self.seed))
        if worker := get_worker_info():
            rows = itertools.islice(rows, worker.id, None, worker.num_workers)
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
    if source.endswith(".jsonl"):
        return RowFile(Path(source))
    module_name, _, function_name = source.partition(":")
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"source {source!r} cannot be opened ({error}). Give a .jsonl file, or module:function such as "
            "'demo.world:instruction_rows'."
        ) from error
    return RowStream(function, seed, batch_size, sort_window)


def _read_row(line: str, path: Path, number: int) -> Row:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{path}, line {number}: no JSON ({error}).") from error
    if not isinstance(row, dict) or not isinstance(row.get("messages"), list):
        raise ValueError(f"{path}, line {number}: a row is {{'messages': [...], 'images': [...]}}, but this is {line[:80]!r}.")
    images = [path.parent / name for name in row.get("images") or []]
    if missing := [str(image) for image in images if not image.is_file()]:
        raise FileNotFoundError(f"{path}, line {number}: images that are not there: {missing[:3]}.")
    return {**row, "images": images}


_BYTES_PER_IMAGE = 100


def _size(row: Row) -> int:
    """About as long as the row will be."""
    texts = (
        item["text"] if isinstance(item, dict) else item
        for message in row.get("messages", ())
        for item in message["content"]
        if isinstance(item, str) or "text" in item
    )
    return sum(len(text.encode()) for text in texts) + _BYTES_PER_IMAGE * len(row["images"])
