"""A folder of pictures and a spreadsheet: CSV, TSV, or XLSX as it was saved."""

import csv
import io
import random
import re
from pathlib import Path
from typing import Any

from ..files import Records
from ..rows import Row, RowError, clean, make_row
from .base import Format
from .spreadsheet import Unreadable, read_workbook

COLUMNS = {
    "image": ("image", "images", "picture", "pictures", "file", "filename", "file name", "file_name", "path", "图片"),
    "question": ("question", "instruction", "prompt", "query", "user", "问题"),
    "answer": ("answer", "response", "output", "caption", "text", "label", "assistant", "答案", "回答"),
}
NO_TEXTS = ("nan", "<na>", "#n/a", "#ref!", "#value!", "#name?", "#div/0!", "null")
"""What programs write where there is nothing."""

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".heic")
INVISIBLE = "\u200b\u2060\ufeff"
"""What copying leaves at the ends of a text, and nobody sees."""

MIN_COMMON = 0.85
"""Share of a Chinese text's characters that are punctuation or among GB2312's 3,755 common ones, at least. Western letters with accents,
read as GB18030, seldom are."""


class Table(Format):
    name = "table"
    help = "your own CSV, TSV or XLSX with the columns image, question, answer; several pictures in a cell are separated by ';'"
    opens_pictures = True

    def records(self, path: Path) -> Records:
        return _Rows(path, self)

    def names(self, cell: str) -> list[str]:
        """The paths of the pictures in a cell; a backslash divides folders, as on Windows."""
        return [self.picture(name.strip().replace("\\", "/")) for name in cell.split(";") if name.strip()]

    def row(self, record: Any, rng: random.Random) -> Row:
        question, answer = (clean(record[column].strip(INVISIBLE)) for column in ("question", "answer"))
        return make_row([(question, answer)], self.names(record["image"]))


class _Rows(Records):
    """The lines of a table below its head, each as {"image", "question", "answer"}."""

    def __init__(self, path: Path, table: Table):
        super().__init__(path)
        if not path.is_file():
            raise FileNotFoundError(f"{str(path)!r} is not a file. Give a .csv, .tsv or .xlsx file.")
        is_workbook = path.suffix.lower() in (".xlsx", ".xlsm")
        (_, self.head), *self.lines = _only_table(path, read_workbook(path)) if is_workbook else _read_csv(path) or [(1, [])]
        names = [cell.strip().lower() for cell in self.head]
        self.columns = _columns(self.head)
        if not _is_table(self.columns):
            raise ValueError(
                f"{str(path)!r} has the columns {', '.join(self.head) or 'none'}; its first line must name image, question and answer "
                "(question may be left out where there is an image)."
            )
        if twice := sorted({name for name in names if name and names.count(name) > 1}):
            raise ValueError(f"{str(path)!r} has several columns named {', '.join(twice)}.")
        self.first_at: dict[tuple[str, ...], int] = {}
        for number, cells in self.lines:
            self.first_at.setdefault(tuple(self._cells(cells).values()), number)
        self.notes = [
            *self._unused_columns(),
            *self._without_picture(),
            *self._answered_otherwise(),
            *self._unused_pictures(table),
        ]

    def __len__(self) -> int:
        return len(self.lines)

    def __getitem__(self, index: int) -> dict[str, str]:
        number, cells = self.lines[index]
        if reason := self._mistake(number, cells):
            raise RowError(self.place(index), reason)
        return self._cells(cells)

    def place(self, index: int) -> str:
        return f"{self.path}, line {self.lines[index][0]}"

    def _cells(self, cells: list[str]) -> dict[str, str]:
        return {column: cells[at] if at is not None and at < len(cells) else "" for column, at in self.columns.items()}

    def _mistake(self, number: int, cells: list[str]) -> str | None:
        if len(cells) > len(self.head) and any(cell.strip() for cell in cells[len(self.head) :]):
            return f"{len(cells)} cells under {len(self.head)} columns; is a text with a comma not in quotes?"
        own = self._cells(cells)
        for column, text in own.items():
            if isinstance(text, Unreadable):
                return f"the {column}: {text}."
            if text.strip().lower() in NO_TEXTS:
                return f"the {column} is {text.strip()!r}, which programs write where there is nothing."
            if reason := _damage(text):
                return f"{reason} in the {column}."
        if not any(character.isprintable() and not character.isspace() for character in own["answer"]):
            return "the answer is empty."
        if own["answer"].strip() == own["question"].strip():
            return "the answer is the question."
        names = [name.strip() for name in own["image"].split(";") if name.strip()]
        if twice := next((name for name in names if names.count(name) > 1), None):
            return f"the picture {twice!r} stands twice in it."
        if joined := next((name for name in names if len(re.findall(r"\.\w+\s*(?:[,|\n]|$)", name)) > 1), None):
            return f"the picture {joined!r} looks like several; they are separated by ';'."
        if not own["question"].strip() and not own["image"].strip():
            return "neither picture nor question."
        if (first := self.first_at[tuple(own.values())]) != number:
            return f"the same as line {first}."
        return None

    def _unused_columns(self) -> list[str]:
        unused = [name.strip() for at, name in enumerate(self.head) if name.strip() and at not in self.columns.values()]
        return [f"columns that are not used: {', '.join(unused)}"] if unused else []

    def _without_picture(self) -> list[str]:
        """Lines that name none, where most do: an oversight, or text alone."""
        without = [number for number, cells in self.lines if not self._cells(cells)["image"].strip()]
        if not without or 2 * len(without) > len(self.lines):
            return []
        return [f"{len(without)} lines have no picture, such as line {without[0]}; they become text alone"]

    def _answered_otherwise(self) -> list[str]:
        """Lines that ask what an earlier one asks of the same pictures, with another answer."""
        first: dict[tuple[str, str], tuple[int, str]] = {}
        pairs = []
        for number, cells in self.lines:
            own = self._cells(cells)
            earlier, answer = first.setdefault((own["image"], own["question"]), (number, own["answer"]))
            if own["question"].strip() and answer != own["answer"]:
                pairs.append((number, earlier))
        if not pairs:
            return []
        number, earlier = pairs[0]
        return [
            f"{len(pairs)} lines ask what an earlier one asks and answer otherwise, such as line {number} after line {earlier}"
        ]

    def _unused_pictures(self, table: Table) -> list[str]:
        """Pictures in the folders of named ones that no line names."""
        named = {Path(name) for _, cells in self.lines for name in table.names(self._cells(cells)["image"])}
        folders = {path.parent for path in named if path.is_file()}
        there = {path for folder in folders for path in folder.iterdir() if path.suffix.lower() in PICTURES and path.is_file()}
        unused = sorted(there - named)
        return [f"{len(unused)} pictures stand in no line, such as {str(unused[0])!r}"] if unused else []


def _damage(text: str) -> str | None:
    """What a text has suffered on its way into the table."""
    if "\0" in text:
        return "a zero byte"
    if "\ufffd" in text:
        return "a character that was lost (U+FFFD)"
    if text.isascii():
        return None
    try:
        meant = text.encode("cp1252").decode("utf-8")
    except UnicodeError:
        return None
    return f"UTF-8 that was read as another encoding, so that {meant.strip()[:20]!r} became {text.strip()[:20]!r},"


def _columns(head: list[str]) -> dict[str, int | None]:
    names = [cell.strip().lower() for cell in head]
    return {column: next((names.index(word) for word in words if word in names), None) for column, words in COLUMNS.items()}


def _is_table(columns: dict[str, int | None]) -> bool:
    return columns["answer"] is not None and not columns["image"] is columns["question"] is None


def _only_table(path: Path, sheets: list) -> list[tuple[int, list[str]]]:
    """The lines of the one sheet that has the columns; of the first where none has."""
    if not sheets:
        return [(1, [])]
    tables = [(name, lines) for name, lines in sheets if _is_table(_columns(lines[0][1]))]
    if len(tables) > 1:
        names = ", ".join(repr(name) for name, _ in tables)
        raise ValueError(f"{str(path)!r} has several sheets of answers: {names}. Save the one that is meant as CSV (UTF-8).")
    return (tables or sheets)[0][1]


def _read_csv(path: Path) -> list[tuple[int, list[str]]]:
    text = _decoded(path)
    head = text.split("\n", 1)[0]
    delimiter = max("\t;,", key=head.count)  # a spreadsheet of many countries separates by semicolons
    csv.field_size_limit(10_000_000)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    lines, number = [], 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                lines.append((number, cells))
            number = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(
            f'{path}, line {number}: {error}. A text with quotes in it stands in quotes, and each of its own is doubled: "".'
        ) from error
    return lines


def _decoded(path: Path) -> str:
    data = path.read_bytes()
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16")
    if b"\0" in data[:1000]:
        raise ValueError(f"{str(path)!r} is no text. Save the table as CSV (UTF-8) or XLSX.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
    pairs = re.findall(rb"[\x81-\xfe][\x40-\xfe]", data)
    common = sum(0xA1 <= first <= 0xA3 or (0xB0 <= first <= 0xD7 and second >= 0xA1) for first, second in pairs)
    try:
        if common >= MIN_COMMON * len(pairs):
            return data.decode("gb18030")
    except UnicodeDecodeError:
        pass
    raise ValueError(f"{str(path)!r}, line {line}: neither UTF-8 nor GB18030. Save it as CSV (UTF-8).")
