"""The published names and shapes at 7B and 13B find their places: on the meta device, so that it takes no memory."""

import json

import pytest
import torch
from conftest import GOLDEN as VISUALCLA
from transformers import LlamaConfig, LlamaForCausalLM

from pipelines.composite.tensors import check_placed
from pipelines.minigpt4 import MiniGPT4VisionModel
from pipelines.minigpt4.checkpoint import _config_of
from pipelines.minigpt4.layouts import ENCODER, vision_from_published, vision_to_published
from pipelines.mplug_owl import MplugOwlConfig, MplugOwlVisionModel
from pipelines.mplug_owl import layouts as owl_layouts


def published(family: str, section: str) -> dict[str, torch.Tensor]:
    """Every tensor of a section of `real_scale_keys.json`."""
    keys = json.loads((VISUALCLA.parent / family / "real_scale_keys.json").read_text(encoding="utf-8"))
    entries = next(entries for name, entries in keys.items() if name.startswith(section))
    tensors = {}
    for entry in entries:
        for index in range(entry["count"]):
            name = entry["pattern"].replace("{i}", str(_index(entry, index)))
            tensors[name] = torch.empty(entry["shape"], device="meta")
    return tensors


def _index(entry: dict, index: int) -> int:
    """Patterns count what there is; cross-attention is in every other layer."""
    if entry["count"] < 2:
        return index
    numbers = [int(next(part for part in entry[end].split(".") if part.isdigit())) for end in ("first", "last")]
    return numbers[0] + index * (numbers[1] - numbers[0]) // (entry["count"] - 1)


def test_mplug_owl_7b_finds_its_places():
    tensors = published("mplug_owl", "whole model")
    config = MplugOwlConfig()
    config.text_config = LlamaConfig()
    with torch.device("meta"):
        vision, language = MplugOwlVisionModel(config).state_dict(), LlamaForCausalLM(config.text_config).state_dict()
    given = owl_layouts.vision_from_published(tensors, config.vision_config.num_attention_heads)
    check_placed(given, vision, "mplug-owl-llama-7b")
    own = {name.removeprefix("language_model."): t for name, t in tensors.items() if name.startswith("language_model.")}
    check_placed({name: t for name, t in own.items() if not name.endswith("inv_freq")}, language, "mplug-owl-llama-7b")
    back = owl_layouts.vision_to_published(given, config.vision_config.num_attention_heads)
    assert {n: t.shape for n, t in back.items()} == {
        n: t.shape for n, t in tensors.items() if not n.startswith("language_model.")
    }


@pytest.mark.parametrize("text_width", [4096, 5120])
def test_minigpt4_finds_its_places(text_width):
    tensors = {f"{ENCODER}{name}": tensor for name, tensor in published("minigpt4", "eva_vit_g.pth").items()}
    tensors |= {n: t for n, t in published("minigpt4", "blip2").items() if not n.endswith("position_ids")}
    tensors |= {"llama_proj.weight": torch.empty(text_width, 768), "llama_proj.bias": torch.empty(text_width)}
    # the whole EVA-CLIP-g has one block more, and a norm
    last = {n.replace(".38.", ".39."): t for n, t in tensors.items() if ".blocks.38." in n}
    tensors |= last | {f"{ENCODER}norm.weight": torch.empty(1408), f"{ENCODER}norm.bias": torch.empty(1408)}
    config = _config_of(tensors, True, {})
    vision, qformer = config.vision_config, config.qformer_config
    assert (vision.hidden_size, vision.intermediate_size, vision.num_hidden_layers, vision.num_attention_heads) == (
        1408,
        6144,
        39,
        16,
    )
    assert (vision.patch_size, vision.image_size, config.num_image_embeds) == (14, 224, 32)
    assert (qformer.hidden_size, qformer.num_hidden_layers, qformer.num_attention_heads) == (768, 12, 12)
    assert (qformer.intermediate_size, qformer.encoder_hidden_size) == (3072, 1408)
    with torch.device("meta"):
        expected = MiniGPT4VisionModel(config).state_dict()
    given = vision_from_published(tensors, vision.num_hidden_layers)
    check_placed(given, expected, "minigpt4")


def test_minigpt4_for_llama2_finds_its_places():
    tensors = {f"{ENCODER}{name}": tensor for name, tensor in published("minigpt4", "eva_vit_g.pth").items()}
    tensors |= {"ln_vision.weight": torch.ones(1408), "ln_vision.bias": torch.zeros(1408)}
    tensors |= {"llama_proj.weight": torch.empty(4096, 5632), "llama_proj.bias": torch.empty(4096)}
    config = _config_of(tensors, False, {})
    assert (config.num_image_embeds, config.prompt_style, config.vision_config.num_hidden_layers) == (64, "llama2", 39)
    with torch.device("meta"):
        expected = MiniGPT4VisionModel(config).state_dict()
    check_placed(vision_from_published(tensors, 39), expected, "minigpt4-llama2")


def test_minigpt4s_renaming_there_and_back_changes_nothing():
    torch.manual_seed(0)
    tensors = {
        f"{ENCODER}blocks.0.attn.qkv.weight": torch.randn(24, 8),
        f"{ENCODER}blocks.0.attn.q_bias": torch.randn(8),
        f"{ENCODER}blocks.0.attn.v_bias": torch.randn(8),
        f"{ENCODER}blocks.0.mlp.fc1.bias": torch.randn(8),
        f"{ENCODER}pos_embed": torch.randn(1, 5, 8),
        "ln_vision.weight": torch.randn(8),
        "Qformer.bert.encoder.layer.0.crossattention.self.key.weight": torch.randn(8, 8),
        "Qformer.bert.encoder.layer.0.attention.output.LayerNorm.weight": torch.randn(8),
        "llama_proj.bias": torch.randn(8),
    }
    back = vision_to_published(vision_from_published(tensors, 1))
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[name], tensors[name]) for name in tensors)
