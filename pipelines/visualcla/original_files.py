"""Layout `original` beside the weights: what the original VisualCLA code, on transformers 4.30, wants written out or has no place for."""

from typing import Any

import torch
from transformers import CONFIG_MAPPING

from ..checkpoints.merging import WholeModel
from .layouts import TEXT

_TEXT_FIELDS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "hidden_act",
    "max_position_embeddings",
    "initializer_range",
    "rms_norm_eps",
    "use_cache",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
)
_VISION_FIELDS = (
    "hidden_size",
    "intermediate_size",
    "projection_dim",
    "num_hidden_layers",
    "num_attention_heads",
    "num_channels",
    "image_size",
    "patch_size",
    "hidden_act",
    "layer_norm_eps",
    "attention_dropout",
    "initializer_range",
    "initializer_factor",
)


def explicit_configs(model: WholeModel) -> tuple[dict[str, Any], dict[str, Any]]:
    """The configurations of language model and vision encoder with their defaults written out, in the fields that 4.30 knows."""
    text = _explicit(model.text_config, _TEXT_FIELDS) | {"architectures": ["LlamaForCausalLM"], "tie_word_embeddings": False}
    return text, _explicit(model.vision["vision_config"], _VISION_FIELDS) | {"architectures": ["CLIPVisionModel"]}


def _explicit(values: dict[str, Any], fields: tuple[str, ...]) -> dict[str, Any]:
    config = CONFIG_MAPPING[values["model_type"]].from_dict(values)
    return {"model_type": values["model_type"]} | {name: getattr(config, name) for name in fields if hasattr(config, name)}


def check_original(model: WholeModel) -> None:
    """Raises ValueError where the original code, which knows LLaMA 1 and CLIP's vision encoder, has no place for a model."""
    text, vision = model.text_config, model.vision["vision_config"]
    heads = text.get("num_attention_heads")
    rope = text.get("rope_parameters") or {"rope_theta": text.get("rope_theta", 10000.0)}
    for is_wrong, what in (
        (text.get("model_type") != "llama", f"language model {text.get('model_type')!r}"),
        (vision.get("model_type") != "clip_vision_model", f"vision encoder {vision.get('model_type')!r}"),
        (not model.vision.get("use_visual_resampler", True), "a model without resampler"),
        (text.get("num_key_value_heads", heads) != heads, "grouped key and value heads"),
        (text.get("head_dim") not in (None, text.get("hidden_size", 0) // (heads or 1)), "a head_dim of its own"),
        (text.get("attention_bias") or text.get("mlp_bias"), "LLaMA with biases"),
        (text.get("rope_scaling") or rope.get("rope_type", "default") != "default", "scaled rotary embeddings"),
        (float(rope.get("rope_theta", 10000.0)) != 10000.0, f"rope_theta {rope.get('rope_theta')}"),
    ):
        if is_wrong:
            raise ValueError(
                f"Layout 'original' cannot hold {what}: the original VisualCLA code opens LLaMA 1 with CLIP only. Give --layout "
                "webui or transformers."
            )


def text_buffers(model: WholeModel, is_tied: bool) -> dict[str, torch.Tensor | str]:
    """What transformers 4.30 keeps in its files and later ones compute; and a head of its own where it is tied."""
    config = model.text_config
    width = config["hidden_size"] // config["num_attention_heads"]
    inv_freq = 1.0 / (10000.0 ** (torch.arange(0, width, 2).float() / width))
    buffers: dict[str, torch.Tensor | str] = {
        f"{TEXT}model.layers.{layer}.self_attn.rotary_emb.inv_freq": inv_freq for layer in range(config["num_hidden_layers"])
    }
    return buffers | ({f"{TEXT}lm_head.weight": f"{TEXT}model.embed_tokens.weight"} if is_tied else {})


def vision_buffers(num_positions: int) -> dict[str, torch.Tensor]:
    return {"vision_model.embeddings.position_ids": torch.arange(num_positions).unsqueeze(0)}
