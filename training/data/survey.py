"""Reading all of some data: what is wrong, what would be left out, how long rows are. `validate` and `stats` print it."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.images import ImageError, load_image

from .encode import Encoded, RowEncoder
from .formats import Skipped
from .mixture import Mixture
from .rows import Row, RowError
from .sets import DataSet

DATA_SUFFIXES = (".yaml", ".yml")
DATA = "rows (.jsonl, .json, .parquet, a saved data set), shards ('shards/*.tar'), or a configuration (.yaml)"
"""What the commands that read data take."""


@dataclass
class Survey:
    """What was found.

    Attributes:
        rows: good ones.
        mistakes: one line each, with the place.
        skipped: reason -> records that give no row.
        repeated: places of rows that repeat an earlier one, or its id.
        shortened: places of rows that lose turns or text to fit into the context.
        lengths: tokens of each good row, and how many of them are supervised; empty without a processor.
        turns, pictures: of each good row.
        pictures_opened: different ones.
    """

    rows: int = 0
    mistakes: list[str] = field(default_factory=list)
    skipped: Counter = field(default_factory=Counter)
    repeated: list[str] = field(default_factory=list)
    shortened: list[str] = field(default_factory=list)
    lengths: list[tuple[int, int]] = field(default_factory=list)
    turns: list[int] = field(default_factory=list)
    pictures: list[int] = field(default_factory=list)
    pictures_opened: int = 0


def open_data(path: Path) -> list[DataSet]:
    """A file of rows, shards, or the sets of a configuration.

    Raises:
        FileNotFoundError, ValueError: it cannot be opened.
    """
    if path.suffix.lower() in DATA_SUFFIXES:
        return Mixture.sets_of(path)
    return [DataSet.open(path)]


def survey(data: list[DataSet], processor: Any = None, max_length: int | None = None, opens_pictures: bool = True) -> Survey:
    """Read every row, open every picture once, and with a processor template and tokenise every row."""
    found, opened = Survey(), {}
    encoder = None if processor is None else RowEncoder(processor, max_length)
    for place, row in _rows(data, found):
        if (opens_pictures or encoder) and (reason := bad_picture(row, opened)):
            found.mistakes.append(f"{place}: {reason}")
            continue
        if encoder is not None:
            encoded = _encode(encoder, row, place, found)
            if encoded is None:
                continue
            found.lengths.append((len(encoded.ids), encoded.num_supervised))
        found.rows += 1
        found.turns.append(sum(message["role"] == "assistant" for message in row["messages"]))
        found.pictures.append(len(row["images"]))
    found.pictures_opened = len(opened)
    return found


def _rows(data: list[DataSet], found: Survey) -> Iterator[tuple[str, Row]]:
    for one in data:
        seen: dict[bytes, str] = {}
        for index in range(len(one)):
            try:
                place, row = one.place(index), one.row(index)
                for what, value in (("row", [row["messages"], row["images"]]), ("id", row.get("id"))):
                    if value is not None:
                        first = seen.setdefault(_digest(what, value), place)
                        if first != place:
                            found.repeated.append(f"{place}: the same {what} as {first}.")
                            break
                yield place, row
            except Skipped as reason:
                found.skipped[str(reason)] += 1
            except (RowError, FileNotFoundError) as error:
                found.mistakes.append(str(error))


def _digest(what: str, value: Any) -> bytes:
    return hashlib.blake2b(f"{what} {value!r}".encode("utf-8", "replace"), digest_size=16).digest()


def bad_picture(row: Row, opened: dict) -> str | None:
    """Why a picture of a row cannot be opened; None when all can. `opened` keeps what is known already."""
    return next((reason for picture in row["images"] if (reason := _open(picture, opened))), None)


def _open(picture: Any, opened: dict) -> str | None:
    """Why a picture cannot be opened; None when it can."""
    key = picture if isinstance(picture, str | Path) else hash(picture)
    if key not in opened:
        try:
            load_image(picture)
            opened[key] = None
        except ImageError as error:
            opened[key] = str(error)
    return opened[key]


def _encode(encoder: RowEncoder, row: Row, place: str, found: Survey) -> Encoded | None:
    before = encoder.shortened.rows
    try:
        encoded = encoder(row, place)
    except RowError as error:
        found.mistakes.append(str(error))
        return None
    if not encoded.num_supervised:
        found.mistakes.append(f"{place}: nothing of its answers fits into {encoder.max_length} tokens.")
        return None
    if encoder.shortened.rows > before:
        found.shortened.append(f"{place}: longer than {encoder.max_length} tokens; its last turns or words are left out.")
    return encoded
