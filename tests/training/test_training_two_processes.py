"""Two processes (gloo) give the losses of one at the same global batch, also where one of them has no picture."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from training.__main__ import main

TINY = "tests/golden/visualcla/merged/visualcla-tiny-merged"


@pytest.fixture
def rows(tmp_path) -> Path:
    """Eight rows, two of them with a picture."""
    lines = []
    for number in range(8):
        content = [{"type": "text", "text": "What is it?"}]
        if has_picture := number % 4 == 0:
            Image.new("RGB", (20, 20), (30 * number, 0, 100)).save(tmp_path / f"{number}.png")
            content = [{"type": "image"}, *content]
        messages = [{"role": "user", "content": content}, {"role": "assistant", "content": "It is number " + "one " * number}]
        lines.append(json.dumps({"messages": messages, "images": [f"{number}.png"] if has_picture else []}))
    (tmp_path / "rows.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return tmp_path / "rows.jsonl"


@pytest.fixture
def model(tmp_path) -> Path:
    """Without dropout, whose random numbers each process draws for itself."""
    assert main(["convert", TINY, str(tmp_path / "model"), "--layout", "webui"]) == 0
    path = tmp_path / "model/vision/config.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    values["visual_resampler_config"] |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    path.write_text(json.dumps(values), encoding="utf-8")
    return tmp_path / "model"


def flags(model: Path, rows: Path, out: Path, batch: int) -> list[str]:
    # SGD: Adam would blow up what differs in the last bit of the smallest gradients
    given = ["--model", str(model), "--source", str(rows), "--output_dir", str(out), "--max_steps", "4", "--save_steps", "2"]
    given += ["--per_device_train_batch_size", str(batch), "--learning_rate", "1e-3", "--optim", "sgd", "--logging_steps", "1"]
    return [*given, "--train_parts", "image_projection_layer", "language", "--use_cpu", "true", "--disable_tqdm", "true"]


def losses(folder: Path) -> dict[int, float]:
    points = map(json.loads, (folder / "log.jsonl").read_text(encoding="utf-8").splitlines())
    return {point["step"]: point["loss"] for point in points if "loss" in point}


@pytest.mark.slow
def test_two_processes_give_the_losses_of_one(model, rows, tmp_path):
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "training", "train"]
    arguments = [*flags(model, rows, tmp_path / "two", 2), "--ddp_backend", "gloo"]
    done = subprocess.run([*launch, *arguments], capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-2000:]
    assert main(["train", *flags(model, rows, tmp_path / "one", 4)]) == 0
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-4)
    assert {path.name for path in (tmp_path / "two/checkpoint-4").iterdir()} >= {"rng_state_0.pth", "rng_state_1.pth"}
