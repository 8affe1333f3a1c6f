"""Somebody's folder of pictures and a spreadsheet: what it becomes, and every mistake in it by its line."""

import json
from xml.etree import ElementTree

import pytest
from PIL import Image
from workbook import Raw, write_workbook

from training.__main__ import main
from training.data import RowFile
from training.data.formats import spreadsheet
from training.data.rows import text_of

HEAD = ["image", "question", "answer"]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "pictures").mkdir()
    for number in range(3):
        Image.new("RGB", (8, 8), (number * 80, 0, 0)).save(tmp_path / "pictures" / f"{number}.jpg")
    return tmp_path


def convert(folder, file: str, *flags: str) -> int:
    argv = ["--file", str(folder / file), "--images", str(folder / "pictures"), "--output", str(folder / "rows.jsonl")]
    return main(["data", "convert", "table", *argv, *flags])


def texts(folder) -> list[list[str]]:
    return [[text_of(message) for message in row["messages"]] for row in RowFile(folder / "rows.jsonl")]


def test_sheet_is_found_by_its_columns_whatever_its_place(folder):
    lines = [HEAD, [], ["0.jpg", " What is it? ", "Red & blue."], ["1.jpg", "", Raw("<c><v>42</v></c>")]]
    write_workbook(folder / "t.xlsx", {"notes": [["Asked in May"]], "questions": lines})
    assert convert(folder, "t.xlsx") == 0
    assert texts(folder) == [["What is it?", "Red & blue."], ["", "42"]]


def test_values_are_as_their_user_sees_them(folder):
    cells = {
        '<c t="b"><v>1</v></c>': "TRUE",
        '<c t="b"><v>0</v></c>': "FALSE",
        '<c s="4"><v>3</v></c>': "3",
        '<c t="str"><f>A1</f><v>done</v></c>': "done",
        '<c t="inlineStr"><is><r><t>Two </t></r><r><t>runs</t></r><rPh><t>x</t></rPh></is></c>': "Two runs",
    }
    write_workbook(folder / "t.xlsx", {"a": [HEAD, *(["0.jpg", f"Q{n}", Raw(cell)] for n, cell in enumerate(cells))]})
    assert convert(folder, "t.xlsx") == 0
    assert [said[1] for said in texts(folder)] == list(cells.values())


@pytest.mark.parametrize(
    ("cell", "named"),
    [
        ('<c s="1"><v>45418</v></c>', "it is a date, which the file holds as the number 45418"),
        ('<c s="2"><v>45418.5</v></c>', "it is a date"),
        ('<c s="3"><v>0.25</v></c>', "it is a percentage"),
        ('<c t="e"><v>#REF!</v></c>', "it is the error #REF!"),
        ("<c><f>B2</f><v></v></c>", "it is a formula whose value the file does not hold"),
        ("<c><f>B2</f></c>", "it is a formula whose value"),
    ],
)
def test_cell_that_holds_something_else_than_it_shows_is_refused(folder, capsys, cell, named):
    write_workbook(folder / "t.xlsx", {"a": [HEAD, ["0.jpg", "Q", "A"], ["1.jpg", "Q", Raw(cell)]]})
    assert convert(folder, "t.xlsx") == 1
    assert f"t.xlsx, line 3: the answer: {named}" in capsys.readouterr().err


def test_merged_cells_hold_for_all_their_lines(folder):
    lines = [HEAD, ["0.jpg", "What?", "Red."], ["", "Where?", "Left."], ["", "Hello?", "Hi."]]
    write_workbook(folder / "t.xlsx", {"a": lines}, merged=["A2:A3"])
    assert convert(folder, "t.xlsx") == 0
    assert [row["images"] for row in RowFile(folder / "rows.jsonl")] == [[folder / "pictures" / "0.jpg"]] * 2 + [[]]


def test_two_sheets_of_answers_are_refused(folder, capsys):
    write_workbook(folder / "t.xlsx", {"old": [HEAD, ["0.jpg", "Q", "A"]], "new": [HEAD, ["0.jpg", "Q", "B"]]})
    assert convert(folder, "t.xlsx") == 2
    assert "several sheets of answers: 'old', 'new'" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"PK\x03\x04", b"", b"\xd0\xcf\x11\xe0" + bytes(600)])
def test_file_that_is_no_workbook_is_one_line(folder, capsys, content):
    (folder / "t.xlsx").write_bytes(content)
    assert convert(folder, "t.xlsx") == 2
    error = capsys.readouterr().err
    assert "is no XLSX file that can be read" in error and error.count("\n") == 1


MISTAKES = [
    ("absent.jpg,What?,Red.", "is not there. Relative paths start at"),
    ("0.JPG,What?,Red.", "is not there, but '0.jpg' is"),
    ("2,What?,Red.", "is not there, but '2.jpg' is"),
    ("else/0.jpg,What?,Red.", "nor is its folder"),
    ("folder.jpg,What?,Red.", "is a folder"),
    ("cut.jpg,What?,Red.", "its end is missing"),
    ("empty.jpg,What?,Red.", "an empty file"),
    ("http://example.invalid/a.jpg,What?,Red.", "is an address"),
    ("1.jpg,What?,", "the answer is empty"),
    ("1.jpg,What?", "the answer is empty"),
    (",,Red.", "neither picture nor question"),
    ("1.jpg,What, who?,Red.", "4 cells under 3 columns"),
    ("1.jpg,What?,nan", "the answer is 'nan'"),
    ("0.jpg,What?,Red.", "the same as line 2"),
]


def test_every_mistake_is_named_with_its_line(folder, capsys):
    pictures = folder / "pictures"
    Image.effect_noise((64, 64), 80).save(pictures / "cut.jpg")
    (pictures / "cut.jpg").write_bytes((pictures / "cut.jpg").read_bytes()[:900])
    (pictures / "empty.jpg").touch()
    (pictures / "folder.jpg").mkdir()
    (folder / "t.csv").write_text("\n".join(["image,question,answer", "0.jpg,What?,Red.", *(line for line, _ in MISTAKES)]))
    assert convert(folder, "t.csv") == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == len(MISTAKES) + 1
    for number, (error, (_, named)) in enumerate(zip(errors, MISTAKES, strict=False), 3):
        assert f"t.csv, line {number}: " in error and named in error
    assert "14 of 15 records are wrong" in errors[-1] and "--leave_out_bad" in errors[-1]
    assert not (folder / "rows.jsonl").exists()
    assert convert(folder, "t.csv", "--leave_out_bad") == 0
    assert texts(folder) == [["What?", "Red."]]


def test_what_is_left_unused_is_said(folder, capsys):
    (folder / "t.csv").write_text("image,question,answer,caption,by\n0.jpg,What?,Red.,x,me\n")
    assert convert(folder, "t.csv") == 0
    out = capsys.readouterr().out
    assert "note: columns that are not used: caption, by" in out
    assert "note: 2 pictures stand in no line, such as" in out and "1.jpg" in out


def test_backslashes_of_windows_divide_folders(folder):
    (folder / "t.csv").write_text("image,question,answer\n..\\pictures\\0.jpg,What?,Red.\n")
    assert convert(folder, "t.csv") == 0


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ('image,question,answer\n0.jpg,Q,A\n1.jpg,"What?,Red.\n2.jpg,Q,A\n', "line 3: unexpected end of data"),
        ('image,question,answer\n0.jpg,"He said "no"?",A\n', "line 2: ',' expected after '\"'"),
    ],
)
def test_quote_that_swallows_lines_is_named(folder, capsys, content, named):
    (folder / "t.csv").write_text(content)
    assert convert(folder, "t.csv") == 2
    assert named in capsys.readouterr().err


@pytest.mark.parametrize("text", ["un café là", "élève", "Größe", "señor"])
def test_western_encoding_is_never_read_as_chinese(folder, capsys, text):
    (folder / "t.csv").write_bytes(f"image,question,answer\n0.jpg,Q,{text}\n".encode("latin-1"))
    assert convert(folder, "t.csv") == 2
    assert "line 2: neither UTF-8 nor GB18030" in capsys.readouterr().err


def test_long_chinese_text_of_a_spreadsheet_is_read(folder):
    text = "图中有一只红色的圆形，左边是镕基的照片。" * 5  # the second byte of 镕 is below 0x80
    (folder / "t.csv").write_bytes(f"图片,问题,答案\n0.jpg,这是什么？,{text}\n".encode("gb18030"))
    assert convert(folder, "t.csv") == 0
    assert texts(folder) == [["这是什么？", text]]
    assert json.loads((folder / "rows.jsonl").read_text(encoding="utf-8"))["images"] == ["pictures/0.jpg"]


@pytest.mark.parametrize("reference", ["XFE1", "ZZZZZZZ1", "A1048577", "A" + "9" * 4000])
def test_cells_outside_of_any_sheet_are_refused_before_room_is_made(reference):
    with pytest.raises(ValueError, match="a sheet has 1048576 lines and 16384 columns"):
        spreadsheet._position(reference)


@pytest.mark.parametrize("filled", ["cells", "merged"])
def test_a_small_file_cannot_make_a_large_sheet(filled):
    rows = "".join(f'<row r="{n}"><c r="XFD{n}"/></row>' for n in range(1, 700)) if filled == "cells" else ""
    merged = '<mergeCell ref="A1:XFD1048576"/>' if filled == "merged" else ""
    sheet = ElementTree.fromstring(f'<s xmlns="{spreadsheet._MAIN[1:-1]}">{rows}{merged}</s>')
    with pytest.raises(ValueError, match="a sheet has more than 10000000 cells"):
        spreadsheet._lines(sheet, [], [])


@pytest.mark.parametrize(
    ("line", "named"),
    [
        (["1.jpg", "What?", "\u200b\ufeff "], "the answer is empty."),
        (["1.jpg", "What is it? ", "What is it?"], "the answer is the question."),
        (["1.jpg; 1.jpg", "What?", "A."], "the picture '1.jpg' stands twice in it."),
        (["1.jpg, 2.jpg", "What?", "A."], "the picture '1.jpg, 2.jpg' looks like several; they are separated by ';'."),
        (["1.jpg", "Gr\u00c3\u00bcn?", "A."], "that 'Grün?' became 'GrÃ¼n?', in the question."),
        (["1.jpg", "What?", "Gr\ufffdn."], "a character that was lost (U+FFFD) in the answer."),
    ],
)
def test_oversights_are_named_with_their_line(folder, capsys, line, named):
    write_workbook(folder / "t.xlsx", {"a": [HEAD, ["0.jpg", "Q", "A"], line]})
    assert convert(folder, "t.xlsx") == 1
    assert f"t.xlsx, line 3: {named}" in capsys.readouterr().err.replace("UTF-8 that was read as another encoding, so ", "")


def test_what_may_be_meant_is_told_and_goes_through(folder, capsys):
    lines = [
        ["0.jpg", "What?", "\ufeffÜber, façade."],
        ["0.jpg", "What?", "Else."],
        ["1.jpg", "", "One."],
        ["1.jpg", "", "Two."],
        ["", "Q", "A"],
    ]
    write_workbook(folder / "t.xlsx", {"a": [HEAD, *lines]})
    assert convert(folder, "t.xlsx") == 0
    out = capsys.readouterr().out
    assert "1 lines have no picture, such as line 6" in out
    assert "1 lines ask what an earlier one asks and answer otherwise, such as line 3 after line 2" in out
    assert texts(folder)[0] == ["What?", "Über, façade."]
