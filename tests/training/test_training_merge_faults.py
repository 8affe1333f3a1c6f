"""Bases and adapters that are not what they say: merged to the right weights, or refused with nothing written."""

import json
import shutil

import pytest
import torch
from conftest import GREEDY
from merging import error_of, run_merge
from models import make_model
from PIL import Image
from safetensors.torch import load_file, save_file
from test_training_merge_properties import assert_merges, make_base, train_adapter
from transformers import AutoModelForCausalLM, GPTNeoXConfig

from pipelines import load_model
from pipelines.base import ImagePart
from pipelines.generation import ChatModel, message
from pipelines.registry import pipeline_of
from pipelines.visualcla import save_model

LAST = "model.layers.1.mlp.up_proj.weight"
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] + '\n' + m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_base(tmp_path_factory.mktemp("base") / "base")


@pytest.fixture(scope="module")
def adapter(base, tmp_path_factory):
    folder = train_adapter(base, tmp_path_factory.mktemp("adapter") / "adapter", target_modules=["q_proj", "v_proj"])
    change_config(folder, "adapter_config.json", base_model_name_or_path="")
    return folder


def change_weights(folder, change, name="model.safetensors"):
    tensors = load_file(folder / name)
    change(tensors)
    save_file(tensors, folder / name, {"format": "pt"})


def change_config(folder, name="config.json", **values):
    file = folder / name
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_head_of_a_base_that_says_it_is_tied_is_kept(tmp_path):
    base = make_base(tmp_path / "base", tie_word_embeddings=True)
    change_weights(base, lambda t: t.update({"lm_head.weight": torch.randn_like(t["model.embed_tokens.weight"])}))
    assert_merges(base, train_adapter(base, tmp_path / "adapter", target_modules=["q_proj"]), tmp_path / "out", "--verify")


def test_names_of_files_that_are_not_those_of_modules_find_their_place(tmp_path):
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    base = make_base(tmp_path / "base", GPTNeoXConfig(**sizes, initializer_range=0.3))
    model = AutoModelForCausalLM.from_pretrained(base)
    (head,) = [name for name, module in model.named_modules() if module is model.get_output_embeddings()]
    options = {"target_modules": ["query_key_value"], "modules_to_save": [head]}
    assert_merges(base, train_adapter(base, tmp_path / "adapter", **options), tmp_path / "out", "--verify")


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: change_weights(folder, lambda tensors: tensors.pop(LAST)),
        lambda folder: change_config(folder, num_hidden_layers=3),
        lambda folder: change_config(folder, intermediate_size=32),
    ],
    ids=["a tensor is missing", "a layer is missing", "another width"],
)
def test_base_that_is_not_whole_is_refused(change, base, adapter, tmp_path, capsys):
    folder = shutil.copytree(base, tmp_path / "base")
    change(folder)
    assert run_merge(tmp_path / "out", text=folder, vision=None, lora=[adapter]) == 2
    assert "is not whole, or its config.json is another model's" in error_of(capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("factor", "said"), [(float("nan"), "values that are not finite"), (1e7, "float16 cannot hold")])
@pytest.mark.parametrize("name", [LAST, "model.layers.0.self_attn.q_proj.weight"], ids=["copied", "merged"])
def test_values_that_cannot_be_computed_with_are_not_written(name, factor, said, base, adapter, tmp_path, capsys):
    folder = shutil.copytree(base, tmp_path / "base")
    change_weights(folder, lambda tensors: tensors[name].mul_(factor))
    assert run_merge(tmp_path / "out", "--dtype", "float16", text=folder, vision=None, lora=[adapter]) == 2
    assert name in (error := error_of(capsys)) and said in error
    assert not (tmp_path / "out").exists()


def test_empty_adapter_is_refused(base, adapter, tmp_path, capsys):
    folder = shutil.copytree(adapter, tmp_path / "adapter")
    change_weights(folder, lambda tensors: tensors.clear(), "adapter_model.safetensors")
    assert run_merge(tmp_path / "out", text=base, vision=None, lora=[folder]) == 2
    assert "is empty" in error_of(capsys)


def test_whole_weights_beside_an_adapter_are_not_taken_for_it(base, adapter, tmp_path):
    folder = shutil.copytree(adapter, tmp_path / "adapter")
    shutil.copy(base / "model.safetensors", folder)
    assert run_merge(tmp_path / "out", text=base, vision=None, lora=[adapter]) == 0
    assert run_merge(tmp_path / "same", text=base, vision=None, lora=[folder]) == 0
    first, second = (load_file(tmp_path / place / "model.safetensors") for place in ("out", "same"))
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_base_with_a_chat_template_of_its_own_is_asked_about_pictures(tmp_path):
    eyes = make_model()
    save_model(eyes, eyes.processor, tmp_path / "eyes")
    eyes.text_model.save_pretrained(tmp_path / "base")
    eyes.processor.tokenizer.save_pretrained(tmp_path / "base")
    (tmp_path / "base/chat_template.jinja").write_text(CHATML)
    assert run_merge(tmp_path / "out", text=tmp_path / "base", vision=tmp_path / "eyes", lora=[]) == 0
    model, processor = load_model(tmp_path / "out")
    chat, picture = ChatModel(model, processor, pipeline_of(model, processor)), ImagePart.of(Image.new("RGB", (32, 32), "red"))
    assert len(chat.prepare([message("user", "what is a", 1)], [picture]).prompt.input_ids[0]) > 5
    assert isinstance(chat.answer([message("user", "what is a", 1)], [picture], GREEDY), str)
