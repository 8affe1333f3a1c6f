"""Training on shards: a run that goes on from a checkpoint has the losses of the run that was never broken off."""

import io
import json
import tarfile
from pathlib import Path

from PIL import Image

from training.__main__ import main

TINY = "tests/golden/visualcla/merged/visualcla-tiny-merged"


def write_shards(folder: Path) -> None:
    for shard in range(2):
        with tarfile.open(folder / f"{shard}.tar", "w") as archive:
            for number in range(10):
                file = io.BytesIO()
                Image.new("RGB", (8, 8), (25 * number, 100 * shard, 0)).save(file, "PNG")
                for name, data in (("png", file.getvalue()), ("txt", f"This is picture {shard}{number}.".encode())):
                    info = tarfile.TarInfo(f"{shard}{number}.{name}")
                    info.size = len(data)
                    archive.addfile(info, io.BytesIO(data))


def losses(folder: Path) -> dict[int, float]:
    points = map(json.loads, (folder / "log.jsonl").read_text(encoding="utf-8").splitlines())
    return {point["step"]: point["loss"] for point in points if "loss" in point}


def test_resume_of_a_stream_gives_the_losses_of_the_whole_run(tmp_path):
    write_shards(tmp_path)
    flags = [
        "--model",
        TINY,
        "--source",
        str(tmp_path / "*.tar"),
        "--max_steps",
        "6",
        "--save_strategy",
        "steps",
        "--save_steps",
        "3",
    ]
    flags += [
        "--per_device_train_batch_size",
        "2",
        "--logging_steps",
        "1",
        "--learning_rate",
        "1e-2",
        "--lr_scheduler_type",
        "constant",
    ]
    flags += ["--use_cpu", "true", "--disable_tqdm", "true", "--dataloader_pin_memory", "false"]
    whole, again = tmp_path / "whole", tmp_path / "again"
    assert main(["train", *flags, "--output_dir", str(whole)]) == 0
    expected = losses(whole)
    assert sorted(expected) == [1, 2, 3, 4, 5, 6]
    checkpoint = str(whole / "checkpoint-3")
    assert main(["train", *flags, "--output_dir", str(again), "--resume_from_checkpoint", checkpoint]) == 0
    assert losses(again) == {step: loss for step, loss in expected.items() if step > 3}
