"""docs/training.md: every command of the page runs as it stands there, on tiny models under the names it uses."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from models import TEXT, VISION
from PIL import Image
from transformers import CLIPVisionConfig, CLIPVisionModel, Qwen3Config, Qwen3ForCausalLM
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from webui_tree import make_webui

from demo.__main__ import main as demo
from installer.command_line import main as install
from pipelines.tokenization import load_tokenizer
from training.__main__ import main as training

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = ROOT / "docs/training.md"
SMALL = "--use_cpu true --disable_tqdm true --max_steps 2 --per_device_train_batch_size 2 --logging_steps 1 --eval_steps 2"
COMMANDS = {"python -m training": training, "python -m demo": demo, "python install.py": install}


def commands() -> list[str]:
    """The commands of the page, in order, their continued lines joined."""
    blocks = re.findall(r"^```bash\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.replace("\\\n", " ").splitlines() if line]


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A folder in which the names of the page exist."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    tiny = ROOT / "tests/golden/visualcla/merged/visualcla-tiny-merged"
    assert training(["convert", str(tiny), "visualcla-7b", "--layout", "webui"]) == 0
    shutil.copytree(ROOT / "demo/model", "demo/model")
    torch.manual_seed(0)
    tokenizer = load_tokenizer(ROOT / "tests/golden/llava/llm_tiny")
    tokenizer.save_pretrained("qwen")
    Qwen3ForCausalLM(Qwen3Config(**{**TEXT, "pad_token_id": 0}, head_dim=16, vocab_size=len(tokenizer))).save_pretrained("qwen")
    CLIPVisionModel(CLIPVisionConfig(**VISION)).save_pretrained("clip")
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained("clip")
    Path("shop").mkdir()
    table, captions = ["image,question,answer"], []
    for number in range(1, 31):
        Image.new("RGB", (30, 20), (8 * number, 0, 90)).save(f"shop/{number:03}.png")
        table.append(f"{number:03}.png,What is it?,Piece {number}.")
        messages = [{"role": "user", "content": [{"type": "image"}]}, {"role": "assistant", "content": f"Piece {number}."}]
        captions.append(json.dumps({"messages": messages, "images": [f"shop/{number:03}.png"]}))
    Path("shop/table.csv").write_text("\n".join(table), encoding="utf-8")
    Path("captions.jsonl").write_text("\n".join(captions), encoding="utf-8")
    make_webui(tmp_path / "text-generation-webui")
    return tmp_path


@pytest.mark.slow
def test_every_command_of_the_page_runs(desk, capsys):
    found = commands()
    assert len(found) == 11
    for line in found:
        program = next(start for start in COMMANDS if line.startswith(start))
        argv = [
            word.replace("~", str(desk)) if word.startswith("~") else word for word in shlex.split(line.removeprefix(program))
        ]
        if argv[0] == "train":
            argv += shlex.split(SMALL)
        if program == "python install.py":
            argv += ["--dry-run"]
        assert COMMANDS[program](argv) == 0, (line, capsys.readouterr().err)
    assert (desk / "shop-run/answers-2.png").is_file() and (desk / "finished/vision/config.json").is_file()


def test_every_preset_and_every_flag_of_the_page_exist(capsys):
    text = PAGE.read_text(encoding="utf-8")
    names = {path.stem for path in (ROOT / "training/presets").glob("*.yaml")}
    table = text.partition("## Presets and memory")[2].partition("## From")[0]
    shown = {
        name for line in table.splitlines() if line.startswith("| `") for name in re.findall(r"`(\w+)`", line.split("|")[1])
    }
    assert shown == names
    with pytest.raises(SystemExit):
        training(["train", "--help"])
    known = set(re.findall(r"--\w+", capsys.readouterr().out))
    ours = [line.split("|")[2] for line in text.partition("## From the originals")[2].splitlines() if line.startswith("| ")]
    for flag in re.findall(r"--\w+", " ".join(ours)):
        assert flag in known | {"--file", "--images"}, flag
