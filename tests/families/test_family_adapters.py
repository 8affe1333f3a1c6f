"""Adapters of every kind over every family that merges while it loads: the loader, the merged folder and plain PEFT agree."""

import shutil
import warnings

import pytest
import torch
from contract import CASES
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from pipelines import load_model
from training.__main__ import main

IDS = torch.arange(5, 17).unsqueeze(0)
FAMILIES = [case for case in CASES if case.name not in ("visualcla", "llava-v0")]
KINDS = {
    "dora": {"use_dora": True},
    "rslora": {"use_rslora": True, "r": 4},
    "embeddings": {"target_modules": ["q_proj", "embed_tokens", "lm_head"]},
    "patterns": {"rank_pattern": {"layers.1.self_attn.q_proj": 5}, "alpha_pattern": {"v_proj": 7}},
    "whole": {"modules_to_save": ["lm_head"]},
    "bias": {"bias": "all"},
}


@pytest.fixture(scope="module", params=FAMILIES, ids=lambda case: case.name)
def folder(request, tmp_path_factory):
    return request.param.write(tmp_path_factory.mktemp("family") / request.param.name, "webui")


def train_adapter(base, target, **options):
    """A PEFT adapter of the language model at a folder's root, every tensor of it random."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    options = {"r": 2, "lora_alpha": 3, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM", **options}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = get_peft_model(model, LoraConfig(**options))
        torch.manual_seed(1)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.requires_grad:
                    values = torch.randn_like(parameter) * 0.1
                    parameter.copy_(values.abs() + 0.5 if "magnitude" in name else values)
        model.save_pretrained(target)
    return target


@torch.no_grad()
def peft_logits(base, adapter):
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    return PeftModel.from_pretrained(model, adapter).eval()(input_ids=IDS).logits


@torch.no_grad()
def logits(folder, **given):
    model, _ = load_model(folder, dtype=torch.float32, **given)
    return model(input_ids=IDS).logits


@pytest.mark.parametrize("kind", KINDS)
def test_loader_merge_and_peft_agree(kind, folder, tmp_path):
    adapter = train_adapter(folder, tmp_path / "adapter", **KINDS[kind])
    expected = peft_logits(folder, adapter)
    assert (logits(folder) - expected).abs().max() > 1e-3
    torch.testing.assert_close(logits(folder, lora_model=adapter), expected, rtol=1e-4, atol=1e-4)
    merge = ["merge", "--text_model", folder, "--lora_model", adapter, "--output_dir", tmp_path / "out", "--dtype", "float32"]
    assert main([*map(str, merge), *(["--verify"] if kind == "dora" else [])]) == 0
    torch.testing.assert_close(logits(tmp_path / "out"), expected, rtol=1e-4, atol=1e-4)


def test_half_an_adapter_is_refused(folder, tmp_path, capsys):
    from safetensors.torch import load_file, save_file

    adapter = train_adapter(folder, tmp_path / "adapter")
    file = adapter / "adapter_model.safetensors"
    save_file({name: tensor for name, tensor in load_file(file).items() if ".v_proj." not in name}, file)
    merge = ["merge", "--text_model", folder, "--lora_model", adapter, "--output_dir", tmp_path / "out"]
    assert main([*map(str, merge)]) == 2
    assert "half an adapter" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_run_that_was_killed_leaves_nothing_in_the_way(folder, tmp_path, capsys):
    """Its unfinished folder is thrown away, the model it had put aside is put back; two at once are told of each other."""
    import fcntl
    import os

    convert = ["convert", str(folder), str(tmp_path / "out"), "--layout", "transformers"]
    assert main(convert) == 0
    (tmp_path / "out").rename(tmp_path / ".out.old")
    (tmp_path / ".out.partial").mkdir()
    (tmp_path / ".out.partial" / "half.safetensors").touch()
    lock = os.open(tmp_path / ".out.partial", os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    assert main(convert) == 2
    assert "Another process is making" in capsys.readouterr().err
    os.close(lock)
    assert main(convert) == 2
    assert "exists already" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    shutil.rmtree(tmp_path / "out")
    assert main(convert) == 0
    assert not (tmp_path / "out" / "half.safetensors").exists()
