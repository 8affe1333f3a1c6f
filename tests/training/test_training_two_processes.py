"""Two processes (gloo) give the losses of one at the same global batch, also where one of them has no picture."""

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from demo import ask
from training.__main__ import main
from training.train.trainer import checkpoints

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


def two(arguments: list[str], program: tuple[str, ...] = ("-m", "training"), status: int = 0) -> str:
    """Run under torchrun, and return what was printed."""
    return launched(
        ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", *program, "train"], arguments, status
    )


def launched(launcher: list[str], arguments: list[str], status: int = 0) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, *launcher, *arguments, "--ddp_backend", "gloo"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert (done.returncode == 0) == (status == 0), done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_two_processes_give_the_losses_of_one(model, rows, tmp_path):
    """Launched by accelerate, with the configuration that comes along; on CPUs the run is told so."""
    accelerate = ["-m", "accelerate.commands.launch", "--config_file", "training/launch/gpus.yaml", "--num_processes", "2"]
    launched([*accelerate, "--main_process_port", "0", "-m", "training", "train"], flags(model, rows, tmp_path / "two", 2))
    assert main(["train", *flags(model, rows, tmp_path / "one", 4)]) == 0
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-4)
    assert {path.name for path in (tmp_path / "two/checkpoint-4").iterdir()} >= {"rng_state_0.pth", "rng_state_1.pth"}


@pytest.mark.slow
def test_two_processes_with_a_divided_model_killed_and_resumed_give_the_losses_of_one(model, rows, tmp_path):
    """FSDP: the layers' parameters are sharded, four batches have no picture on one of the processes or on both."""
    lora = [
        "--lora_target_modules",
        "language=q_proj|v_proj",
        "vision=fc1",
        "--train_parts",
        "connector",
        "--result",
        "adapter",
    ]
    (tmp_path / "seen.py").write_text(SEEN, encoding="utf-8")
    sharded = [
        *flags(model, rows, tmp_path / "two", 2),
        *lora,
        "--shard",
        "true",
        "--max_grad_norm",
        "0.5",
        "--optim",
        "adamw_torch",
    ]
    two(sharded, (str(tmp_path / "seen.py"), str(tmp_path / "sharded"), "3"), status=1)
    assert [path.name for path in checkpoints(tmp_path / "two")] == ["checkpoint-2"]
    two(sharded, (str(tmp_path / "seen.py"), str(tmp_path / "sharded"), "0"))
    seen = json.loads((tmp_path / "sharded").read_text(encoding="utf-8"))
    assert seen["layers"] and set(seen["layers"]) == {"DTensor"} and seen["local"] * 2 == seen["whole"]
    assert not set(seen["others"]) & {"DTensor"}
    whole = [*flags(model, rows, tmp_path / "one", 4), *lora, "--max_grad_norm", "0.5", "--optim", "adamw_torch"]
    assert main(["train", *whole]) == 0
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-4)
    merged = [
        ["merge", "--text_model", str(model), "--lora_model", str(tmp_path / name / "adapter")] for name in ("one", "two")
    ]
    for arguments, name in zip(merged, ("one", "two"), strict=True):
        assert main([*arguments, "--output_dir", str(tmp_path / name / "merged")]) == 0
    for file in ("model.safetensors", "vision/model.safetensors"):
        first, second = (load_file(tmp_path / name / "merged" / file) for name in ("one", "two"))
        assert first.keys() == second.keys()
        for key, tensor in first.items():
            torch.testing.assert_close(second[key], tensor, atol=5e-4, rtol=0)  # Adam: the last bits of small gradients show
    before = load_file(model / "model.safetensors")
    after = load_file(tmp_path / "two/merged/model.safetensors")
    assert max((after[key] - tensor).abs().max() for key, tensor in before.items()) > 1e-3
    Image.new("RGB", (20, 20), "red").save(tmp_path / "red.png")
    asked = [
        "--model",
        str(tmp_path / "two/merged"),
        "--image",
        str(tmp_path / "red.png"),
        "--max_new_tokens",
        "3",
        "What is it?",
    ]
    assert ask.main(asked) == 0


@pytest.mark.slow
@pytest.mark.skipif(not find_spec("deepspeed"), reason="DeepSpeed is not installed")
def test_two_processes_of_deepspeed_resumed_give_the_losses_of_one(model, rows, tmp_path):
    """ZeRO stage 1; four batches have no picture on one of the processes or on both."""
    divided = [*flags(model, rows, tmp_path / "two", 2), "--max_grad_norm", "0.5", "--deepspeed", "training/launch/zero1.json"]
    divided[divided.index("--use_cpu") + 1] = "false"
    on_cpus = ("tests/training/deepspeed_on_cpus.py",)
    two(divided, on_cpus)
    first = losses(tmp_path / "two")
    for made in ("checkpoint-4", "model"):
        shutil.rmtree(tmp_path / "two" / made)
    assert "goes on from" in two(divided, on_cpus)
    assert main(["train", *flags(model, rows, tmp_path / "one", 4), "--max_grad_norm", "0.5"]) == 0
    assert losses(tmp_path / "two") == first == pytest.approx(losses(tmp_path / "one"), rel=1e-4)
    for file in ("model.safetensors", "vision/model.safetensors"):
        first, second = (load_file(tmp_path / name / "model" / file) for name in ("one", "two"))
        for key, tensor in first.items():
            torch.testing.assert_close(second[key], tensor, atol=1e-6, rtol=0)


SEEN = """
import json, os, signal, sys
from torch.distributed.tensor import DTensor
from training.__main__ import main
from training.train.sharding import ShardedTrainer
out, dies_at, original = sys.argv[1], int(sys.argv[2]), ShardedTrainer.training_step

def step(self, *args, **kwargs):
    if dies_at and self.state.global_step + 1 == dies_at:
        os.kill(os.getpid(), signal.SIGKILL)
    loss = original(self, *args, **kwargs)
    layers = self.model.get_decoder().layers
    inside = list(layers.parameters())
    ids = {id(each) for each in inside}
    others = [type(each).__name__ for each in self.model.parameters() if id(each) not in ids]
    weight = layers[0].self_attn.o_proj.weight
    seen = {"layers": [type(each).__name__ for each in inside if isinstance(each, DTensor) or each.numel()], "others": others}
    seen |= {"local": weight.to_local().numel(), "whole": weight.numel()}
    if self.is_world_process_zero():
        open(out, "w").write(json.dumps(seen))
    return loss

ShardedTrainer.training_step = step
sys.exit(main(sys.argv[3:]))
"""
