"""docs/data.md: the file to copy is one, and every command on the page runs (of training, one step)."""

import io
import json
import re
import shlex
import tarfile
from pathlib import Path

import pytest
from openai_server import served
from PIL import Image
from workbook import write_workbook

from training.__main__ import main
from training.data import RowFile

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
COMMANDS = [line for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
LLAVA = {
    "image": "1.jpg",
    "conversations": [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A plate."}],
}
REPLY = "Instruction: Why is it green?\nReason: Nothing is green."


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What somebody has who reads the page: 200 pictures, a spreadsheet, a few of the published files."""
    folder = tmp_path_factory.mktemp("page")
    for name in ("pictures", "coco/train2017", "llava", "shards", "vg"):
        (folder / name).mkdir(parents=True)
    lines = [["image", "question", "answer"]]
    for number in range(1, 201):
        Image.new("RGB", (32, 24), (number, 0, 255 - number)).save(folder / "pictures" / f"{number:04d}.jpg")
        lines.append([f"{number:04d}.jpg", "Which one is it?", f"Number {number}."])
    write_workbook(folder / "questions.xlsx", {"Sheet1": lines})
    for name in ("coco/train2017/1.jpg", "vg/23.jpg", "vg/24.jpg"):
        Image.new("RGB", (32, 24), "red").save(folder / name)
    (folder / "llava" / "detail_23k.json").write_text(json.dumps([LLAVA]))
    (folder / "dolly.jsonl").write_text(json.dumps({"instruction": "Name it.", "context": "", "response": "Oslo."}))
    (folder / "data.yaml").write_text(re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[1])
    (folder / "vg_annotation.json").write_text(json.dumps({name: [{"caption": "a wall"}] for name in ("23", "24")}))
    with tarfile.open(folder / "shards" / "00000.tar", "w") as archive:
        for number in range(4):
            for ending, data in (("jpg", (folder / "vg" / "23.jpg").read_bytes()), ("txt", b"a red wall")):
                info = tarfile.TarInfo(f"{number:04d}.{ending}")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    (folder / "demo").symlink_to(ROOT / "demo")
    return folder


def test_file_to_copy_is_rows(folder):
    (folder / "copied.jsonl").write_text(re.search(r"```json\n(.*?)```", PAGE, re.DOTALL)[1], encoding="utf-8")
    assert [len(row["images"]) for row in RowFile(folder / "copied.jsonl")] == [1, 2, 0]
    assert main(["data", "validate", str(folder / "copied.jsonl"), "--model", str(ROOT / "demo" / "model")]) == 0


def test_every_format_is_on_the_page():
    from training.data.formats import FORMATS

    table = PAGE[PAGE.index("| name | of |") : PAGE.index("## Mixtures")]
    named = {name for cell in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", cell)}
    assert named == set(FORMATS)


@pytest.mark.slow
def test_every_command_of_the_page_runs(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    with served(
        lambda request: REPLY if "misleading" in str(request) else "Instruction: a\nAnswer: b\nTask: Visual Entailment"
    ) as server:
        for line in COMMANDS:
            program, argv = shlex.split(line)[:3], shlex.split(line)[3:]
            assert program == ["python", "-m", "training"]
            argv = [server.url if each.startswith("http") else each for each in argv]
            if "--help" in argv:
                with pytest.raises(SystemExit, match="0"):
                    main(argv)
                continue
            if argv[0] == "train":
                argv += ["--max_steps", "1", "--per_device_train_batch_size", "1"]
            assert main(argv) == 0, (line, capsys.readouterr().err)
    assert len(RowFile(folder / "rows.jsonl")) == 200
    assert len(RowFile(folder / "lrv.jsonl")) == 8
    for result in ("preview.html", "stats.png", "outputs/mine/model", "outputs/mixed/model", "outputs/stage1/model"):
        assert (folder / result).exists()
