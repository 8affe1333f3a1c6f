"""The world in English as files: the same whoever makes them, of train pictures alone, learnt by recipes that parse."""

import json
from pathlib import Path

import pytest

from demo.recipes import english
from demo.scenes import COLOURS
from training.data.files import RowFile
from training.train.config import parse


def words(row: dict) -> str:
    contents = [message["content"] for message in row["messages"]]
    return " ".join(text if isinstance(text, str) else " ".join(item.get("text", "") for item in text) for text in contents)


def test_files_of_rows_are_the_same_by_any_number_of_processes(tmp_path, monkeypatch):
    monkeypatch.setattr(english, "ROWS_PER_PART", 20)
    answers = [
        {"question": "What is a violin?", "answer": "An instrument."},
        {"question": "And?", "answer": "It was cut"},
        {"question": "No?", "error": "too long"},
    ]
    (tmp_path / "answers.jsonl").write_text("\n".join(map(json.dumps, answers)), encoding="utf-8")
    for name, processes in (("one", "1"), ("two", "2")):
        given = ["rows", str(tmp_path / name), "--captions", "30", "--instructions", "150", "--processes", processes]
        english.main([*given, "--general", str(tmp_path / "answers.jsonl")])
    for file in ("captions.jsonl", "instructions.jsonl"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    lines = (tmp_path / "one/instructions.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [words(json.loads(line)) for line in lines]
    assert 3 < sum("An instrument." in text for text in texts) < 40
    assert not any("It was cut" in text for text in texts)
    assert all(text.isascii() for text in texts)
    shares = [
        sum(" ".join(part).lower().count(colour) for colour in list(COLOURS)[:2])
        / sum(" ".join(part).lower().count(colour) for colour in COLOURS)
        for part in (texts[:20], texts[-60:])
    ]
    assert shares[0] > 0.7 and shares[1] < 0.5, shares  # few colours at first
    rows = RowFile(tmp_path / "one/instructions.jsonl")
    assert len(rows) == 150 and all("error" not in rows[index] for index in range(150))


def test_general_questions_leave_the_ones_to_judge_by_out(tmp_path):
    english.main(["questions", str(tmp_path / "questions.jsonl")])
    lines = (tmp_path / "questions.jsonl").read_text(encoding="utf-8").splitlines()
    asked = [json.loads(line)["question"] for line in lines]
    assert len(set(asked)) == len(asked) > 100
    assert not any("France" in question for question in asked)


@pytest.mark.parametrize("path", sorted(Path("demo/recipes/smollm2").glob("*.yaml")), ids=lambda path: path.stem)
def test_recipes_of_smollm2_parse(path):
    recipe, arguments = parse(["--config", str(path), "--use_cpu", "true"])
    assert arguments.output_dir == f"outputs/smollm2/{path.stem}" and recipe.source.startswith("outputs/smollm2/world/")
