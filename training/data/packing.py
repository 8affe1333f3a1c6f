"""Several rows in one sequence of fixed length, so that almost no token is padding.

Rows stay isolated: position ids begin at 0 with each row, and where transformers finds that no attention mask is given and no cache
kept, its SDPA path cuts attention at each such beginning. With `use_cache=True`, or with an attention mask, rows would see each other,
so a packed batch has no mask and says `use_cache: False`.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from .collator import ConversationCollator, join_inputs
from .encode import Encoded
from .mixture import rng_of
from .rows import IGNORED, Row

OPEN_PACKS = 32
"""Sequences that are filled at the same time; more fill better, and hold rows back longer."""


class Pack(list):
    """Encoded rows that share a sequence."""

    @property
    def length(self) -> int:
        return sum(len(row.ids) for row in self)

    @property
    def num_pictures(self) -> int:
        return sum(_num_pictures(row) for row in self)


def pack(rows: Iterable[Encoded], length: int, max_pictures: int | None = None, open_packs: int = OPEN_PACKS) -> Iterator[Pack]:
    """Rows into sequences of at most `length` tokens and `max_pictures` pictures: each into the fullest that has room (best fit).

    Raises:
        ValueError: a row alone is too long, or has too many pictures.
    """
    packs: list[Pack] = []
    for row in rows:
        pictures = _num_pictures(row)
        if len(row.ids) > length or (max_pictures is not None and pictures > max_pictures):
            raise ValueError(
                f"a row of {len(row.ids)} tokens and {pictures} pictures fits into no pack ({length} tokens, {max_pictures} pictures)."
            )
        fitting = [
            one
            for one in packs
            if one.length + len(row.ids) <= length and (max_pictures is None or one.num_pictures + pictures <= max_pictures)
        ]
        if fitting:
            max(fitting, key=lambda one: one.length).append(row)
        else:
            if len(packs) == open_packs:
                fullest = max(packs, key=lambda one: one.length)
                packs.remove(fullest)
                yield fullest
            packs.append(Pack([row]))
    yield from packs


class PackingCollator:
    """Lists of rows to one packed batch: `input_ids`, `labels`, `position_ids` (1, length), the processor's keys by picture, and
    `use_cache: False`. For models whose language model takes `position_ids` on the SDPA path.

    Args:
        collator: encodes the rows.
        length: tokens of a sequence; a batch is one sequence, padded to it.
        max_pictures: of a sequence (or tiles, where a processor makes several of a picture); None for any number.
    """

    def __init__(self, collator: ConversationCollator, length: int, max_pictures: int | None = None):
        self.collator, self.length, self.max_pictures = collator, length, max_pictures

    def join(self, rows: Pack) -> dict[str, Any]:
        """One packed sequence as a batch."""
        ids = [token for row in rows for token in row.ids]
        # The first label of a row would be predicted by the last token of the row before.
        labels = [label for row in rows for label in (IGNORED, *row.labels[1:])]
        positions = [position for row in rows for position in range(len(row.ids))]
        rest = self.length - len(ids)
        batch = {
            "input_ids": torch.tensor([ids + [self.collator.pad_token_id] * rest]),
            "labels": torch.tensor([labels + [IGNORED] * rest]),
            "position_ids": torch.tensor([positions + list(range(rest))]),
            "use_cache": False,
        }
        return {**batch, **join_inputs(rows, self.length, in_a_row=True)}

    def packs(self, rows: Iterable[Row]) -> Iterator[Pack]:
        """Rows encoded and packed; bad ones, and those that no pack has room for, are left out and counted."""
        return pack(self._encoded(rows), self.length, self.max_pictures)

    def _encoded(self, rows: Iterable[Row]) -> Iterator[Encoded]:
        for row in rows:
            encoded = self.collator.try_encode(row)
            if encoded is None:
                continue
            pictures = _num_pictures(encoded)
            if len(encoded.ids) > self.length:
                self.collator.leave_out(row, f"{len(encoded.ids)} tokens, more than the {self.length} of a sequence.")
            elif self.max_pictures is not None and pictures > self.max_pictures:
                self.collator.leave_out(row, f"{pictures} pictures, more than the {self.max_pictures} of a sequence.")
            else:
                yield encoded


class PackedRows(IterableDataset):
    """Rows as packs; the rows of a file in an order of their own in every epoch.

    Args:
        rows: a data set, or a stream of rows.
        packing: encodes and packs them.
        seed: of the order.
    """

    def __init__(self, rows: Dataset, packing: PackingCollator, seed: int):
        self.rows, self.packing, self.seed, self.epoch = rows, packing, seed, 0
        if hasattr(rows, "report"):
            self.report = rows.report

    def set_epoch(self, epoch: int) -> None:
        """Choose the pass."""
        self.epoch = epoch
        if hasattr(self.rows, "set_epoch"):
            self.rows.set_epoch(epoch)

    def __iter__(self) -> Iterator[Pack]:
        if not hasattr(self.rows, "__len__"):
            yield from self.packing.packs(self.rows)
            return
        worker = get_worker_info()
        order = rng_of(self.seed, "packing", self.epoch).permutation(len(self.rows))
        order = order if worker is None else order[worker.id :: worker.num_workers]
        yield from self.packing.packs(self.rows[int(index)] for index in order)


class OnePack:
    """A data loader's collator: a batch is one pack."""

    def __init__(self, packing: PackingCollator):
        self.packing = packing

    def __call__(self, packs: list[Pack]) -> dict[str, Any]:
        (only,) = packs
        return self.packing.join(only)


def _num_pictures(row: Encoded) -> int:
    return next((len(value) for key, value in row.inputs.items() if key.startswith("pixel_values")), 0)
