"""A folder of pictures and a spreadsheet: CSV, TSV, or XLSX as it was saved."""

import csv
import io
import random
import re
import zipfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from ..files import Records
from ..rows import Row, make_row
from .base import Format, clean

COLUMNS = {
    "image": ("image", "images", "picture", "pictures", "file", "filename", "file name", "file_name", "path", "图片"),
    "question": ("question", "instruction", "prompt", "query", "user", "问题"),
    "answer": ("answer", "response", "output", "caption", "text", "label", "assistant", "答案", "回答"),
}
_SHEET = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
MAX_SHEET_BYTES = 200_000_000


class Table(Format):
    name = "table"
    help = "CSV, TSV or XLSX with the columns image, question, answer; several pictures in a cell are separated by ';'"

    def records(self, path: Path) -> Records:
        return _Rows(path)

    def row(self, record: Any, rng: random.Random) -> Row:
        names = [self.picture(name.strip()) for name in record["image"].split(";") if name.strip()]
        if not record["answer"].strip():
            raise ValueError("the answer is empty")
        if not record["question"].strip() and not names:
            raise ValueError("neither picture nor question")
        return make_row([(clean(record["question"]), clean(record["answer"]))], names)


class _Rows(Records):
    """The lines of a table below its head, each as {"image", "question", "answer"}."""

    def __init__(self, path: Path):
        super().__init__(path)
        if not path.is_file():
            raise FileNotFoundError(f"{str(path)!r} is not a file. Give a .csv, .tsv or .xlsx file.")
        lines = _read_xlsx(path) if path.suffix.lower() == ".xlsx" else _read_csv(path)
        (_, head), *self.lines = lines or [(1, [])]
        names = [cell.strip().lower() for cell in head]
        self.columns = {
            column: next((names.index(word) for word in words if word in names), None) for column, words in COLUMNS.items()
        }
        if self.columns["answer"] is None or self.columns["image"] is self.columns["question"] is None:
            raise ValueError(
                f"{str(path)!r} has the columns {', '.join(head) or 'none'}; its first line must name image, question and answer "
                "(question may be left out where there is an image)."
            )
        if twice := sorted({name for name in names if name and names.count(name) > 1}):
            raise ValueError(f"{str(path)!r} has several columns named {', '.join(twice)}.")
        self.width = len(head)

    def __len__(self) -> int:
        return len(self.lines)

    def __getitem__(self, index: int) -> dict[str, str]:
        cells = self.lines[index][1]
        if len(cells) > self.width and any(cell.strip() for cell in cells[self.width :]):
            raise ValueError(f"{len(cells)} cells under {self.width} columns; is a text with a comma not in quotes?")
        return {column: cells[at] if at is not None and at < len(cells) else "" for column, at in self.columns.items()}

    def place(self, index: int) -> str:
        return f"{self.path}, line {self.lines[index][0]}"


def _read_csv(path: Path) -> list[tuple[int, list[str]]]:
    data = path.read_bytes()
    if b"\0" in data[:1000] and not data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ValueError(f"{str(path)!r} is no text. Save the table as CSV (UTF-8) or XLSX.")
    encodings = ("utf-16",) if data.startswith((b"\xff\xfe", b"\xfe\xff")) else ("utf-8-sig", "gb18030")
    for encoding in encodings:
        try:
            text = data.decode(encoding)
            break
        except UnicodeDecodeError:
            continue
    else:
        raise ValueError(f"{str(path)!r} is neither UTF-8 nor GB18030. Save it as CSV (UTF-8).")
    head = text.split("\n", 1)[0]
    delimiter = max("\t;,", key=head.count)  # a spreadsheet of many countries separates by semicolons
    csv.field_size_limit(10_000_000)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    lines, number = [], 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                lines.append((number, cells))
            number = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: {error}.") from error
    return lines


def _read_xlsx(path: Path) -> list[tuple[int, list[str]]]:
    """The first sheet, by the standard library: shared strings, and cells by their letters."""
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(item.file_size for item in archive.infolist()) > MAX_SHEET_BYTES:
                raise ValueError(f"{str(path)!r} unpacks to more than {MAX_SHEET_BYTES} bytes. Save it as CSV (UTF-8).")
            names = archive.namelist()
            shared = []
            if "xl/sharedStrings.xml" in names:
                root = ElementTree.fromstring(archive.read("xl/sharedStrings.xml"))
                shared = [_text(item) for item in root.iter(f"{_SHEET}si")]
            sheet = min(
                (name for name in names if re.fullmatch(r"xl/worksheets/sheet\d+\.xml", name)), key=lambda n: (len(n), n)
            )
            root = ElementTree.fromstring(archive.read(sheet))
    except (zipfile.BadZipFile, ElementTree.ParseError, KeyError, ValueError) as error:
        if isinstance(error, ValueError) and str(path) in str(error):
            raise
        raise ValueError(f"{str(path)!r} is no XLSX file that can be read ({error}). Save it as CSV (UTF-8).") from error
    lines = []
    for count, line in enumerate(root.iter(f"{_SHEET}row"), 1):
        cells: list[str] = []
        for cell in line.iter(f"{_SHEET}c"):
            at = _column(cell.get("r", "")) if cell.get("r") else len(cells)
            cells += [""] * (at + 1 - len(cells))
            value = cell.findtext(f"{_SHEET}v") or ""
            kind = cell.get("t")
            cells[at] = shared[int(value)] if kind == "s" else _text(cell) if kind == "inlineStr" else value
        if any(text.strip() for text in cells):
            lines.append((int(line.get("r", count)), cells))
    return lines


def _text(element: ElementTree.Element) -> str:
    """The text of runs, without phonetic hints."""
    hints = {id(node) for hint in element.iter(f"{_SHEET}rPh") for node in hint.iter()}
    return "".join(node.text or "" for node in element.iter(f"{_SHEET}t") if id(node) not in hints)


def _column(reference: str) -> int:
    """'A1' -> 0, 'AB3' -> 27."""
    number = 0
    for letter in reference.rstrip("0123456789"):
        number = number * 26 + ord(letter.upper()) - ord("A") + 1
    return number - 1
