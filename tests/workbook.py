"""Small XLSX files, written by hand as spreadsheets write them."""

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

_MAIN = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
_DOCUMENT = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_PACKAGE = "http://schemas.openxmlformats.org/package/2006/relationships"
STYLES = f"""<styleSheet {_MAIN}><numFmts><numFmt numFmtId="164" formatCode="yyyy\\-mm\\-dd"/><numFmt numFmtId="165" formatCode="0.0%"/>
<numFmt numFmtId="166" formatCode="[Red]0&quot; days&quot;"/></numFmts>
<cellStyleXfs><xf numFmtId="0"/></cellStyleXfs><cellXfs>{"".join(f'<xf numFmtId="{n}"/>' for n in (0, 14, 164, 165, 166))}</cellXfs></styleSheet>"""
"""Styles 0 to 4: as it is, a date, a date, a percentage, a number with a word behind it."""


class Raw(str):
    """A cell as it stands in the file, without its position: '<c t="b"><v>1</v></c>'."""


def write_workbook(path: Path, sheets: Mapping[str, Sequence[Sequence[str]]], merged: Sequence[str] = ()) -> None:
    """Sheets in the order of their tabs, the last one first in the archive; an empty text is an absent cell.

    Args:
        path: of the file.
        sheets: name -> lines of cells.
        merged: ranges such as "A2:A3", in every sheet.
    """
    texts = [cell for lines in sheets.values() for line in lines for cell in line if cell and not isinstance(cell, Raw)]
    shared = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    with zipfile.ZipFile(path, "w") as archive:
        items = "".join(f'<si><t xml:space="preserve">{escape(text)}</t></si>' for text in shared)
        archive.writestr("xl/sharedStrings.xml", f"<sst {_MAIN}>{items}</sst>")
        archive.writestr("xl/styles.xml", STYLES)
        names = "".join(f'<sheet name="{escape(name)}" sheetId="{n}" r:id="rId{n}"/>' for n, name in enumerate(sheets, 1))
        archive.writestr("xl/workbook.xml", f'<workbook {_MAIN} xmlns:r="{_DOCUMENT}"><sheets>{names}</sheets></workbook>')
        last = len(sheets)
        targets = "".join(
            f'<Relationship Id="rId{n}" Target="worksheets/sheet{last - n + 1}.xml"/>' for n in range(1, last + 1)
        )
        archive.writestr("xl/_rels/workbook.xml.rels", f'<Relationships xmlns="{_PACKAGE}">{targets}</Relationships>')
        ranges = "".join(f'<mergeCell ref="{each}"/>' for each in merged)
        for number, lines in enumerate(sheets.values(), 1):
            rows = "".join(_row(at, line, shared) for at, line in enumerate(lines, 1) if any(line))
            text = f"<worksheet {_MAIN}><sheetData>{rows}</sheetData><mergeCells>{ranges}</mergeCells></worksheet>"
            archive.writestr(f"xl/worksheets/sheet{last - number + 1}.xml", text)


def _row(number: int, line: Sequence[str], shared: Mapping[str, int]) -> str:
    cells = ""
    for column, cell in enumerate(line):
        position = f'r="{chr(ord("A") + column)}{number}"'
        if isinstance(cell, Raw):
            cells += cell.replace("<c", f"<c {position}", 1)
        elif cell:
            cells += f'<c {position} t="s"><v>{shared[cell]}</v></c>'
    return f'<row r="{number}">{cells}</row>'
