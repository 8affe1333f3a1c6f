"""Names of MiniGPT-4's tensors: those of the published files and this project's, and the way between them. Pure functions.

Published, as MiniGPT-4's model names its parts once everything is loaded: `visual_encoder.*` (`eva_vit_g.pth`, there without the
prefix), `ln_vision.*`, `query_tokens`, `Qformer.bert.*` (`blip2_pretrained_flant5xxl.pth`), `llama_proj.*`.
"""

import re
from collections.abc import Mapping

import torch

ENCODER = "visual_encoder."
_RENAMED = {
    "visual_encoder.cls_token": "encoder.embeddings.class_embedding",
    "visual_encoder.pos_embed": "encoder.embeddings.position_embedding",
    "visual_encoder.patch_embed.proj.weight": "encoder.embeddings.patch_embedding.weight",
    "visual_encoder.patch_embed.proj.bias": "encoder.embeddings.patch_embedding.bias",
    "ln_vision.weight": "encoder.post_layernorm.weight",
    "ln_vision.bias": "encoder.post_layernorm.bias",
    "Qformer.bert.embeddings.LayerNorm.weight": "qformer.layernorm.weight",
    "Qformer.bert.embeddings.LayerNorm.bias": "qformer.layernorm.bias",
}
_BLOCK = re.compile(r"^visual_encoder\.blocks\.(\d+)\.(.+)$")
_IN_BLOCK = {
    "norm1.": "layer_norm1.",
    "norm2.": "layer_norm2.",
    "attn.qkv.": "self_attn.qkv.",
    "attn.proj.": "self_attn.projection.",
    "mlp.": "mlp.",
}
_LAYER, _LAYER_PUBLISHED = "qformer.encoder.layer.", "Qformer.bert.encoder.layer."

MAX_BLOCKS = 39
"""Of EVA-CLIP-g's 40."""

UNUSED = re.compile(
    r"^(t5_proj|opt_proj|vision_proj|text_proj|itm_head)\.|^temp$|^Qformer\.cls\."
    r"|^Qformer\.bert\.embeddings\.(word|position)_embeddings\.|^Qformer\.bert\.encoder\.layer\.\d+\.(intermediate|output)\."
    r"|^visual_encoder\.(norm|fc_norm|head|mask_token|rel_pos_bias)\b"
)
"""What BLIP-2's files hold beside the parts that MiniGPT-4 uses: heads of other models and the Q-Former's text half."""


def kind_of(names) -> str | None:
    """What a published file is: "encoder", "qformer", "projection", or None."""
    if "pos_embed" in names and any(name.startswith("blocks.") for name in names):
        return "encoder"
    if "query_tokens" in names and "ln_vision.weight" in names:
        return "qformer"
    return "projection" if "llama_proj.weight" in names else None


def num_blocks(names) -> int:
    """How many blocks of a published encoder are used: all but the last of the whole EVA-CLIP-g, which ends in a norm."""
    stored = 1 + max(int(match[1]) for name in names if (match := re.match(r"^(?:visual_encoder\.)?blocks\.(\d+)\.", name)))
    return min(MAX_BLOCKS, stored - any(name.removeprefix(ENCODER) == "norm.weight" for name in names))


def vision_from_published(tensors: Mapping[str, torch.Tensor], depth: int) -> dict[str, torch.Tensor]:
    """The vision model's tensors; unknown names are kept as they are.

    Args:
        tensors: published names, the encoder's with their prefix.
        depth: blocks of the encoder that are used.
    """
    found = {}
    for name, tensor in tensors.items():
        if UNUSED.search(name):
            continue
        if match := _BLOCK.match(name):
            index, rest = int(match[1]), match[2]
            layer = f"encoder.encoder.layers.{index}."
            if index >= depth or rest == "attn.v_bias":
                continue
            if rest == "attn.q_bias":
                v_bias = tensors[name.replace("q_bias", "v_bias")]
                found[f"{layer}self_attn.qkv.bias"] = torch.cat([tensor, torch.zeros_like(tensor), v_bias])
                continue
            stem = next((old for old in _IN_BLOCK if rest.startswith(old)), None)
            found[name if stem is None else f"{layer}{_IN_BLOCK[stem]}{rest.removeprefix(stem)}"] = tensor
        elif name.startswith(_LAYER_PUBLISHED):
            found[_LAYER + name.removeprefix(_LAYER_PUBLISHED).replace("attention.self.", "attention.attention.")] = tensor
        else:
            found[_RENAMED.get(name, name)] = tensor
    return found


def vision_to_published(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The inverse of `vision_from_published`.

    Raises:
        ValueError: a key bias was trained, for which the original has no place.
    """
    back, in_block = ({new: old for old, new in names.items()} for names in (_RENAMED, _IN_BLOCK))
    found = {}
    for name, tensor in tensors.items():
        match = re.match(r"^encoder\.encoder\.layers\.(\d+)\.(.+)$", name)
        if match and match[2] == "self_attn.qkv.bias":
            q_bias, k_bias, v_bias = tensor.chunk(3)
            if k_bias.any():
                raise ValueError(f"{name}: the key bias is not zero, and the original has none. Write another layout.")
            found[f"visual_encoder.blocks.{match[1]}.attn.q_bias"] = q_bias
            found[f"visual_encoder.blocks.{match[1]}.attn.v_bias"] = v_bias
        elif match:
            stem = next(new for new in in_block if match[2].startswith(new))
            found[f"visual_encoder.blocks.{match[1]}.{in_block[stem]}{match[2].removeprefix(stem)}"] = tensor
        elif name.startswith(_LAYER):
            found[_LAYER_PUBLISHED + name.removeprefix(_LAYER).replace("attention.attention.", "attention.self.")] = tensor
        else:
            found[back.get(name, name)] = tensor
    return found
