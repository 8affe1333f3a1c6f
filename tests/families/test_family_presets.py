"""Every preset is read, counts what it trains, and runs two steps on a tiny model of its family."""

import json
from pathlib import Path

import pytest
import yaml
from contract import CASES
from PIL import Image

from training.train import Run
from training.train.config import parse, presets
from training.train.parts import LORA

FAMILY_OF = {"mmgpt": "open_flamingo", "mplug": "mplug_owl", "minigpt4": "minigpt4", "llava": "llava-v1.5"}
FAMILY_OF |= {"lrv_v1": "minigpt4", "lrv_v2": "mplug_owl"}
SMALL = ["--use_cpu", "true", "--disable_tqdm", "true", "--max_steps", "2", "--per_device_train_batch_size", "1"]
SMALL += ["--gradient_accumulation_steps", "1", "--logging_steps", "1", "--lora_r", "2", "--result_dtype", "float32"]
LEARNS = {
    "debug": {"connector"},
    "full": {"vision", "connector", "language"},
    "llava_instruct": {"connector", "language"},
    "llava_lora": {"connector", LORA},
    "llava_pretrain": {"connector"},
    "lrv_v1": {"llama_proj"},
    "lrv_v2": {LORA},
    "minigpt4_align": {"llama_proj"},
    "minigpt4_pretrain": {"llama_proj"},
    "mmgpt_joint": {LORA},
    "mplug_owl_instruct": {"connector", LORA},
    "mplug_owl_instruct_code": {LORA},
    "mplug_owl_pretrain": {"vision", "connector"},
    "qlora": {LORA},
    "visualcla_instruct": {"connector", LORA},
    "visualcla_pretrain": {"connector", LORA},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made: dict[str, Path] = {}

    def of(preset: str) -> Path:
        name = next((family for start, family in FAMILY_OF.items() if preset.startswith(start)), "visualcla")
        if preset == "qlora":
            return Path("demo/model")  # its widths are what bitsandbytes takes on a CPU
        if name not in made:
            case = next(case for case in CASES if case.name == name)
            made[name] = case.write(tmp_path_factory.mktemp(name) / name, "webui")
        return made[name]

    return of


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> str:
    place = tmp_path_factory.mktemp("rows")
    Image.new("RGB", (60, 40), "red").save(place / "red.png")
    question = [{"type": "image"}, {"type": "text", "text": "What color?"}]
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": "It is red."}]
    line = json.dumps({"messages": messages, "images": ["red.png"]})
    (place / "rows.jsonl").write_text(f"{line}\n{line}\n", encoding="utf-8")
    return str(place / "rows.jsonl")


def test_every_preset_is_tried_here():
    assert set(presets()) == set(LEARNS)


@pytest.mark.parametrize("preset", sorted(LEARNS))
def test_preset_counts_what_it_trains_and_runs_two_steps(preset, folder, rows, tmp_path):
    flags = [
        "--preset",
        preset,
        "--model",
        str(folder(preset)),
        "--source",
        rows,
        "--output_dir",
        str(tmp_path / "run"),
        *SMALL,
    ]
    if yaml.safe_load(presets()[preset].read_text(encoding="utf-8")).get("fp16"):  # which a CPU has not
        flags += ["--fp16", "false", "--bf16", "true", "--dtype", "bfloat16"]
    run = Run(*parse(flags))
    assert {group.name for group in run.groups} == LEARNS[preset]
    assert all(group.size for group in run.groups)
    assert "2 steps of 1 rows" in "\n".join(run.plan())
    before = {group.name: {name: value.detach().clone() for name, value in group.parameters.items()} for group in run.groups}
    result = run.train()
    for group in run.groups:
        assert any(not value.equal(before[group.name][name]) for name, value in group.parameters.items()), group.name
    points = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len([point["loss"] for point in points if point.get("loss", 0) > 0]) == 2
    assert (result / "training.yaml").read_text(encoding="utf-8") == (tmp_path / "run/config.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize("preset", sorted(LEARNS))
def test_preset_says_what_it_is_and_leaves_model_and_rows_to_the_user(preset, capsys):
    assert presets()[preset].read_text(encoding="utf-8").startswith("# ")
    with pytest.raises(SystemExit):
        parse(["--preset", preset, "--use_cpu", "true", "--fp16", "false", "--bf16", "true"])
    error = capsys.readouterr().err
    assert "--model" in error and "--source" in error
