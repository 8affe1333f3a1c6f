"""What training/launch offers is read by the programs that it is for; what a run cannot do of theirs is refused."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.utils import DeepSpeedPlugin, DistributedType
from accelerate.utils.deepspeed import HfDeepSpeedConfig

from training.train import launch
from training.train.config import parse

LAUNCH = Path("training/launch")
ZERO1 = LAUNCH / "zero1.json"
SAID_BY_TRAINER = {
    "train_batch_size",
    "train_micro_batch_size_per_gpu",
    "gradient_accumulation_steps",
    "gradient_clipping",
    "bf16.enabled",
    "fp16.enabled",
}
"""What transformers' `HfTrainerDeepSpeedConfig` fills in where a file says "auto"."""


def test_every_file_is_tried_here():
    assert {path.name for path in LAUNCH.iterdir()} == {"gpus.yaml", "machines.yaml", "fsdp.yaml", "zero1.json"}


@pytest.mark.parametrize(("name", "machines", "processes"), [("gpus", 1, 8), ("machines", 8, 64)])
def test_accelerate_reads_its_files(name, machines, processes):
    """It refuses keys that it does not know."""
    config = load_config_from_file(str(LAUNCH / f"{name}.yaml"))
    assert config.distributed_type is DistributedType.MULTI_GPU
    assert (config.num_machines, config.num_processes) == (machines, processes)
    assert config.mixed_precision == "no", "precision is the recipe's"


def test_fsdp_is_a_configuration_of_ours_and_needs_processes(capsys):
    given = ["--preset", "visualcla_instruct", "--config", str(LAUNCH / "fsdp.yaml"), "--model", "m", "--source", "s"]
    with pytest.raises(SystemExit):
        parse([*given, "--use_cpu", "true"])
    assert "shard divides the model between processes, but there is one" in capsys.readouterr().err
    values = yaml.safe_load((LAUNCH / "fsdp.yaml").read_text(encoding="utf-8"))
    assert parse([*given, "--use_cpu", "true", "--shard", "false"])[0].dtype == values["dtype"] == "bfloat16"


def test_deepspeed_file_says_stage_1_and_leaves_the_rest_to_the_recipe():
    config = HfDeepSpeedConfig(str(ZERO1))
    assert config.get_value("zero_optimization.stage") == 1 and not config.is_offload()
    assert config.get_value("zero_optimization.overlap_comm") is False
    leaves = {f"{key}.enabled" if isinstance(value, dict) else key: value for key, value in config.config.items()}
    del leaves["zero_optimization.enabled"], leaves["zero_allow_untested_optimizer"]
    assert leaves.keys() == SAID_BY_TRAINER
    assert {name for name in leaves if config.get_value(name) == "auto"} == SAID_BY_TRAINER
    assert refusal(ZERO1) is None


def refusal(deepspeed) -> str | None:
    plugin = DeepSpeedPlugin(hf_ds_config=deepspeed if isinstance(deepspeed, dict) else str(deepspeed))
    return launch.contradiction(SimpleNamespace(fsdp=None, deepspeed_plugin=plugin))


@pytest.mark.parametrize(
    ("file", "named"),
    [
        ({"zero_optimization": {"stage": 2}}, "zero1.json"),
        ({"zero_optimization": {"stage": 3}}, "--shard true"),
        ({"zero_optimization": {"stage": 1, "overlap_comm": True}}, "overlap_comm"),
        ({"zero_optimization": {"stage": 1}, "optimizer": {"type": "AdamW"}}, "optimizer"),
    ],
)
def test_what_deepspeed_would_do_behind_the_recipe_is_refused(file, named):
    batch = {"train_micro_batch_size_per_gpu": 1, "gradient_accumulation_steps": 1}
    assert named in refusal({**batch, **file})


def test_fsdp_of_accelerate_is_refused(monkeypatch, capsys):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(SystemExit):
        parse(["--model", "m", "--source", "s", "--use_cpu", "true"])
    error = capsys.readouterr().err
    assert "fsdp is not supported" in error and "--shard true" in error and error.count("\n") == 1
