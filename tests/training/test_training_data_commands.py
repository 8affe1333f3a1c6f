"""validate, preview and stats on a small folder of somebody's own."""

import json
import re

import native_models
import pytest
from PIL import Image

from training.__main__ import main
from training.data.rows import make_row
from training.data.stats import padding_share, quantiles

MODEL = "demo/model"


@pytest.fixture
def folder(tmp_path):
    Image.new("RGB", (40, 30), "red").save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(data[: len(data) // 2])
    return tmp_path


def write(folder, *rows: dict) -> str:
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return str(folder / "rows.jsonl")


GOOD = make_row([("Describe the picture.", "A red <b>circle</b>."), ("有几个？", "两个。")], ["a.png"])


def test_validate_names_every_mistake_with_its_line(folder, capsys):
    file = write(
        folder,
        GOOD,
        make_row([("What is it?", "Red.")], ["cut.png"]),
        make_row([("What is it?", "Red.")], ["absent.png"]),
        {"messages": [{"role": "human", "content": "x"}]},
        make_row([("What is it? " * 2000, "Red.")], []),
        make_row([("What is it?", "Red."), ("What is it? " * 2000, "Red.")], []),
    )
    assert main(["data", "validate", file, "--model", MODEL]) == 1
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert [int(re.search(r"line (\d+): ", line)[1]) for line in lines] == [2, 3, 4, 5]
    for line, named in zip(
        lines, ["cut.png", "absent.png' is not there", "Write 'user'", "nothing of its answers fits"], strict=True
    ):
        assert named in line
    assert "line 6: longer than" in out
    assert "2 good rows with 1 pictures, 2 pictures opened; 4 wrong or too long" in out


def test_validate_of_good_rows_is_status_0(folder, capsys):
    file = write(folder, GOOD)
    assert main(["data", "validate", file]) == 0
    assert "1 good rows" in capsys.readouterr().out


@pytest.mark.parametrize("family", ["llava", "smolvlm", "qwen2_5_vl"])
def test_rows_are_read_as_other_families_do(family, folder, capsys):
    """LLaVA as transformers has it, and native models."""
    model, file = str(native_models.write(family, folder / family)), write(folder, GOOD)
    for command in ("validate", "stats", "preview"):
        assert main(["data", command, file, "--model", model]) == 0, command
    out = capsys.readouterr().out
    assert "1 good rows with 1 pictures" in out and re.search("« ?两个。", out)


def test_validate_reads_the_sets_of_a_configuration(folder, capsys):
    (folder / "dolly.jsonl").write_text(json.dumps({"instruction": "a", "context": "", "response": ""}))
    (folder / "data.yaml").write_text("sets:\n  mine: {file: rows.jsonl}\n  talk: {format: dolly, file: dolly.jsonl}\n")
    write(folder, GOOD)
    assert main(["data", "validate", str(folder / "data.yaml")]) == 0
    assert "1 records give no row: no answer" in capsys.readouterr().out


def test_preview_marks_what_is_taught(folder, capsys):
    file = write(folder, GOOD, {"messages": []})
    assert main(["data", "preview", file, "--model", MODEL]) == 1
    out = capsys.readouterr().out
    assert "[picture, 16 tokens]" in out
    assert "### Response:«A red <b>circle</b>.»«</s>»" in out
    assert "«两个。»«</s>»" in out
    assert "line 2\n'messages' is a list" in out


def test_page_of_a_preview_holds_the_pictures_and_no_markup_of_the_data(folder):
    page = folder / "page.html"
    assert main(["data", "preview", write(folder, GOOD), "--model", MODEL, "--html", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    assert '<img alt="picture 1" src="data:image/jpeg;base64,' in text
    assert "<mark>A red &lt;b&gt;circle&lt;/b&gt;.</mark>" in text
    assert "<b>" not in text


def test_stats_count_and_draw(folder, capsys):
    file = write(folder, GOOD, make_row([("Hello!", "Hello!")], []))
    plot = folder / "stats.png"
    assert main(["data", "stats", file, "--model", MODEL, "--json", "--plot", str(plot), "--batch_size", "2"]) == 0
    numbers = json.loads(capsys.readouterr().out.splitlines()[0])
    assert (numbers["rows"], numbers["pictures"]) == (2, 1)
    assert numbers["turns_of_a_row"] == {"min": 1, "median": 1, "p95": 2, "max": 2}
    low, high = numbers["tokens_of_a_row"]["min"], numbers["tokens_of_a_row"]["max"]
    assert numbers["padding_share"] == round(1 - (low + high) / (2 * high), 4)
    assert Image.open(plot).width > 500


def test_padding_and_quantiles_are_as_by_hand():
    assert padding_share([1, 3, 2, 2], 2) == pytest.approx(1 / 5)
    assert quantiles(range(101)) == {"min": 0, "median": 50, "p95": 95, "max": 100}


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (["validate", "absent.jsonl"], "is not a file"),
        (["preview", "demo/recipes/0_vision.yaml", "--model", MODEL], "names no data"),
        (["validate", "absent.jsonl", "--model", "absent/"], "absent/"),
    ],
)
def test_wrong_use_is_one_line(argv, named, capsys):
    assert main(["data", *argv]) == 2
    error = capsys.readouterr().err
    assert named in error and error.count("\n") == 1
