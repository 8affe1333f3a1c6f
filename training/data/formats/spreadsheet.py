"""XLSX by the standard library: the sheets of a workbook as lines of texts."""

import re
import zipfile
from pathlib import Path
from xml.etree import ElementTree

_MAIN = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
_RELATION = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}id"
MAX_BYTES = 200_000_000
MAX_LINES, MAX_COLUMNS = 1_048_576, 16_384  # of the format itself
MAX_CELLS = 10_000_000  # a cell's position makes all cells before it
PERCENT_FORMATS = (9, 10)
DATE_FORMATS = (*range(14, 23), *range(27, 37), *range(45, 48), *range(50, 59))
"""Numbers of the formats that every workbook has."""


class Unreadable(str):
    """A cell whose text is not what its user sees; the string says why."""


def read_workbook(path: Path) -> list[tuple[str, list[tuple[int, list[str]]]]]:
    """(name, lines that are not empty, each with its number) of every sheet that has some, in the order of their tabs.

    The text of merged cells stands in each of them.

    Raises:
        ValueError: it cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(item.file_size for item in archive.infolist()) > MAX_BYTES:
                raise ValueError(f"it unpacks to more than {MAX_BYTES} bytes")
            return _sheets(archive)
    except (zipfile.BadZipFile, ElementTree.ParseError, KeyError, ValueError, IndexError, RuntimeError) as error:
        reason = f"no {error.args[0]!r}" if isinstance(error, KeyError) else error
        raise ValueError(f"{str(path)!r} is no XLSX file that can be read ({reason}). Save it as CSV (UTF-8).") from error


def _sheets(archive: zipfile.ZipFile) -> list[tuple[str, list[tuple[int, list[str]]]]]:
    names = set(archive.namelist())

    def root(name: str) -> ElementTree.Element:
        return ElementTree.fromstring(archive.read(name))

    shared = (
        [_text(item) for item in root("xl/sharedStrings.xml").iter(f"{_MAIN}si")] if "xl/sharedStrings.xml" in names else []
    )
    formats = _formats(root("xl/styles.xml")) if "xl/styles.xml" in names else []
    targets = {each.get("Id"): each.get("Target", "") for each in root("xl/_rels/workbook.xml.rels")}
    found = []
    for sheet in root("xl/workbook.xml").iter(f"{_MAIN}sheet"):
        target = targets[sheet.get(_RELATION)].lstrip("/").removeprefix("xl/")
        if target.startswith("worksheets/"):  # others hold charts
            lines = _lines(root(f"xl/{target}"), shared, formats)
            if lines:
                found.append((sheet.get("name", ""), lines))
    return found


def _lines(sheet: ElementTree.Element, shared: list[str], formats: list[str]) -> list[tuple[int, list[str]]]:
    lines: dict[int, list[str]] = {}
    number = num_cells = 0
    for line in sheet.iter(f"{_MAIN}row"):
        number = int(line.get("r", number + 1))
        cells: list[str] = []
        for cell in line.iter(f"{_MAIN}c"):
            _, column = _position(cell.get("r")) if cell.get("r") else (number, len(cells))
            cells += [""] * (column + 1 - len(cells))
            cells[column] = _value(cell, shared, formats)
        lines[number] = cells
        num_cells = _counted(num_cells + len(cells))
    for merged in sheet.iter(f"{_MAIN}mergeCell"):
        (top, left), (bottom, right) = map(_position, merged.get("ref", "").split(":"))
        value = lines.get(top, [])[left : left + 1] or [""]
        num_cells = _counted(num_cells + (bottom - top + 1) * (right - left + 1))
        for number in range(top, bottom + 1):
            if cells := lines.get(number):
                cells += [""] * (right + 1 - len(cells))
                cells[left : right + 1] = value * (right + 1 - left)
    return [(number, cells) for number, cells in lines.items() if any(cell.strip() for cell in cells)]


def _counted(num_cells: int) -> int:
    if num_cells > MAX_CELLS:
        raise ValueError(f"a sheet has more than {MAX_CELLS} cells")
    return num_cells


def _value(cell: ElementTree.Element, shared: list[str], formats: list[str]) -> str:
    kind, value = cell.get("t", "n"), cell.findtext(f"{_MAIN}v")
    if kind == "inlineStr":
        return _text(cell)
    if not value and kind != "str":
        is_formula = cell.find(f"{_MAIN}f") is not None
        return (
            Unreadable("it is a formula whose value the file does not hold; open it in a spreadsheet and save it")
            if is_formula
            else ""
        )
    if kind == "s":
        return shared[int(value)]
    if kind == "b":
        return "TRUE" if value == "1" else "FALSE"
    if kind == "e":
        return Unreadable(f"it is the error {value}")
    if not value:
        return ""
    style = int(cell.get("s", 0))
    if kind == "n" and style < len(formats) and formats[style]:
        return Unreadable(f"it is a {formats[style]}, which the file holds as the number {value}; make the cell a text")
    return value


def _formats(styles: ElementTree.Element) -> list[str]:
    """What numbers of each style are shown as: "" (as they are), "date" or "percentage"."""
    codes = {int(each.get("numFmtId", 0)): each.get("formatCode", "") for each in styles.iter(f"{_MAIN}numFmt")}
    found = []
    for style in styles.iterfind(f"{_MAIN}cellXfs/{_MAIN}xf"):
        number = int(style.get("numFmtId", 0))
        code = re.sub(r'"[^"]*"|\\.|\[[^\]]*\]|general', "", codes.get(number, "").lower())
        is_date = number in DATE_FORMATS or any(letter in code for letter in "ymdhs")
        found.append("date" if is_date else "percentage" if number in PERCENT_FORMATS or "%" in code else "")
    return found


def _text(element: ElementTree.Element) -> str:
    """The text of runs, without phonetic hints."""
    hints = {id(node) for hint in element.iter(f"{_MAIN}rPh") for node in hint.iter()}
    return "".join(node.text or "" for node in element.iter(f"{_MAIN}t") if id(node) not in hints)


def _position(reference: str) -> tuple[int, int]:
    """'A1' -> (1, 0), 'AB3' -> (3, 27): line and column."""
    found = re.fullmatch(r"\$?([A-Z]+)\$?(\d+)", reference)
    if found is None:
        raise ValueError(f"a cell is called {reference!r}")
    column = 0
    for letter in found[1]:
        column = column * 26 + ord(letter) - ord("A") + 1
    if column > MAX_COLUMNS or len(found[2]) > 7 or int(found[2]) > MAX_LINES:
        raise ValueError(f"a cell is called {reference[:20]!r}, and a sheet has {MAX_LINES} lines and {MAX_COLUMNS} columns")
    return int(found[2]), column - 1
