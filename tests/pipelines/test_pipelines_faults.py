"""Folders that would answer wrongly without a word: each is opened rightly, or refused in a sentence."""

import builtins
import json
import shutil

import pytest
import torch
from conftest import GREEDY
from models import make_model
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from pipelines import load_model
from pipelines.generation import ChatModel, message
from pipelines.registry import pipeline_of
from pipelines.visualcla import save_model


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    model = make_model()
    folder = tmp_path_factory.mktemp("model") / "model"
    save_model(model, model.processor, folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "model")


def change_weights(file, change):
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, {"format": "pt"})


def opened(folder) -> ChatModel:
    model, processor = load_model(folder, dtype=torch.float32)
    return ChatModel(model, processor, pipeline_of(model, processor))


@pytest.mark.parametrize("place", ["", "vision"])
def test_missing_tensor_is_not_made_up(place, folder):
    file = folder / place / "model.safetensors"
    name = next(name for name in load_file(file) if "q_proj.weight" in name)
    change_weights(file, lambda tensors: tensors.pop(name))
    with pytest.raises(ValueError) as error:
        load_model(folder)
    assert name.partition("layers")[2] in str(error.value)


def test_adapter_that_lies_beside_merged_weights_is_not_applied_again(saved, folder):
    base = AutoModelForCausalLM.from_pretrained(saved)
    get_peft_model(base, LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM", init_lora_weights=False)).save_pretrained(
        folder
    )
    assert (folder / "adapter_model.safetensors").is_file()
    found, expected = load_model(folder)[0].state_dict(), load_model(saved)[0].state_dict()
    assert found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)


@pytest.mark.parametrize("sampled", [True, False])
def test_scores_that_are_not_finite_are_told(sampled, folder):
    name = "model.layers.0.self_attn.q_proj.weight"
    change_weights(folder / "model.safetensors", lambda tensors: tensors[name].fill_(float("inf")))
    config = type(GREEDY)(do_sample=sampled, max_new_tokens=2)
    with pytest.raises(ValueError, match="scores are not finite"):
        opened(folder).answer([message("user", "what is a")], [], config)


def test_code_of_a_folder_is_neither_run_nor_offered(folder, tmp_path, monkeypatch):
    ran, asked = tmp_path / "ran", []
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings |= {"auto_map": {"AutoTokenizer": ["evil.Tok", "evil.Tok"]}, "tokenizer_class": "Tok"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "evil.py").write_text(f"open({str(ran)!r}, 'w')\nfrom transformers import PreTrainedTokenizerFast as Tok\n")
    monkeypatch.setattr(builtins, "input", lambda *words: asked.append(words) or "y")
    opened(folder)
    assert not ran.exists() and not asked
