"""YAML gives the defaults, flags go on top, everything unknown is refused with one line and exit status 2."""

from pathlib import Path

import pytest
import yaml

from training.__main__ import main
from training.train.config import Arguments, differences, parse, resolved

RECIPES = sorted(Path("demo/recipes").glob("*.yaml"))


@pytest.fixture
def config(tmp_path):
    def write(**values) -> str:
        path = tmp_path / "config.yaml"
        values = {"model": "a-model", "source": "rows.jsonl", "use_cpu": True, **values}
        path.write_text(yaml.safe_dump(values), encoding="utf-8")
        return str(path)

    return write


def refusal(capsys, argv: list[str]) -> str:
    with pytest.raises(SystemExit) as stop:
        parse(argv)
    assert stop.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err


def test_flag_goes_over_yaml_and_yaml_over_default(config):
    recipe, arguments = parse(
        ["--config", config(lora_r=4, max_steps=30, learning_rate="2e-3"), "--max_steps", "50", "--train_parts", "language"]
    )
    assert (recipe.lora_r, recipe.lora_alpha) == (4, 16)
    assert (arguments.max_steps, arguments.learning_rate) == (50, 2e-3)
    assert recipe.train_parts == ["language"]


def test_resolved_configuration_gives_the_same_run_again(config, tmp_path):
    flags = ["--output_dir", str(tmp_path / "out"), "--per_device_train_batch_size", "8", "--train_parts", "connector=1e-3"]
    recipe, arguments = parse(["--config", config(max_steps=7, seed=5), *flags])
    again = tmp_path / "again.yaml"
    again.write_text(resolved(recipe, arguments), encoding="utf-8")
    same_recipe, same_arguments = parse(["--config", str(again)])
    assert same_recipe == recipe
    assert resolved(same_recipe, same_arguments) == resolved(recipe, arguments)
    assert (same_arguments.max_steps, same_arguments.seed) == (7, 5)
    stored = yaml.safe_load(again.read_text(encoding="utf-8"))
    assert stored["per_device_train_batch_size"] == 8, "what equals a default of ours, or of transformers, is in it too"
    assert stored["optim"] and stored["adam_beta2"] == arguments.adam_beta2
    assert differences(recipe, arguments, again) == []
    same_arguments.learning_rate *= 2
    assert differences(recipe, same_arguments, again) == ["learning_rate"]


@pytest.mark.parametrize(
    ("values", "flags", "named"),
    [
        ({"learning_rat": 1e-3}, [], "learning_rat"),
        ({}, ["--learning_rat", "1e-3"], "learning_rat"),
        ({}, ["--max_step", "3"], "--max_step"),  # no abbreviations
        ({}, ["--max_steps", "many"], "many"),
        ({"objective": "guess"}, [], "'conversation', 'attributes'"),
        ({"result": "zip"}, [], "'model', 'adapter'"),
        ({"result_dtype": "int8"}, [], "'float32'"),
        ({"fsdp": "full_shard"}, [], "fsdp is not supported"),
        ({"train_parts": {"connector": "fast"}}, [], "connector=1e-3"),
        ({"dtype": "bfloat16"}, [], "--bf16"),
        ({"result": "adapter"}, [], "lora_target_modules"),
        ({"load_in_4bit": True}, [], "--result adapter"),
        ({}, ["--preset", "none"], "Unknown preset"),
    ],
)
def test_mistake_is_refused_by_name(config, capsys, values, flags, named):
    assert named in refusal(capsys, ["--config", config(**values), *flags])


def test_several_gpus_need_torchrun(config, capsys, monkeypatch):
    monkeypatch.setattr(Arguments, "n_gpu", 2)
    assert "torchrun --nproc_per_node 2" in refusal(capsys, ["--config", config()])


def test_missing_model_is_refused(capsys):
    assert "--model" in refusal(capsys, ["--source", "rows.jsonl"])


@pytest.mark.parametrize("content", ["- a\n- b\n", "a: [", None])
def test_broken_configuration_file_is_refused(tmp_path, capsys, content):
    path = tmp_path / "config.yaml"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    assert str(path) in refusal(capsys, ["--config", str(path)])


def test_every_recipe_of_the_demo_is_accepted():
    assert len(RECIPES) >= 4
    for path in RECIPES:
        recipe, arguments = parse(["--config", str(path)])
        assert arguments.max_steps > 0
        assert arguments.output_dir == f"outputs/demo/{path.stem}"
        assert recipe.source.startswith("demo.")


@pytest.mark.parametrize("argv", [[], ["fly"]])
def test_unknown_verb_is_refused_with_the_verbs(capsys, argv):
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert "train" in error
    assert error.count("\n") == 1


def test_yaml_as_people_write_it(tmp_path, capsys):
    (tmp_path / "one.yaml").write_text("model: m\nsource: s\ntrain_parts: language\n")
    assert parse(["--config", str(tmp_path / "one.yaml")])[0].train_parts == ["language"]
    (tmp_path / "rates.yaml").write_text("model: m\nsource: s\ntrain_parts: {connector: 1e-3, language: 2.0e-5, vision: }\n")
    assert parse(["--config", str(tmp_path / "rates.yaml")])[0].train_parts == ["connector=1e-3", "language=2e-05", "vision"]
    (tmp_path / "two.yaml").write_text("model: m\nsource: s\nlearning_rate:\n")
    with pytest.raises(SystemExit):
        parse(["--config", str(tmp_path / "two.yaml")])
    assert "keys without a value: ['learning_rate']" in capsys.readouterr().err
