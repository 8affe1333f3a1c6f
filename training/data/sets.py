"""Data sets as one configuration file names them: which format, which file, where the pictures are.

    sets:
      detail:   {format: llava, file: llava/detail_23k.json, images: coco/train2017}
      captions: {format: coco_karpathy, file: coco/dataset_coco.json, images: coco, split: train, sample: 512}
      mine:     {file: rows.jsonl}

Paths are relative to the configuration file. `weight`, `sample`, `epochs` are the mixture's (mixture.py).
"""

import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from .files import Records, open_records
from .formats import FORMATS, Format, Skipped
from .rows import Row, RowError, check_row
from .shards import ShardRecords


@dataclass
class DataSet:
    """One set of records that become rows when they are asked for.

    Attributes:
        name: what the configuration calls it.
        records: what stands in its file.
        format: None where the file holds rows.
        folder: where relative picture paths start.
    """

    name: str
    records: Records
    format: Format | None
    folder: Path

    @classmethod
    def open(
        cls, file: Path, format: str | None = None, images: Path | None = None, split: str | None = None, name: str = ""
    ) -> "DataSet":
        """Open a file of rows (no format) or of a format.

        Raises:
            FileNotFoundError, ValueError: the file cannot be read, or there is no such format.
        """
        if format is None and file.suffix.lower() == ".tar":
            return cls(name or str(file), ShardRecords(file), None, file.parent)
        if format is None:
            return cls(name or str(file), open_records(file), None, images or file.parent)
        made = make_format(format, images or file.parent, split)
        return cls(name or str(file), made.records(file), made, Path())

    def __len__(self) -> int:
        return len(self.records)

    def place(self, index: int) -> str:
        return self.records.place(index)

    def row(self, index: int, seed: int = 0, epoch: int = 0) -> Row:
        """A record as a row: a function of (seed, epoch, index) alone.

        Raises:
            Skipped: it gives no row.
            RowError, FileNotFoundError: it is wrong.
        """
        place = self.place(index)
        try:
            record = self.records[index]
            if self.format is not None:
                record = self.format.row(record, random.Random(f"{seed}/{epoch}/{self.name}/{index}"))
        except (RowError, Skipped, FileNotFoundError):
            raise
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            reason = error.args[0] if isinstance(error, KeyError) else error
            raise RowError(place, f"not of the form {self.format.name!r} ({reason}).") from error
        return {**check_row(record, place, self.folder), "place": place}


def make_format(name: str, images: Path, split: str | None = None) -> Format:
    """A format by its name.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in FORMATS:
        raise ValueError(f"Unknown format {name!r}. Available: {', '.join(FORMATS)}.")
    return FORMATS[name](images, split)


def read_configuration(path: Path, known: Sequence[str] = ()) -> dict[str, Any]:
    """A YAML file with `sets`, and `known` keys beside it.

    Raises:
        ValueError: it cannot be read, or holds something else.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"cannot read the configuration {str(path)!r}: {' '.join(str(error).split())}.") from error
    if not isinstance(values, dict) or not isinstance(values.get("sets"), dict) or not values["sets"]:
        raise ValueError(f"{str(path)!r} names no data: it needs 'sets', each with a name and a file.")
    if unknown := sorted(set(values) - {"sets", *known}):
        raise ValueError(f"{str(path)!r} has unknown keys {unknown}; allowed: {', '.join(['sets', *known])}.")
    return values


SET_KEYS = ("format", "file", "images", "split", "weight", "sample", "epochs")


def open_set(configuration: Path, name: str, settings: Any) -> DataSet:
    """A set as a configuration file names it.

    Raises:
        FileNotFoundError, ValueError: it cannot be opened.
    """
    if not isinstance(settings, dict) or not isinstance(settings.get("file"), str):
        raise ValueError(f"{str(configuration)!r}: the set {name!r} needs a 'file'.")
    if unknown := sorted(set(settings) - set(SET_KEYS)):
        raise ValueError(
            f"{str(configuration)!r}: the set {name!r} has unknown keys {unknown}; allowed: {', '.join(SET_KEYS)}."
        )
    base = configuration.parent
    images = base / settings["images"] if settings.get("images") else None
    return DataSet.open(base / settings["file"], settings.get("format"), images, settings.get("split"), name)


def portable_path(picture: Path, output: Path) -> str:
    """How a file of rows names a picture: relative, so that both can be moved together, but an absolute path elsewhere stays."""
    relative = Path(os.path.relpath(picture, output.parent))
    return (picture if picture.is_absolute() and relative.parts[:1] == ("..",) else relative).as_posix()
