"""`merge` and `convert` of families that write their layouts themselves: every published form to a folder and back."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pipelines.doctor import examine
from training.__main__ import main

GOLDEN = Path(__file__).parent.parent / "golden"
OWL, MINI = GOLDEN / "mplug_owl", GOLDEN / "minigpt4"


def run(*arguments) -> int:
    return main([str(argument) for argument in arguments])


def test_lora_of_every_form_is_merged_to_the_same_weights(tmp_path):
    for form in ("pytorch_model", "lora_only", "lora_only_peft02_names"):
        adapter = OWL / "lrv_v2" / f"{form}.bin"
        assert run("merge", "--text_model", OWL / "checkpoint", "--lora_model", adapter, "--output_dir", tmp_path / form) == 0
    first, *others = (load_file(tmp_path / form / "model.safetensors") for form in ("pytorch_model", "lora_only"))
    name = "model.layers.1.self_attn.v_proj.weight"
    published = torch.load(OWL / "lrv_v2" / "lora_only.bin", weights_only=True)
    module = "base_model.model.language_model.model.layers.1.self_attn.v_proj"
    a, b = (published[f"{module}.lora_{side}.default.weight"] for side in "AB")
    bases = [torch.load(file, weights_only=True) for file in (OWL / "checkpoint").glob("*.bin")]
    base = next(shard[f"language_model.{name}"] for shard in bases if f"language_model.{name}" in shard)
    torch.testing.assert_close(first[name], base + 4 * b @ a)
    assert all(torch.equal(first[key], other[key]) for other in others for key in first)


def test_published_files_become_a_folder_and_the_published_files_again(tmp_path):
    files = ("--vision_model", MINI / "checkpoint", "--lora_model", MINI / "checkpoint" / "pretrained_minigpt4_7b.pth")
    assert run("merge", "--text_model", MINI / "vicuna_tiny", *files, "--output_dir", tmp_path / "webui") == 0
    assert run("convert", tmp_path / "webui", tmp_path / "whole", "--layout", "transformers", "--max_shard_size", "200KB") == 0
    assert len(list((tmp_path / "whole").glob("*.safetensors"))) > 1
    assert run("convert", tmp_path / "whole", tmp_path / "again", "--layout", "original") == 0
    for name, wrapped in (
        ("blip2_pretrained_flant5xxl.pth", True),
        ("pretrained_minigpt4_7b.pth", True),
        ("eva_vit_g.pth", False),
    ):
        theirs, ours = (torch.load(folder / name, weights_only=True) for folder in (MINI / "checkpoint", tmp_path / "again"))
        theirs, ours = (theirs["model"], ours["model"]) if wrapped else (theirs, ours)
        assert set(ours) <= set(theirs)
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
        unused = ("blocks.3.", "norm.", "t5_proj.", "Qformer.bert.embeddings.position_ids")
        assert all(key.startswith(unused) for key in set(theirs) - set(ours))
    assert (tmp_path / "again" / "tokenizer.model").read_bytes() == (MINI / "vicuna_tiny" / "tokenizer.model").read_bytes()


@pytest.mark.parametrize("layout", ["webui", "transformers", "original"])
def test_doctor_finds_nothing_missing_in_what_was_written(layout, tmp_path):
    assert run("convert", OWL / "checkpoint", tmp_path / "out", "--layout", layout, "--dtype", "float16") == 0
    report = examine(tmp_path / "out")
    assert (report.family, report.layout, report.missing) == ("mplug_owl", layout, [])
    assert {part.dtype for part in report.parts} == {"float16"}


def test_doctor_says_what_published_files_lack():
    report = examine(MINI / "checkpoint")
    assert report.family == "minigpt4"
    assert "lrv_v1_checkpoint_0.pth" in report.missing[0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["convert", OWL / "checkpoint", "OUT", "--layout", "webui", "--hardlink"], "--hardlink"),
        (["convert", OWL / "checkpoint", "OUT", "--layout", "webui", "--text_model", "x"], "leave text_model"),
        (
            [
                "merge",
                "--text_model",
                OWL / "checkpoint",
                "--lora_model",
                MINI / "checkpoint" / "eva_vit_g.pth",
                "--output_dir",
                "OUT",
            ],
            "holds no LoRA",
        ),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(arguments, said, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(*(out if argument == "OUT" else argument for argument in arguments)) == 2
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1
    assert not out.exists()


def test_only_a_model_is_replaced_by_force(tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.jpg").touch()
    assert run("convert", OWL / "checkpoint", tmp_path / "photos", "--layout", "webui", "--force") == 2
    assert (tmp_path / "photos" / "one.jpg").exists()
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "config.json").write_text(json.dumps({}))
    assert run("convert", OWL / "checkpoint", tmp_path / "old", "--layout", "webui") == 2
    assert run("convert", OWL / "checkpoint", tmp_path / "old", "--layout", "webui", "--force") == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old", "photos"]
