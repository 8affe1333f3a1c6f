"""A run that is killed at any moment and started again has the losses of one that was never broken off, to the last bit."""

import io
import json
import os
import signal
import tarfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from PIL import Image

from training.__main__ import main
from training.train.trainer import STAGING, PartsTrainer, checkpoints

TINY = "tests/golden/visualcla/merged/visualcla-tiny-merged"
STEPS = 6


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """The same pictures as a file of rows, a mixture, shards; and an endless generator."""
    root = tmp_path_factory.mktemp("sources")
    rows, archive = [], tarfile.open(root / "0.tar", "w")  # noqa: SIM115
    for number in range(7):
        file = io.BytesIO()
        Image.new("RGB", (8, 8), (30 * number, 100, 0)).save(file, "PNG")
        (root / f"{number}.png").write_bytes(file.getvalue())
        question = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Which?"}]}
        answer = {"role": "assistant", "content": f"This is picture {number}."}
        rows.append(json.dumps({"messages": [question, answer], "images": [f"{number}.png"]}))
        for name, data in (("png", file.getvalue()), ("txt", f"This is picture {number}.".encode())):
            info = tarfile.TarInfo(f"{number}.{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    archive.close()
    (root / "rows.jsonl").write_text("\n".join(rows), encoding="utf-8")
    sets = {"a": {"file": "rows.jsonl", "weight": 2}, "b": {"file": "rows.jsonl", "weight": 1}}
    (root / "mixture.yaml").write_text(yaml.safe_dump({"sets": sets}), encoding="utf-8")
    return {
        "rows": str(root / "rows.jsonl"),
        "mixture": str(root / "mixture.yaml"),
        "shards": str(root / "*.tar"),
        "generator": "demo.world:instruction_rows",
    }


def flags(source: str, out: Path, *more: str) -> list[str]:
    """A run whose dropout draws random numbers at every step."""
    given = ["--model", TINY, "--source", source, "--output_dir", str(out), "--max_steps", str(STEPS), "--save_steps", "2"]
    given += ["--per_device_train_batch_size", "2", "--logging_steps", "1", "--learning_rate", "1e-2", "--use_cpu", "true"]
    given += ["--lora_target_modules", "language=q_proj|v_proj", "--lora_dropout", "0.1", "--disable_tqdm", "true"]
    return ["train", *given, "--dataloader_pin_memory", "false", *more]


def losses(folder: Path) -> dict[int, float]:
    points = map(json.loads, (folder / "log.jsonl").read_text(encoding="utf-8").splitlines())
    return {point["step"]: point["loss"] for point in points if "loss" in point}


def killed(argv: list[str], method: str, call: int) -> None:
    """Run in a child that kills itself (SIGKILL) when a method of the trainer is called for the n-th time."""
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)  # makes anew, alone, the pool that the fork broke; two loading threads would race for that
        original, calls = getattr(PartsTrainer, method), []

        def dies(self, *args, **kwargs):
            calls.append(1)
            if len(calls) == call:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(self, *args, **kwargs)

        setattr(PartsTrainer, method, dies)
        try:
            main(argv)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


@pytest.fixture(scope="module")
def whole(sources, tmp_path_factory):
    """Losses of a run that was never broken off, by its source."""
    found: dict[str, dict[int, float]] = {}

    def of(name: str) -> dict[int, float]:
        if name not in found:
            out = tmp_path_factory.mktemp(name)
            assert main(flags(sources[name], out)) == 0
            found[name] = losses(out)
            assert sorted(found[name]) == list(range(1, STEPS + 1))
        return found[name]

    return of


@pytest.mark.parametrize("name", ["rows", "mixture", "shards", "generator"])
def test_resume_after_a_kill_within_a_step_gives_the_same_losses(name, sources, whole, tmp_path):
    argv = flags(sources[name], tmp_path / "run")
    killed(argv, "training_step", 4)
    assert [path.name for path in checkpoints(tmp_path / "run")] == ["checkpoint-2"]
    assert main(argv) == 0
    assert losses(tmp_path / "run") == whole(name)


def test_resume_of_packed_rows_gives_the_same_losses(sources, tmp_path):
    packed = ["--packing", "true", "--max_length", "128", "--packing_max_pictures", "2", "--per_device_train_batch_size", "1"]
    argv = flags(sources["rows"], tmp_path / "run", *packed)
    killed(argv, "training_step", 4)
    assert main(argv) == 0
    assert main(flags(sources["rows"], tmp_path / "whole", *packed)) == 0
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")
    assert losses(tmp_path / "run")[STEPS] < losses(tmp_path / "run")[1]


def test_resume_after_kills_while_a_checkpoint_is_written(sources, whole, tmp_path):
    """What is half written is never offered; three kills in one run, one of them before anything was saved."""
    argv, run = flags(sources["rows"], tmp_path / "run"), tmp_path / "run"
    killed(argv, "training_step", 1)
    assert not checkpoints(run)
    killed(argv, "_save_rng_state", 2)
    assert [path.name for path in checkpoints(run)] == ["checkpoint-2"]
    assert (run / STAGING / "checkpoint-4").is_dir()
    killed(argv, "_forget_old_checkpoints", 1)
    assert [path.name for path in checkpoints(run)] == ["checkpoint-2", "checkpoint-4"]
    assert main(argv) == 0
    assert losses(run) == whole("rows")
    assert not [path.name for path in run.iterdir() if path.name.startswith(".")]
    assert len(checkpoints(run)) == 2


def test_resume_after_ctrl_c_which_saves_and_says_so(sources, whole, tmp_path, monkeypatch, capsys):
    argv, original, calls = flags(sources["rows"], tmp_path / "run"), PartsTrainer.training_step, []

    def interrupted(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(PartsTrainer, "training_step", interrupted)
    before = signal.getsignal(signal.SIGINT)
    assert main(argv) == 130
    assert "Stopped after step 3 of 6, and saved. The same command goes on" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is before
    assert not (tmp_path / "run/model").exists()
    assert main(argv) == 0
    assert losses(tmp_path / "run") == whole("rows")


def test_saved_configuration_repeats_the_run_by_itself(sources, whole, tmp_path):
    assert main(flags(sources["rows"], tmp_path / "first")) == 0
    again = ["train", "--config", str(tmp_path / "first/config.yaml"), "--output_dir", str(tmp_path / "second")]
    assert main(again) == 0
    assert losses(tmp_path / "second") == losses(tmp_path / "first") == whole("rows")


def test_a_folder_is_one_run(sources, tmp_path, capsys):
    argv, run = flags(sources["rows"], tmp_path / "run"), tmp_path / "run"
    killed(argv, "training_step", 4)
    capsys.readouterr()
    assert main([*argv, "--seed", "7"]) == 2
    assert "differs in seed." in capsys.readouterr().err
    assert main([*argv, "--seed", "7", "--overwrite", "true"]) == 0
    assert sorted(losses(run)) == list(range(1, STEPS + 1))
    assert yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))["seed"] == 7
    assert main([*argv, "--seed", "7"]) == 2
    assert "this run is over" in capsys.readouterr().err


def test_resume_needs_a_checkpoint_of_the_same_parts(sources, tmp_path, capsys):
    assert main(flags(sources["rows"], tmp_path / "first")) == 0
    given = ["--resume_from_checkpoint", str(tmp_path / "first/checkpoint-4"), "--train_parts", "visual_resampler"]
    assert main(flags(sources["rows"], tmp_path / "second", *given)) == 2
    assert "other parts than the ones that learn now" in capsys.readouterr().err


def test_an_old_checkpoint_whose_removal_is_broken_off_is_not_offered(tmp_path, monkeypatch):
    for name in ("checkpoint-2/model", "checkpoint-4/model", STAGING):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.setattr("training.train.trainer.shutil.rmtree", lambda path: (_ for _ in ()).throw(KeyboardInterrupt))
    keeps_one = SimpleNamespace(args=SimpleNamespace(save_total_limit=1))
    with pytest.raises(KeyboardInterrupt):
        PartsTrainer._forget_old_checkpoints(keeps_one, tmp_path)
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-4"]
