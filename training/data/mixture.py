"""Several data sets as one: how often each is seen, what is held out, in which order.

    held_out: 0.02                 # share of the pictures whose rows are never trained on
    sets:
      detail: {format: llava, file: llava/detail_23k.json, images: coco/train2017}
      captions: {format: coco_karpathy, file: coco/dataset_coco.json, images: coco, split: train, sample: 512}
      talk: {file: dolly.jsonl, weight: 0.3}

A set is seen once in an epoch; with `epochs: 2.5` so many times; with `sample: N` N of its rows, always the same; with `weight` (then
for every set) its share of as many rows as the sets hold together. Each set counts its own epochs: a set is seen whole, in an order
of its own, before any row of it is seen again.

What a row becomes, and which row stands where, is a function of (seed, epoch, index) alone, whatever the number of workers and
processes.
"""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from .formats import Skipped
from .rows import Picture, Row, RowError, or_error, text_of
from .sets import DataSet, open_set, read_configuration

KEYS = ("held_out", "leave_out_bad")


class Part:
    """One set of a mixture.

    Attributes:
        data: its records.
        indices: those of them that are seen.
        count: rows of it in an epoch of the mixture.
    """

    def __init__(self, data: DataSet, indices: np.ndarray, seed: int):
        self.data, self.indices, self.seed = data, indices, seed
        self.count = len(indices)
        self._orders: dict[int, np.ndarray] = {}

    def at(self, position: int) -> tuple[int, int]:
        """The record and the set's own epoch at a position of its endless order."""
        epoch, at = divmod(position, len(self.indices))
        if epoch not in self._orders:
            self._orders[epoch] = rng_of(self.seed, "order", self.data.name, epoch).permutation(self.indices)
        return int(self._orders[epoch][at]), epoch

    def forget(self) -> None:
        """Let go of the orders of passes that are over."""
        self._orders.clear()


class Mixture(Dataset):
    """The rows of several sets; `set_epoch` chooses the pass.

    Args:
        parts: the sets.
        seed: of the order and of what is drawn.

    Attributes:
        held_out: the mixture of rows that are never trained on, or None.
        report: a line for each set.
    """

    def __init__(self, parts: list[Part], seed: int):
        self.parts, self.seed, self.held_out = parts, seed, None
        self.report: list[str] = []
        self.ends = np.cumsum([part.count for part in parts])
        self.set_epoch(0)

    @classmethod
    def open(cls, path: Path, seed: int) -> "Mixture":
        """A configuration; every row of every set is read and checked.

        Raises:
            FileNotFoundError, ValueError: the configuration or a row of its sets is wrong.
        """
        settings = read_configuration(path, KEYS)
        share, allowed = settings.get("held_out", 0), settings.get("leave_out_bad", 0)
        for key, value in (("held_out", share), ("leave_out_bad", allowed)):
            if not isinstance(value, int | float) or not 0 <= value < 1:
                raise ValueError(f"{str(path)!r}: {key} is {value!r}; it is a share from 0 to below 1.")
        parts, held, report = [], [], []
        for data, options in zip(cls.sets_of(path), settings["sets"].values(), strict=True):
            train, held_out, line = _divide(data, share, allowed)
            train = _sampled(train, options, data.name, seed)
            parts.append(Part(data, train, seed))
            held += [Part(data, held_out, seed)] if len(held_out) else []
            report.append(line)
        _count(parts, list(settings["sets"].values()))
        mixture = cls(parts, seed)
        mixture.held_out = cls(held, seed) if held else None
        rows = len(mixture)
        mixture.report = [
            f"{line}: {part.count} rows an epoch ({part.count / rows:.1%}), {part.count / len(part.indices):.3g} of the set's own"
            for line, part in zip(report, parts, strict=True)
        ]
        return mixture

    @classmethod
    def sets_of(cls, path: Path) -> list[DataSet]:
        """The sets of a configuration, opened."""
        return [open_set(path, name, options) for name, options in read_configuration(path, KEYS)["sets"].items()]

    def set_epoch(self, epoch: int) -> None:
        """Choose the pass; what is shuffled is drawn anew."""
        self.epoch = epoch
        for part in self.parts:
            part.forget()
        self.order = rng_of(self.seed, "mixture", epoch).permutation(len(self))

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, index: int) -> Row:
        """The row at a place of this epoch's order; what is wrong with one that cannot be read stands under "error"."""
        slot = int(self.order[index])
        number = int(np.searchsorted(self.ends, slot, side="right"))
        part = self.parts[number]
        before = int(self.ends[number - 1]) if number else 0
        record, epoch = part.at(self.epoch * part.count + slot - before)
        return or_error(part.data.place(record), lambda: part.data.row(record, self.seed, epoch))


def rng_of(*name: Any) -> np.random.Generator:
    """A generator for a name: the same everywhere."""
    digest = hashlib.blake2b("/".join(map(str, name)).encode(), digest_size=16).digest()
    return np.random.default_rng(np.frombuffer(digest, np.uint32))


def picture_key(picture: Picture) -> str:
    """What tells a picture for the split: its file's name, in whatever folder, or its bytes."""
    if isinstance(picture, Path):
        return picture.name
    return hashlib.blake2b(picture if isinstance(picture, bytes) else str(picture).encode(), digest_size=16).hexdigest()


def is_held_out(key: str, share: float) -> bool:
    """Whether a picture is held out: by its name alone, so that it is in every set or in none."""
    digest = hashlib.blake2b(key.encode(), digest_size=8, person=b"held out").digest()
    return int.from_bytes(digest, "big") < share * 2**64


def _divide(data: DataSet, share: float, allowed: float) -> tuple[np.ndarray, np.ndarray, str]:
    """Records to train on and held-out ones; a row of pictures of both kinds is in neither."""
    train, held_out, mistakes, skipped, mixed = [], [], [], 0, 0
    for index in range(len(data)):
        try:
            row = data.row(index)
        except Skipped:
            skipped += 1
            continue
        except (RowError, FileNotFoundError) as error:
            mistakes.append(str(error))
            continue
        keys = [picture_key(picture) for picture in row["images"]]
        sides = {is_held_out(key, share) for key in keys or ["".join(map(text_of, row["messages"]))]}
        if len(sides) == 2:
            mixed += 1
        else:
            (held_out if True in sides else train).append(index)
    if len(mistakes) > allowed * len(data):
        raise ValueError(
            f"{len(mistakes)} of {len(data)} records of {data.name!r} are wrong, more than leave_out_bad allows ({allowed:g}). The "
            f"first: {mistakes[0]} All of them: python -m training data validate FILE"
        )
    if not train:
        raise ValueError(f"The set {data.name!r} gives no row to train on.")
    notes = [f"{len(train)} rows", *(f"{n} {what}" for n, what in (
        (len(held_out), "held out"), (mixed, "with pictures of both sides left out"), (skipped, "give no row"), (len(mistakes), "wrong"),
    ) if n)]  # fmt: skip
    return np.array(train), np.array(held_out, dtype=np.int64), f"{data.name} ({', '.join(notes)})"


def _sampled(indices: np.ndarray, options: dict, name: str, seed: int) -> np.ndarray:
    sample = options.get("sample")
    if sample is None:
        return indices
    if not isinstance(sample, int) or isinstance(sample, bool) or sample < 1:
        raise ValueError(f"The set {name!r} has sample {sample!r}; it is a number of rows.")
    return np.sort(rng_of(seed, "sample", name).permutation(indices)[:sample])


def _count(parts: list[Part], options: list[dict]) -> None:
    """Rows of each set in an epoch."""
    weights = [option.get("weight") for option in options]
    for part, option in zip(parts, options, strict=True):
        epochs, weight = option.get("epochs", 1), option.get("weight", 1)
        for key, value in (("epochs", epochs), ("weight", weight)):
            if not isinstance(value, int | float) or isinstance(value, bool) or value <= 0:
                raise ValueError(f"The set {part.data.name!r} has {key} {value!r}; it is a number above 0.")
        part.count = max(1, round(part.count * epochs))
    if any(weight is not None for weight in weights):
        if None in weights or any("epochs" in option for option in options):
            raise ValueError("Where one set has a weight, every set needs one, and none has epochs.")
        total = sum(len(part.indices) for part in parts)
        for part, weight in zip(parts, weights, strict=True):
            part.count = max(1, round(total * weight / sum(weights)))
