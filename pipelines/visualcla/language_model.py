"""A causal language model taken apart for the composite model: which members it has, how their weights are called. No weights are read here."""

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

RELEASED_ENCODER = r"^vision_model\.vision_model\."
"""The released names have one level more in the vision encoder than today's CLIPVisionModel."""


def memory_names(backbone_name: str, head_name: str) -> dict[str, str]:
    """How stored names begin (patterns) to how they begin in `VisualCLAForConditionalGeneration`; the first that fits counts."""
    return {
        RELEASED_ENCODER: "model.vision_model.",
        r"^vision_model\.": "model.vision_model.",
        r"^visual_resampler\.": "model.visual_resampler.",
        r"^image_projection_layer\.": "model.image_projection_layer.",
        rf"^text_model\.{backbone_name}\.": "model.text_model.",
        rf"^text_model\.{head_name}\.": "lm_head.",
    }


def language_model_parts(language_model: PreTrainedModel) -> tuple[str, str]:
    """The names of a causal language model's two members: what computes hidden states, and its head.

    Raises:
        ValueError: it is not made of these two.
    """
    name = type(language_model).__name__
    if not hasattr(language_model.config, "num_attention_heads"):
        raise ValueError(
            f"{name} cannot be the language model: it has no attention layers, whose keys and values an answer is continued from, "
            "but a state of its own. Give a decoder with attention, such as LLaMA."
        )
    head = language_model.get_output_embeddings()
    members = dict(language_model.named_children())
    names = [name for name, member in members.items() if member is head]
    others = [name for name in members if name not in (language_model.base_model_prefix, *names)]
    if language_model.base_model_prefix not in members or len(names) != 1 or others:
        raise ValueError(
            f"{name} cannot be the language model: it is made of {sorted(members)}, not of a model "
            f"{language_model.base_model_prefix!r} and a head. Give a decoder with a language modelling head, such as LLaMA."
        )
    return language_model.base_model_prefix, names[0]


def empty_language_model(text_config: PreTrainedConfig) -> PreTrainedModel:
    """A causal language model of a configuration, without weights."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(text_config)
