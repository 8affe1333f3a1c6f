"""What a format is: how records of a published file become rows."""

import random
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from ..files import Records, open_records
from ..rows import Row


class Skipped(ValueError):
    """A record that gives no row; the message is counted."""


class Format(ABC):
    """Records of one published form to rows.

    Args:
        images: the folder that picture names start from.
        split: only records of this split, where the format has splits.

    Attributes:
        name: what `convert` calls it.
        help: one line for the user: what it is, where it is from, what differs from the original's reading.
        key: of the list inside the file's object, where the file is one.
        opens_pictures: whether converting opens every picture, as for data that nobody has looked at before.
    """

    name: ClassVar[str]
    help: ClassVar[str]
    key: ClassVar[str | None] = None
    opens_pictures: ClassVar[bool] = False

    def __init__(self, images: Path = Path(), split: str | None = None):
        self.images, self.split = images, split

    def records(self, path: Path) -> Records:
        """The records of a file.

        Raises:
            FileNotFoundError, ValueError: it cannot be read.
        """
        return open_records(path, self.key)

    @abstractmethod
    def row(self, record: Any, rng: random.Random) -> Row:
        """One record as a row.

        Args:
            rng: seeded by (seed, epoch, record) alone; draws one of several questions or captions.

        Raises:
            Skipped: it is none of the split, or holds no answer.
            KeyError, TypeError, ValueError: it has not the form of this format.
        """

    def check_split(self, found: str) -> None:
        """Leave out what is of another split."""
        if self.split is not None and found != self.split:
            raise Skipped(f"split {found!r}")

    def picture(self, name: str) -> str:
        """The path of a picture below the folder of pictures; an absolute one stays, and so does an address."""
        return name if "://" in name else (self.images / name).as_posix()


def check_list(value: Any, name: str) -> None:
    """Raise TypeError where a value that is read one by one is no list: a text would be read letter by letter."""
    if not isinstance(value, list):
        raise TypeError(f"{name} is {str(value)[:40]!r}, no list")


def need(record: Any, *keys: str) -> list[Any]:
    """The values of keys that a record must have.

    Raises:
        KeyError: one is absent; the message says what there is.
    """
    if not isinstance(record, Mapping):
        raise TypeError(f"{str(record)[:40]!r} is no object")
    if absent := [key for key in keys if record.get(key) is None]:
        raise KeyError(f"no {', '.join(absent)} among {', '.join(map(str, record))}")
    return [record[key] for key in keys]
