"""Data files as sequences of records: JSON lines, JSON arrays, Parquet, saved Hugging Face data sets.

A record is what stands in the file; `RowFile` holds checked rows.
"""

import json
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from .rows import Row, RowError, check_row, or_error

SUFFIXES = (".jsonl", ".json", ".parquet")


class Records(Sequence):
    """The records of a file by number, each with its place ("rows.jsonl, line 3").

    Attributes:
        notes: what its reader should know of the file, though nothing of it is wrong.
    """

    notes: Sequence[str] = ()

    def __init__(self, path: Path):
        self.path = path

    def place(self, index: int) -> str:
        return f"{self.path}, row {index + 1}"


class JsonLines(Records):
    """A file of one JSON value per line; lines end at "\\n" alone, as U+2028 and U+0085 stand in scraped text.

    Only where each line begins is held in memory.
    """

    def __init__(self, path: Path):
        super().__init__(path)
        _check_lines(path)
        self.starts: list[tuple[int, int]] = []  # byte and line number
        with path.open("rb") as file:
            at = 0
            for number, line in enumerate(file, 1):
                if line.strip() not in (b"", b"\xef\xbb\xbf"):
                    self.starts.append((at, number))
                at += len(line)

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> Any:
        at, number = self.starts[index]
        with self.path.open("rb") as file:
            file.seek(at)
            line = file.readline()
        return _parse(line, self.path, number)

    def __iter__(self) -> Iterator[Any]:
        with self.path.open("rb") as file:
            for at, number in self.starts:
                file.seek(at)
                yield _parse(file.readline(), self.path, number)

    def place(self, index: int) -> str:
        return f"{self.path}, line {self.starts[index][1]}"


class JsonArray(Records):
    """A file that holds one JSON list, one object with a list under `key`, or one object of records by id, which becomes their 'id'.

    Args:
        path: of the file.
        key: of the list inside the object.
        is_by_id: whether an object without `key` holds records by their ids.
    """

    def __init__(self, path: Path, key: str | None = None, is_by_id: bool = False):
        super().__init__(path)
        text, values = _read_json(path)
        at = _end_of_space(text, 0)
        if key is not None and isinstance(values, dict) and isinstance(values.get(key), list):
            at = next(begin for name, begin in _members(text, at) if name == key)
            values = values[key]
        if is_by_id and isinstance(values, dict):
            if wrong := next((name for name, value in values.items() if not isinstance(value, dict)), None):
                raise ValueError(f"{str(path)!r}: under {wrong!r} is {str(values[wrong])[:40]!r}, not a record.")
            values = [{"id": name, **value} for name, value in values.items()]
        if not isinstance(values, list):
            raise ValueError(f"{str(path)!r} holds {_kind(values)}, not a list of rows.")
        self.values, self.lines = values, []
        before, line = 0, 1
        for _, begin in _members(text, at):
            line += text.count("\n", before, begin)
            self.lines.append(line)
            before = begin

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: int) -> Any:
        return self.values[index]

    def place(self, index: int) -> str:
        return f"{self.path}, line {self.lines[index]} (row {index + 1})"


class ArrowRows(Records):
    """A Parquet file or a data set that `datasets` saved to disk; both stay on disk and are mapped into memory."""

    def __init__(self, path: Path):
        super().__init__(path)
        import datasets

        datasets.disable_progress_bars()
        datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # it logs what it raises
        files = sorted(path.rglob("*.parquet")) if path.is_dir() else sorted(path.parent.glob(path.name))
        is_saved = path.is_dir() and not files
        if len(splits := sorted({file.name.partition("-")[0] for file in files})) > 1 and path.is_dir():
            raise ValueError(
                f"{str(path)!r} holds the splits {splits}. Name one: {str(files[0].parent / f'{splits[0]}-*.parquet')!r}."
            )
        try:
            found = datasets.load_from_disk(str(path)) if is_saved else datasets.Dataset.from_parquet(list(map(str, files)))
        except Exception as error:  # pyarrow's and datasets' own classes
            raise ValueError(f"{str(path)!r} cannot be read ({' '.join(str(error).split())[:200]}).") from error
        if not isinstance(found, datasets.Dataset):
            raise ValueError(f"{str(path)!r} holds the splits {sorted(found)}. Name one: {str(path / sorted(found)[0])!r}.")
        self.table = found.with_format("arrow")

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> Any:
        # Arrow's own values: `datasets` would decode the pictures itself, and hide which row it was.
        return {key: value for key, value in self.table[index].to_pylist()[0].items() if value is not None}


class RowFile(Dataset):
    """The rows of a file, every one checked when it is opened. Picture paths are relative to the file.

    Raises:
        FileNotFoundError: the file, or a picture that it names, is not there.
        RowError: a row is wrong.
        ValueError: the file cannot be read, or holds no rows.
    """

    def __init__(self, path: Path):
        self.records = open_records(path)
        self.folder = path.parent
        for index, record in enumerate(self.records):
            check_row(record, self.records.place(index), self.folder)
        if not len(self.records):
            raise ValueError(f"{str(path)!r} holds no rows.")

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Row:
        place = self.records.place(index)
        return or_error(place, lambda: check_row(self.records[index], place, self.folder))


def open_records(path: Path, key: str | None = None, is_by_id: bool = False) -> Records:
    """A data file by its suffix, in any case; of `key` and `is_by_id` see `JsonArray`.

    Raises:
        FileNotFoundError, ValueError: it is not there, or cannot be read.
    """
    suffix = path.suffix.lower()
    if path.is_dir() or (suffix == ".parquet" and "*" in path.name and any(path.parent.glob(path.name))):
        return ArrowRows(path)
    if not path.is_file():
        raise FileNotFoundError(f"{str(path)!r} is not a file. Give a file of rows ({', '.join(SUFFIXES)}) as source.")
    if suffix == ".parquet":
        return ArrowRows(path)
    if suffix == ".json":
        return JsonLines(path) if key is None and not is_by_id and _is_lines(path) else JsonArray(path, key, is_by_id)
    if suffix == ".jsonl":
        return JsonLines(path)
    command = " Convert it: python -m training data convert table --file FILE" if suffix in (".csv", ".tsv", ".xlsx") else ""
    raise ValueError(f"{str(path)!r} is no file of rows; allowed: {', '.join(SUFFIXES)}.{command}")


def _check_lines(path: Path) -> None:
    """Raise ValueError where a file is no JSON lines as a whole."""
    with path.open("rb") as file:
        start, first = file.peek(2)[:2], file.readline(1000).removeprefix(b"\xef\xbb\xbf").strip()
    if start == b"\x1f\x8b":
        raise ValueError(f"{str(path)!r} is compressed. Unpack it: gunzip")
    if start in (b"\xff\xfe", b"\xfe\xff"):
        raise ValueError(f"{str(path)!r} is UTF-16. Save it as UTF-8.")
    if first in (b"{", b"["):
        raise ValueError(
            f"{str(path)!r} has rows of several lines. Write one row on each line, or a list of rows into a .json file."
        )


def _is_lines(path: Path) -> bool:
    """Whether a .json file holds one object per line, as some exporters write."""
    with path.open("rb") as file:
        first, second = (file.readline().removeprefix(b"\xef\xbb\xbf").strip() for _ in range(2))
    return first.startswith(b"{") and first.endswith(b"}") and (not second or second.startswith(b"{"))


def _read_json(path: Path) -> tuple[str, Any]:
    """A file's text and its value."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        return text, _loads(text)
    except UnicodeDecodeError as error:
        raise ValueError(f"{str(path)!r} is not UTF-8 ({error}). Save it as UTF-8.") from error
    except _NotJson as error:
        line = next(text.count("\n", 0, each.start()) + 1 for each in _STRING_OR_CONSTANT.finditer(text) if each[1])
        raise ValueError(f"{str(path)!r}, line {line}: {error}.") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{str(path)!r} is not valid JSON ({error}).") from error


_SKIP = json.JSONDecoder().raw_decode
_SPACE = re.compile(r"[ \t\n\r]*")


def _end_of_space(text: str, at: int) -> int:
    return _SPACE.match(text, at).end()


def _members(text: str, at: int) -> Iterator[tuple[str, int]]:
    """(name, where its value begins) of the list (whose names are empty) or object that begins at `at` of a text that is valid JSON."""
    is_object, at = text[at] == "{", _end_of_space(text, at + 1)
    while text[at] not in "]}":
        name = ""
        if is_object:
            name, at = _SKIP(text, at)
            at = _end_of_space(text, _end_of_space(text, at) + 1)
        yield name, at
        at = _end_of_space(text, _SKIP(text, at)[1])
        at = _end_of_space(text, at + 1) if text[at] == "," else at


def _parse(line: bytes, path: Path, number: int) -> Any:
    try:
        return _loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
    except UnicodeDecodeError as error:
        raise RowError(f"{path}, line {number}", f"not UTF-8 ({error}). Save the file as UTF-8.") from error
    except (ValueError, RecursionError) as error:
        raise RowError(f"{path}, line {number}", f"no JSON ({error}).") from error


class _NotJson(ValueError):
    """Python reads it, but it is no JSON."""


_STRING_OR_CONSTANT = re.compile(r'"(?:[^"\\]|\\.)*"|(NaN|-?Infinity)')


def _loads(text: str) -> Any:
    return json.loads(text, parse_constant=_no_constant, parse_float=_finite, object_pairs_hook=_object)


def _no_constant(name: str) -> None:
    raise _NotJson(f"{name} is no JSON")


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"the number {text} is too large")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} stands twice in an object")
    return values


def _kind(value: Any) -> str:
    return f"an object with {sorted(value)[:5]}" if isinstance(value, dict) else type(value).__name__
