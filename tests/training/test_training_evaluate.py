"""`python -m training evaluate`, with the shipped model, recorded answers and a server."""

import json
import re
import shutil
from pathlib import Path

import pytest
from openai_server import served
from PIL import Image

from demo import rows as demo_rows
from demo.cli import DEFAULT_MODEL
from training.evaluate import main, report
from training.evaluate.results import Result

RESULT = "rows.rows.demo.result.json"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """64 rows of the tiny world with their pictures."""
    folder = tmp_path_factory.mktemp("data")
    demo_rows.write(folder, 64, seed=3)
    return folder / "rows.jsonl"


@pytest.fixture(scope="module")
def done(data, tmp_path_factory):
    """A finished evaluation of the shipped model."""
    folder = tmp_path_factory.mktemp("done")
    assert evaluate(data, folder) == 0
    return folder


def evaluate(data, folder):
    return main(
        ["rows", str(data), "--model", str(DEFAULT_MODEL), "--name", "demo", "--output_dir", str(folder), "--batch_size", "8"]
    )


def test_shipped_model_knows_its_world(done):
    result = Result.open(done / RESULT)
    assert len(result.answers) == 64
    assert result.figures["accuracy"].value >= 0.9
    assert result.figures["accuracy"].value == sum(answer.score for answer in result.answers) / 64
    assert set(result.by) == {"kind", "language"}
    assert result.hallucination["all"]["no to what is not there"].value >= 0.9
    assert sum(sum(said.values()) for said in result.yes_no.values()) == sum(bool(a.expects) for a in result.answers) > 4


def test_stopped_run_goes_on_and_gives_the_same(data, done, tmp_path, monkeypatch):
    """Killed in the middle of a line; what was answered is not asked again, but for the batch that was being answered."""
    folder = tmp_path / "again"
    folder.mkdir()
    kept = (done / "answers.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "answers.jsonl").write_bytes(b"".join(kept[:27]) + kept[27][:11])
    asked = []
    from pipelines.generation import ChatModel

    answer_each = ChatModel.answer_each
    monkeypatch.setattr(
        ChatModel, "answer_each", lambda self, given, config: asked.append(len(given)) or answer_each(self, given, config)
    )
    assert evaluate(data, folder) == 0
    assert sum(asked) == 64 - 24
    assert (folder / RESULT).read_text() == (done / RESULT).read_text()
    asked.clear()
    assert evaluate(data, folder) == 0
    assert asked == []
    assert (folder / RESULT).read_text() == (done / RESULT).read_text()


def test_other_weights_are_asked_anew(tmp_path):
    from training.evaluate.models import fingerprint_of

    copy = shutil.copytree(DEFAULT_MODEL, tmp_path / "copy")
    assert fingerprint_of(DEFAULT_MODEL, bits=0) == fingerprint_of(copy, bits=0) != fingerprint_of(copy, bits=8)
    weights = next(copy.rglob("*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-5] ^= 1
    weights.write_bytes(content)
    assert fingerprint_of(DEFAULT_MODEL, bits=0) != fingerprint_of(copy, bits=0)


def test_blank_pictures_cost_the_model_its_score(data, done, tmp_path):
    """A score that would be the same without the pictures would not be worth anything."""
    blank = tmp_path / "blank"
    shutil.copytree(data.parent, blank)
    for file in (blank / "pictures").iterdir():
        Image.new("RGB", (128, 128), "white").save(file)
    assert evaluate(blank / "rows.jsonl", tmp_path / "out") == 0
    seen, guessed = (Result.open(folder / RESULT).figures["accuracy"].value for folder in (done, tmp_path / "out"))
    assert guessed < seen - 0.3


def test_options_are_chosen_by_likelihood(data, tmp_path):
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    rows = [row for row in rows if row["meta"]["kind"] in ("colour", "shape", "is_there", "absent") and len(row["images"]) == 1]
    colours = ["red", "orange", "yellow", "green", "blue", "purple", "pink", "black"]
    choices = []
    for row in rows:
        question, right = row["messages"][0]["content"][-1]["text"], row["messages"][1]["content"][0]["text"]
        others = [right.replace(colour, other) for colour in colours if colour in right for other in colours if other != colour]
        if row["meta"]["kind"] == "colour" and row["meta"]["language"] == "en":
            choices.append(
                {"image": row["images"][0], "question": question, "choices": sorted([right, *others]), "answer": right}
            )
    assert len(choices) > 1
    file = data.parent / "colour_choice.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in choices))
    assert main(["choice", str(file), "--model", str(DEFAULT_MODEL), "--name", "demo", "--output_dir", str(tmp_path)]) == 0
    result = Result.open(tmp_path / "choice.colour_choice.demo.result.json")
    assert result.figures["accuracy"].value == 1
    file.unlink()


OWLEVAL = [
    {"image": "1.jpg", "question_id": 1, "question": "What is odd?", "ability": "a,b", "category": ["single_turn"]},
    {
        "image": "2.jpg",
        "question_id": 2,
        "question": "Read the sign.",
        "ability": "c",
        "category": ["single_turn", "multi_turn"],
    },
]


@pytest.fixture
def owleval(tmp_path):
    """Questions, and two files of answers: one with VisualCLA's spelling of the key, one with pictures of another ending."""
    questions = tmp_path / "questions.jsonl"
    questions.write_text("".join(json.dumps(row) + "\n" for row in OWLEVAL))
    (tmp_path / "one.json").write_text(json.dumps([{**row, "outout": f"one {row['question_id']}"} for row in OWLEVAL]))
    rows = [{"question_id": row["question_id"], "image": "1.png", "answer": "two", "model_id": "second"} for row in OWLEVAL]
    (tmp_path / "two.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return questions


def test_recorded_answers_stand_side_by_side(owleval, tmp_path):
    out = tmp_path / "out"
    for name in ("one.json", "two.jsonl"):
        assert main(["owleval", str(owleval), "--predictions", str(tmp_path / name), "--output_dir", str(out)]) == 0
    results = report.find_results([out])
    assert [each.model for each in results] == ["one", "second"]
    assert [answer.answer for answer in results[0].answers] == ["one 1", "one 2"]
    assert results[0].answers[0].labels == {"ability": "instruction,visual", "turns": "single_turn", "language": "en"}
    assert "</script><b>" not in (out / "report.html").read_text()
    assert json.loads((out / "report.json").read_text())[1]["model"] == "second"


@pytest.mark.parametrize(
    ("write", "flags", "reason"),
    [
        (lambda f: f.write_text('{"question": "no id"}\n'), [], "line 1: there is none of 'question_id'"),
        (lambda f: f.write_text(""), [], "no questions"),
        (lambda f: f.write_text('{"a": 1}\n{"a": \n'), [], "line 2"),
        (lambda f: f.unlink(), [], "is not there"),
        (lambda f: f.write_text(json.dumps({**OWLEVAL[0], "ability": "z"}) + "\n"), [], r"unknown abilities \['z'\]"),
        (lambda f: f.write_text(json.dumps(OWLEVAL[0]) + "\n"), [], "1 answers no question"),
        (lambda f: None, ["--by", "letter"], None),
        (lambda f: None, ["--model", "x"], "Say who answers"),
    ],
)
def test_wrong_data_is_one_line(owleval, tmp_path, capsys, write, flags, reason):
    write(owleval)
    status = main(
        ["owleval", str(owleval), "--predictions", str(tmp_path / "one.json"), "--output_dir", str(tmp_path / "o"), *flags]
    )
    error = capsys.readouterr().err
    if reason is None:
        assert status == 0
    else:
        assert status == 2 and error.count("\n") == 1 and re.search(reason, error)


def test_missing_pictures_are_named_before_anything_is_asked(owleval, tmp_path, capsys):
    with served(lambda request: "never") as server:
        assert main(["owleval", str(owleval), "--server", server.url, "--output_dir", str(tmp_path / "o")]) == 2
        assert server.requests == []
    assert "2 pictures are not there" in capsys.readouterr().err


def test_model_behind_a_server_is_shown_the_pictures(owleval, tmp_path):
    for number, colour in ((1, "red"), (2, "blue")):
        Image.new("RGB", (8, 8), colour).save(tmp_path / f"{number}.jpg")

    def reply(request):
        from pipelines.images import load_image

        picture = next(item for item in request["messages"][0]["content"] if item["type"] == "image_url")
        red, _, blue = load_image(picture["image_url"]["url"]).getpixel((4, 4))[:3]
        return "red" if red > blue else "blue"

    with served(reply) as server:
        assert (
            main(["owleval", str(owleval), "--server", server.url, "--name", "far", "--output_dir", str(tmp_path / "o")]) == 0
        )
        assert (
            main(["owleval", str(owleval), "--server", server.url, "--name", "far", "--output_dir", str(tmp_path / "o")]) == 0
        )
        assert len(server.requests) == 2
    result = report.find_results([tmp_path / "o"])[0]
    assert [answer.answer for answer in result.answers] == ["red", "blue"]


def test_all_takes_what_it_knows_and_names_the_rest(owleval, tmp_path, capsys):
    folder = tmp_path / "data"
    folder.mkdir()
    shutil.move(owleval, folder)
    (folder / "notes.txt").write_text("x")
    flags = ["--predictions", str(tmp_path / "one.json"), "--output_dir", str(tmp_path / "o")]
    assert main(["all", str(folder), *flags]) == 0
    assert "notes.txt: the data of no task" in capsys.readouterr().err


def test_published_forms_are_read(tmp_path):
    """POPE, MME, VQA v2, A-OKVQA, COCO captions, LLaVA's questions in both languages, GAVIE: invented samples of each."""
    from training.evaluate.tasks import TASKS, ImageFolder

    def read(name, path):
        return TASKS[name].read(path, ImageFolder(tmp_path))

    def write(name, content):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = isinstance(content, list) and name.endswith(("pope_random.json", ".jsonl"))
        path.write_text(
            "\n".join(map(json.dumps, content)) if lines else content if isinstance(content, str) else json.dumps(content)
        )
        return path

    pope = write("coco_pope_random.json", [{"question_id": 1, "image": "a.jpg", "text": "Is there a cat?", "label": "no"}])
    assert (read("pope", pope)[0].expects, read("pope", pope)[0].labels) == ("no", {"kind": "random"})
    write("mme/existence/one.txt", "Is it there?\tYes\nIs that there?\tNo\n")
    assert [question.expects for question in read("mme", tmp_path / "mme")] == ["yes", "no"]
    write(
        "val_annotations.json",
        {"annotations": [{"question_id": 7, "answers": [{"answer": "red"}] * 10, "answer_type": "other"}]},
    )
    vqa = write("val_questions.json", {"questions": [{"question_id": 7, "image_id": 42, "question": "Which colour?"}]})
    Image.new("RGB", (4, 4)).save(tmp_path / "COCO_val2014_000000000042.jpg")
    assert (read("vqa", vqa)[0].right, read("vqa", vqa)[0].images[0].name) == (("red",) * 10, "COCO_val2014_000000000042.jpg")
    okvqa = {"image_id": 42, "split": "val", "question": "What?", "choices": ["a", "b"], "correct_choice_idx": 1}
    choice = read("choice", write("aokvqa_val.json", [okvqa]))[0]
    assert (choice.right, choice.images[0].is_file()) == (("b",), True)
    coco = {
        "images": [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}],
        "annotations": [{"image_id": 1, "caption": "x"}, {"image_id": 2, "caption": "y"}, {"image_id": 1, "caption": "z"}],
    }
    assert [question.right for question in read("captions", write("captions_val.json", coco))] == [("x", "z"), ("y",)]
    english = write("qa90_questions.jsonl", [{"question_id": 0, "image": "a.jpg", "text": "Why?", "category": "conv"}])
    chinese = write("zh.json", [{"question_id": 0, "image": "a.jpg", "instruction": "为什么？", "type": "complex"}])
    assert read("llava_bench", english)[0].labels == {"kind": "conversation", "language": "en"}
    assert read("llava_bench", chinese)[0].labels == {"kind": "reasoning", "language": "zh"}
    gavie = read("gavie", write("evaluation_set.json", [{"image_id": "23", "question": "Is there a zebra?"}]))
    assert (gavie[0].labels["image"], gavie[0].right) == ("23", ())


def test_name_that_leads_out_of_the_folder_finds_nothing(tmp_path):
    from training.evaluate.tasks import ImageFolder

    Image.new("RGB", (4, 4)).save(tmp_path / "secret.png")
    (tmp_path / "pictures").mkdir()
    folder = ImageFolder(tmp_path / "pictures")
    assert not folder.find("../secret.png").is_file()
    assert not folder.find(str(Path(tmp_path / "secret.png").resolve())).is_file()
