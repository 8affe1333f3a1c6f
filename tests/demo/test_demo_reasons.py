"""What goes wrong is told in Chinese on a Chinese page; the table knows the sentences as they are now."""

import json
import re
from pathlib import Path

import pytest

from demo.models import Models
from demo.reasons import REASONS, reason_in
from demo.session import SharedModel
from pipelines.images import ImageError, load_image

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [*(ROOT / "pipelines").rglob("*.py"), ROOT / "demo/server.py"]
PROSE = re.compile(r"[a-z]+ [a-z]+ [a-z]+")


@pytest.fixture(scope="module")
def told() -> str:
    """All that the sources say, with a string that goes over several lines as one."""
    text = "\n".join(file.read_text(encoding="utf-8") for file in SOURCES)
    return re.sub(r'"\s*\n\s*f?"', "", text)


@pytest.mark.parametrize("piece", [piece for piece, _ in REASONS])
def test_pieces_are_still_told(piece, told):
    """Word by word, between what is filled in and what is joined."""
    words = re.findall(r"[A-Za-z][\w ,.'-]*[A-Za-z.]", piece)
    assert words and [each for each in words if each.strip() not in told and f"'{each}'" not in told] == []


def test_every_reason_is_told_in_full():
    for piece, chinese in REASONS:
        sample = piece.replace("…", "X")
        assert not PROSE.search(re.sub("pip install pillow-heif", "", reason_in("zh", sample))), piece
        assert "X" in reason_in("zh", sample) or "{" not in chinese
        assert reason_in("en", sample) == sample
    assert reason_in("zh", "It is new.") == "It is new."


CONFIG = json.dumps({"model_type": "llama", "hidden_size": 8})
FOLDERS = {
    "empty": {},
    "no weights": {"config.json": CONFIG},
    "no JSON": {"config.json": "{"},
    "llama.cpp": {"model.gguf": "GGUF"},
    "no chat model": {"config.json": json.dumps({"model_type": "blip", "vision_config": {}})},
    "half a weight file": {"config.json": CONFIG, "model.safetensors": "half", "tokenizer.json": "{}"},
}


@pytest.mark.parametrize("files", [pytest.param(files, id=name) for name, files in FOLDERS.items()])
def test_folder_is_refused_in_chinese(files, tmp_path):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    models = Models([SharedModel(lambda: None, "one", folder=tmp_path)])
    models.examine(16, "cpu")
    line, is_refused = models.offer(models["one"], "zh")
    assert is_refused and line.startswith("不能选用：")
    assert not PROSE.search(line.replace("it writes captions and does not chat", ""))


@pytest.mark.parametrize("content", [b"", b"no picture at all", b"%PDF-1.7", b"\x89PNG\r\n\x1a\n" + 20 * b"x"])
def test_file_is_refused_in_chinese(content, tmp_path):
    file = tmp_path / "picture.png"
    file.write_bytes(content)
    with pytest.raises(ImageError) as error:
        load_image(file)
    assert not PROSE.search(reason_in("zh", f"picture.png: {error.value.reason}"))
