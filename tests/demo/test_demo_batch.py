"""`python -m demo batch`: order kept, resumed, of every form of question file and every family; mistakes in one line."""

import json
import shutil
from pathlib import Path

import pytest
from conftest import GOLDEN
from PIL import Image

from demo import batch
from demo.__main__ import main as demo_main

GOLDENS = GOLDEN.parent
MINI, OWL = GOLDENS / "minigpt4", GOLDENS / "mplug_owl"
MODELS = {
    "shipped": [],
    "mplug_owl": ["--model", OWL / "checkpoint", "--lora_model", OWL / "lrv_v2" / "lora_only.bin"],
    "minigpt4": ["--model", MINI / "checkpoint" / "pretrained_minigpt4_7b.pth", "--text_model", MINI / "vicuna_tiny"],
}
GREEDY = ["--temperature", "0", "--max_new_tokens", "6", "--only_cpu"]


@pytest.fixture
def folder(tmp_path):
    """A folder of two pictures, named as an `image_id` and as a file."""
    shutil.copy(MINI / "images" / "image_a.png", tmp_path / "900001.png")
    shutil.copy(MINI / "images" / "image_b.png", tmp_path / "51.png")
    return tmp_path


def write_lines(file: Path, rows: list) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def read_lines(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def run(questions: Path, folder: Path, *flags, model: str = "shipped") -> int:
    output = folder / "answers.jsonl"
    arguments = ["batch", questions, "--images", folder, "--output", output, *MODELS[model], *GREEDY, *flags]
    return demo_main([str(argument) for argument in arguments])


ROWS = [
    {"image": "51.png", "question_id": 1, "question": "What?"},
    {"image_id": "900001", "question": "What color is the boat? It is a long question."},
    {"image": ["51.png", "900001.png"], "question": "Which?"},
    {"question": "No picture?"},
    {"image_id": "51", "question": "What?", "task": "negative"},
]


@pytest.mark.parametrize("model", MODELS)
def test_answers_stand_in_order_and_are_those_of_each_question_alone(model, folder):
    questions = write_lines(folder / "questions.jsonl", ROWS)
    assert run(questions, folder, "--batch_size", "3", model=model) == 0
    together = read_lines(folder / "answers.jsonl")
    assert [{key: row[key] for key in asked} for row, asked in zip(together, ROWS, strict=True)] == ROWS
    (folder / "answers.jsonl").unlink()
    assert run(questions, folder, "--batch_size", "1", model=model) == 0
    assert read_lines(folder / "answers.jsonl") == together
    assert all("answer" in row and "error" not in row for row in together)


@pytest.mark.parametrize("wrap", [lambda rows: rows, lambda rows: {"annotations": rows}], ids=["list", "annotations"])
def test_a_json_list_is_read_as_lrv_has_it(wrap, folder):
    (folder / "questions.json").write_text(json.dumps(wrap(ROWS)), encoding="utf-8")
    questions = batch.read_questions(folder / "questions.json", folder)
    assert [question.row for question in questions] == ROWS
    assert [tuple(path.name for path in question.images) for question in questions] == [
        ("51.png",),
        ("900001.png",),
        ("51.png", "900001.png"),
        (),
        ("51.png",),
    ]


@pytest.mark.parametrize("left", ["a batch", "a batch and a line", "a batch and half a line", "nothing"])
def test_a_stopped_run_goes_on_and_gives_what_one_without_a_stop_gives(left, folder, monkeypatch):
    questions = write_lines(folder / "questions.jsonl", ROWS)
    sampled = ["--batch_size", "2", "--seed", "7", "--temperature", "0.9"]
    assert run(questions, folder, *sampled) == 0
    whole = (folder / "answers.jsonl").read_bytes()
    lines = whole.splitlines(keepends=True)
    kept = {"a batch": lines[:2], "a batch and a line": lines[:3], "nothing": []}.get(left, [*lines[:2], lines[2][:9]])
    (folder / "answers.jsonl").write_bytes(b"".join(kept))
    asked = []
    real = batch.answer_batch
    monkeypatch.setattr(batch, "answer_batch", lambda chat, config, rows: asked.append(len(rows)) or real(chat, config, rows))
    assert run(questions, folder, *sampled) == 0
    assert (folder / "answers.jsonl").read_bytes() == whole
    assert sum(asked) == (5 if left == "nothing" else 3)


def test_a_finished_run_loads_no_model(folder, monkeypatch):
    questions = write_lines(folder / "questions.jsonl", ROWS[:2])
    assert run(questions, folder) == 0
    monkeypatch.setattr(batch, "load_chat", None)
    assert run(questions, folder) == 0


def test_a_broken_picture_costs_its_own_answer_only(folder, capsys):
    (folder / "broken.png").write_bytes(b"\x89PNG no")
    rows = [ROWS[0], {"image": "broken.png", "question": "What?"}, ROWS[1]]
    assert run(write_lines(folder / "questions.jsonl", rows), folder) == 1
    answers = read_lines(folder / "answers.jsonl")
    assert ["answer" in row for row in answers] == [True, False, True]
    assert answers[1]["error"]
    assert "2 of 3 questions are answered" in capsys.readouterr().err
    assert run(folder / "questions.jsonl", folder) == 1  # also when there is nothing left to do


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"image": "none.png", "question": "What?"}], "none.png"),
        ([{"image": "51.png", "text": "What?"}], "row 1"),
        (["What?"], "row 1"),
        ([], "holds no question"),
    ],
)
def test_mistakes_are_one_line(rows, said, folder, capsys):
    assert run(write_lines(folder / "questions.jsonl", rows), folder) == 2
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1
    assert not (folder / "answers.jsonl").exists()


def test_answers_to_other_questions_are_not_gone_on_with(folder, capsys):
    write_lines(folder / "answers.jsonl", [{"question": "Another?", "answer": "Yes."}])
    before = (folder / "answers.jsonl").read_bytes()
    assert run(write_lines(folder / "questions.jsonl", ROWS), folder) == 2
    assert "answers another question" in capsys.readouterr().err
    assert (folder / "answers.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("model", "style", "said"),
    [("minigpt4", "main", None), ("minigpt4", "readme", "'v1', 'main', 'llama2'"), ("shipped", "main", "one prompt only")],
)
def test_a_prompt_style_is_taken_where_there_are_several(model, style, said, folder, capsys):
    questions = write_lines(folder / "questions.jsonl", [{"image": "900001.png", "question": "What color is the boat?"}])
    assert run(questions, folder, "--prompt_style", style, model=model) == (0 if said is None else 2)
    if said is not None:
        assert said in capsys.readouterr().err
        return
    recorded = json.loads((MINI / "expected.json").read_text(encoding="utf-8"))["single_main"]["text"]
    answer = read_lines(folder / "answers.jsonl")[0]["answer"]
    assert answer and recorded.removeprefix("<s>").strip().startswith(answer.strip())


def test_the_right_answer_of_a_row_is_kept_beside_the_models_and_the_run_goes_on(folder, monkeypatch):
    rows = [
        {"image_id": "51", "question": "What?", "answer": "A boat.", "task": "positive"},
        {"question": "Who?", "image": None},
    ]
    questions = write_lines(folder / "questions.jsonl", rows)
    assert run(questions, folder) == 0
    first, second = read_lines(folder / "answers.jsonl")
    assert first["reference_answer"] == "A boat." and first["answer"] != "A boat." and "reference_answer" not in second
    monkeypatch.setattr(batch, "load_chat", None)
    assert run(questions, folder) == 0


def test_questions_are_no_answers_to_themselves(folder):
    questions = write_lines(folder / "answers.jsonl", [{"question": "What?", "answer": "A boat."}])
    before = questions.read_bytes()
    assert run(questions, folder) == 2 and questions.read_bytes() == before


def test_a_line_ends_at_a_line_end_alone(folder):
    text = "What\u2028is\u0085it?"
    (folder / "questions.jsonl").write_text(json.dumps({"question": text}, ensure_ascii=False) + "\n", encoding="utf-8")
    (question,) = batch.read_questions(folder / "questions.jsonl", folder)
    assert question.text == text


def test_transparency_is_seen_as_a_person_sees_it(folder):
    Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save(folder / "clear.png")
    _, (part,) = batch._conversation(batch.Question({"question": "What?"}, (folder / "clear.png",)))
    assert part.open().getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"question": "\\ud800"}', "row 1: half a character"),
        ('{"question": "What?", "image_id": "51"}', "'51' may be 51.jpg or 51.png"),
        ('{"question": ' + "[" * 100_000 + "]" * 100_000 + "}", "line 1 is no JSON"),
    ],
)
def test_hostile_rows_are_one_line(folder, capsys, text, said):
    shutil.copy(folder / "51.png", folder / "51.jpg")
    (folder / "questions.jsonl").write_text(text, encoding="utf-8")
    assert run(folder / "questions.jsonl", folder) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
