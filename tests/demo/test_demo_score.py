"""The shipped model answers about held-out pictures, and the score is able to tell when a model misses its bars."""

import json

import pytest
from PIL import Image, ImageDraw

from demo import score, world
from demo.cli import DEFAULT_MODEL
from pipelines import load_model
from pipelines.generation import ChatModel


@pytest.fixture(scope="module")
def model():
    return ChatModel(*load_model(DEFAULT_MODEL, dtype="float32"))


@pytest.fixture(scope="module")
def result(model):
    return score.score(model, num_samples=640, num_pairs=112, num_further=400)


@pytest.mark.slow
def test_shipped_model_meets_every_bar(result):
    """The very exam whose numbers stand on its card."""
    assert result.missed == []


@pytest.mark.slow
def test_answers_cannot_be_guessed_without_the_picture(result):
    assert result.blank["single"].share < result.groups["single"].share - 0.4


def test_answers_do_not_depend_on_what_else_is_in_the_batch(model):
    rows = list(world.exam(32, 3))
    assert score.answers(model, rows, batch_size=32) == score.answers(model, rows, batch_size=1)


def test_picture_of_a_paint_program_is_seen(model):
    """Drawn by hand of Pillow, not by the world: hard edges, pure colours, another size and shape of canvas."""
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
        monkeypatch.setattr(score, "answers", lambda chat, rows, batch_size: [said for _ in rows])


def test_missed_bars_are_named_and_end_with_status_1(monkeypatch, capsys):
    Parrot(monkeypatch, "I see no picture.")
    monkeypatch.setattr(score, "load_chat", lambda args: None)
    assert score.main(["--samples", "64", "--pairs", "8", "--json"]) == 1
    captured = capsys.readouterr()
    told = json.loads(captured.out)
    missed = [group for group in score.BARS if group not in ("known", "shapes")]  # it refuses nothing, and is as bad on squares
    assert [line.split(":")[0] for line in told["missed"]] == [*missed, "Chinese"]
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
