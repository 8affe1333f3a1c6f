"""The shipped model describes what it sees, and the score is able to tell when a model misses its bars."""

import itertools
import json

import pytest
from PIL import Image

from demo import score, world
from demo.cli import DEFAULT_MODEL
from pipelines.visualcla import load_pretrained


@pytest.fixture(scope="module")
def model():
    return load_pretrained(DEFAULT_MODEL, dtype="float32")


def test_shipped_model_describes_what_it_sees_and_nothing_without_seeing(model):
    rows = list(itertools.islice(world.caption_rows(9, "held_out"), 32))
    blank = [{**row, "images": [Image.new("RGB", (128, 128), "white")]} for row in rows]
    seen, unseen = (
        sum(given == score.right_answer(row) for given, row in zip(score.answers(model, asked), rows, strict=True))
        for asked in (rows, blank)
    )
    assert seen >= 16
    assert unseen <= 4


def test_picture_of_a_paint_program_is_seen(model):
    """Drawn by hand of Pillow, not by the world: hard edges, pure colours, another size and shape of canvas."""
    from PIL import ImageDraw

    canvas = Image.new("RGB", (640, 480), "white")
    pen = ImageDraw.Draw(canvas)
    pen.ellipse((60, 40, 170, 150), fill=(255, 0, 0))
    pen.rectangle((450, 340, 560, 440), fill=(0, 0, 255))
    question = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Describe the picture."}]}
    (answer,) = score.answers(model, [{"messages": [question, {}], "images": [canvas]}])
    assert answer == "Top left: red circle; bottom right: blue square."


class Parrot:
    """Stands in for a model in `score.score`: always says the same."""

    def __init__(self, monkeypatch, said: str):
        monkeypatch.setattr(score, "answers", lambda model, rows, batch_size: [said for _ in rows])


def test_missed_bars_are_named_and_end_with_status_1(monkeypatch, capsys):
    Parrot(monkeypatch, "Yes.")
    monkeypatch.setattr(score, "load_model", lambda args: None)
    assert score.main(["--samples", "64", "--pairs", "8", "--json"]) == 1
    captured = capsys.readouterr()
    told = json.loads(captured.out)
    assert [line.split(":")[0] for line in told["missed"]] == [*score.BARS, "Chinese"]
    assert told["groups"]["exchanged"] == {"right": 0, "asked": 8, "share": 0.0}
    assert captured.err.count("missed: ") == len(told["missed"])
    assert {"kind", "question", "right", "given"} == set(told["wrong"][0])


@pytest.mark.parametrize("flags", [["--samples", "8"], ["--pairs", "0"], ["--batch_size", "0"], ["--model", "absent/"]])
def test_mistake_is_one_line_and_status_2(capsys, flags):
    try:
        status = score.main(flags)
    except SystemExit as stop:
        status = stop.code
    assert status == 2
    assert capsys.readouterr().err.count("\n") == 1
