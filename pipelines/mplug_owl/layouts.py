"""Names of mPLUG-Owl's tensors: the published ones and this project's, and the way between them. Pure functions of tensors.

Published: `query_tokens`, `vision_model.*` with fused `query_key_value` (per head: query, key, value, as BLOOM has it),
`abstractor.*`, `language_model.*`. Here: `encoder.*` (transformers' CLIP) and `abstractor.*` in the vision model.
"""

from collections.abc import Mapping

import torch

_RENAMED = {
    "vision_model.embeddings.patch_embed.weight": "encoder.embeddings.patch_embedding.weight",
    "vision_model.embeddings.pre_layernorm.weight": "encoder.pre_layrnorm.weight",
    "vision_model.embeddings.pre_layernorm.bias": "encoder.pre_layrnorm.bias",
    "vision_model.post_layernorm.weight": "encoder.post_layernorm.weight",
    "vision_model.post_layernorm.bias": "encoder.post_layernorm.bias",
    "query_tokens": "abstractor.query_tokens",
}
_IN_LAYER = {
    ".self_attn.dense.": ".self_attn.out_proj.",
    ".input_layernorm.": ".layer_norm1.",
    ".post_attention_layernorm.": ".layer_norm2.",
}
_CLASS, _CLASS_PUBLISHED = "encoder.embeddings.class_embedding", "vision_model.embeddings.cls_token"
_POSITION, _POSITION_PUBLISHED = "encoder.embeddings.position_embedding.weight", "vision_model.embeddings.position_embedding"
_LAYERS, _LAYERS_PUBLISHED = "encoder.encoder.layers.", "vision_model.encoder.layers."
_FUSED = ".self_attn.query_key_value."
LANGUAGE = "language_model."


def is_published(names) -> bool:
    """Whether tensors are named as in a published checkpoint."""
    return "query_tokens" in names and any(_FUSED in name for name in names)


def vision_from_published(tensors: Mapping[str, torch.Tensor], num_heads: int) -> dict[str, torch.Tensor]:
    """The vision model's tensors; what is of the language model is left out, unknown names are kept as they are.

    Args:
        tensors: published names.
        num_heads: of the vision encoder.
    """
    found = {}
    for name, tensor in tensors.items():
        if name.startswith(LANGUAGE):
            continue
        if name == _CLASS_PUBLISHED:
            found[_CLASS] = tensor.flatten()
        elif name == _POSITION_PUBLISHED:
            found[_POSITION] = tensor.flatten(0, -2)
        elif name.startswith(_LAYERS_PUBLISHED) and _FUSED in name:
            stem, kind = (_LAYERS + name.removeprefix(_LAYERS_PUBLISHED)).split(_FUSED)
            for side, part in zip("qkv", tensor.unflatten(0, (num_heads, 3, -1)).unbind(1), strict=True):
                found[f"{stem}.self_attn.{side}_proj.{kind}"] = part.flatten(0, 1)
        elif name.startswith(_LAYERS_PUBLISHED):
            found[_rename(name, _LAYERS_PUBLISHED, _LAYERS, _IN_LAYER)] = tensor
        else:
            found[_RENAMED.get(name, name)] = tensor
    return found


def vision_to_published(tensors: Mapping[str, torch.Tensor], num_heads: int) -> dict[str, torch.Tensor]:
    """The inverse of `vision_from_published`."""
    back = {new: old for old, new in _RENAMED.items()}
    in_layer = {new: old for old, new in _IN_LAYER.items()}
    found = {}
    for name, tensor in tensors.items():
        if name == _CLASS:
            found[_CLASS_PUBLISHED] = tensor[None, None]
        elif name == _POSITION:
            found[_POSITION_PUBLISHED] = tensor[None]
        elif name.startswith(_LAYERS) and ".self_attn.q_proj." in name:
            parts = [tensors[name.replace(".q_proj.", f".{side}_proj.")].unflatten(0, (num_heads, -1)) for side in "qkv"]
            fused = _LAYERS_PUBLISHED + name.removeprefix(_LAYERS).replace(".self_attn.q_proj.", _FUSED)
            found[fused] = torch.stack(parts, dim=1).flatten(0, 2)
        elif name.startswith(_LAYERS) and (".self_attn.k_proj." in name or ".self_attn.v_proj." in name):
            continue
        elif name.startswith(_LAYERS):
            found[_rename(name, _LAYERS, _LAYERS_PUBLISHED, in_layer)] = tensor
        else:
            found[back.get(name, name)] = tensor
    return found


def _rename(name: str, old: str, new: str, in_layer: Mapping[str, str]) -> str:
    name = new + name.removeprefix(old)
    for before, after in in_layer.items():
        name = name.replace(before, after)
    return name
