"""What is seen of a run: held-out loss and answers, curves; and a run that cannot learn stops at once and says where."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from pipelines.registry import load_model, save_model
from training.__main__ import main

TINY = "tests/golden/visualcla/merged/visualcla-tiny-merged"


@pytest.fixture
def rows(tmp_path) -> Path:
    lines = []
    for number in range(24):
        Image.new("RGB", (20, 20), (10 * number, 0, 100)).save(tmp_path / f"{number}.png")
        question = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Which?"}]}
        answer = {"role": "assistant", "content": f"Number {number}."}
        lines.append(json.dumps({"messages": [question, answer], "images": [f"{number}.png"]}))
    (tmp_path / "rows.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return tmp_path / "rows.jsonl"


def train(rows: Path, *more: str, model: str = TINY) -> int:
    given = ["--model", model, "--source", str(rows), "--output_dir", str(rows.parent / "run"), "--max_steps", "4"]
    given += ["--per_device_train_batch_size", "2", "--logging_steps", "1", "--use_cpu", "true", "--disable_tqdm", "true"]
    return main(["train", *given, "--save_strategy", "no", *more])


def test_held_out_pictures_are_judged_and_answered(rows, capsys):
    flags = ["--held_out", "0.25", "--eval_strategy", "steps", "--eval_steps", "2", "--num_answers", "2"]
    assert train(rows, *flags) == 0
    out, run = capsys.readouterr().out, rows.parent / "run"
    assert "connector:" in out and "held out; 4 steps of 2 rows" in out and "GiB" in out
    points = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [point["step"] for point in points if "eval_loss" in point] == [2, 4]
    assert all(point["tokens_per_second"] > 0 and point["memory_gib"] > 0 for point in points if "loss" in point)
    answers = [json.loads(line) for line in (run / "answers.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["step"] for line in answers] == [2, 2, 4, 4]
    assert all(line["question"] == "Which?" and line["wanted"].startswith("Number ") for line in answers)
    assert Image.open(run / "answers-4.png").width > 300 and Image.open(run / "loss.png").width > 300
    card = (run / "model/README.md").read_text(encoding="utf-8")
    assert "eval_loss" in card and "held_out: 0.25" in card and "rows.jsonl" in card


def test_curves_open_in_tensorboard(rows):
    events = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="TensorBoard is not installed"
    )
    assert train(rows, "--report_to", "tensorboard") == 0
    found = events.EventAccumulator(str(next((rows.parent / "run").rglob("events.out*")).parent))
    found.Reload()
    points = [json.loads(line) for line in (rows.parent / "run/log.jsonl").read_text(encoding="utf-8").splitlines()]
    losses = {point["step"]: point["loss"] for point in points if "loss" in point}
    assert {event.step: pytest.approx(event.value, rel=1e-5) for event in found.Scalars("train/loss")} == losses
    assert {"train/learning_rate", "train/tokens_per_second", "train/memory_gib"} <= set(found.Tags()["scalars"])


def test_time_of_the_run_is_said_after_the_first_steps(rows, capsys):
    assert train(rows, "--max_steps", "8") == 0
    out = capsys.readouterr().out
    assert "a step takes" in out and "2 more take about" in out and "GiB in use" in out


def test_release_format_writes_what_the_original_opens(rows, capsys):
    lora = ["--lora_target_modules", "vision=q_proj", "language=q_proj|v_proj", "--result", "adapter", "--release_format"]
    assert train(rows, *lora, "llava") == 2
    assert "release_format is 'llava'; for this model, a visualcla, is allowed: 'visualcla'" in capsys.readouterr().err
    assert train(rows, *lora, "visualcla", "--train_parts", "image_projection_layer") == 2
    assert "does not learn: give --train_parts connector" in capsys.readouterr().err
    assert train(rows, *lora, "visualcla", model="demo/model") == 2
    assert "'demo/model' has no tokenizer.model" in capsys.readouterr().err
    other = shutil.copytree("demo/model", rows.parent / "other")
    shutil.copy(f"{TINY}/tokenizer.model", other)
    assert train(rows, *lora, "visualcla", model=str(other)) == 2
    assert "they belong to different tokenizers" in capsys.readouterr().err and not (rows.parent / "run").exists()
    assert train(rows, *lora, "visualcla") == 0
    run = rows.parent / "run"
    assert main(["convert", str(run / "adapter"), str(rows.parent / "by hand"), "--layout", "release"]) == 0
    for path in (rows.parent / "by hand").iterdir():
        assert (run / "release" / path.name).is_file(), path
    weights = torch.load(run / "release/adapter_model.bin", weights_only=True)
    assert any(".lora_" in name for name in weights) and any("visual_resampler" in name for name in weights)


def test_loss_that_is_not_finite_stops_the_run_and_says_where(rows, capsys):
    assert train(rows, "--learning_rate", "1e30") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "The loss of step" in error and "rows.jsonl, line" in error and "lower the learning rate" in error
    assert not (rows.parent / "run/model").exists()


def test_base_that_is_not_finite_is_told_from_a_high_rate(rows, capsys):
    model, processor = load_model(TINY, dtype=torch.float32)
    model.get_decoder().layers[0].mlp.up_proj.weight.data[0, 0] = float("nan")
    save_model(model, processor, rows.parent / "broken")
    assert train(rows, model=str(rows.parent / "broken")) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "The loss of step 1 is nan" in error and "check the base model" in error


def test_rows_of_which_nothing_is_supervised_stop_the_run(rows, capsys):
    assert train(rows, "--max_length", "4", "--max_steps", "20") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "nothing of its answers fits into 4 tokens" in error
