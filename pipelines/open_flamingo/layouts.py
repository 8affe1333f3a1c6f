"""OpenFlamingo's tensors under the names of every file they are found in. Renamings only: nothing is read or written here.

The names of this project (`PARTS`) are those of `modeling_open_flamingo.py`. `checkpoint.pt` holds perceiver and gated layers, each
gated layer twice (as a part of the decoder layer it stands before, and in a list of its own), the language model's token
embeddings with the new rows, and buffers. Multimodal-GPT's files hold LoRA pairs for it. CLIP lies beside, in transformers' names
or in open_clip's.
"""

import re

import torch

PARTS = {
    "vision": ("vision_model.",),
    "connector": ("perceiver.", "gated_cross_attn_layers."),
    "language": ("language_model.",),
}
EMBEDDINGS = "language_model.model.embed_tokens.weight"

_BUFFER = re.compile(r"(rotary_emb\.inv_freq|position_ids)$")
_CHECKPOINT = (
    (re.compile(r"^lang_encoder\.model\.layers\.(\d+)\.gated_cross_attn_layer\."), r"gated_cross_attn_layers.\1."),
    (re.compile(r"^lang_encoder\.gated_cross_attn_layers\."), "gated_cross_attn_layers."),
    (re.compile(r"^lang_encoder\.model\.layers\.(\d+)\.decoder_layer\."), r"language_model.model.layers.\1."),
    (re.compile(r"^lang_encoder\."), "language_model."),
)


def from_checkpoint(name: str) -> str | None:
    """A name in `checkpoint.pt`, or of a module that Multimodal-GPT adapts; None for buffers, which are computed today."""
    name = name.removeprefix("module.").replace("lang_encoder.base_model.model.", "lang_encoder.", 1)
    if _BUFFER.search(name):
        return None
    for pattern, replacement in _CHECKPOINT:
        name, found = pattern.subn(replacement, name)
        if found:
            break
    return name


def to_checkpoint(name: str) -> list[str]:
    """The names under which `checkpoint.pt` holds a tensor; none for what lies in other files."""
    if name.startswith("perceiver."):
        return [name]
    if name == EMBEDDINGS:
        return [name.replace("language_model.", "lang_encoder.", 1)]
    if match := re.match(r"gated_cross_attn_layers\.(\d+)\.(.+)", name):
        layer, rest = match.groups()
        return [f"lang_encoder.model.layers.{layer}.gated_cross_attn_layer.{rest}", f"lang_encoder.{name}"]
    return []


_LORA = re.compile(r"^(?P<module>.+)\.lora_(?P<side>[AB])(?:\.default)?\.weight$")


def from_lora(name: str) -> tuple[str, str] | None:
    """A name in Multimodal-GPT's file to the weight it changes and its side, `A` or `B`; None when it is no LoRA tensor."""
    match = _LORA.match(name)
    return (f"{from_checkpoint(match['module'])}.weight", match["side"]) if match else None


def from_clip(name: str) -> str | None:
    """A name in a CLIP checkpoint of transformers; None for its text part and for buffers."""
    if not name.startswith("vision_model.") or _BUFFER.search(name):
        return None
    return name.replace("vision_model.vision_model.", "vision_model.", 1)


_OPEN_CLIP = (
    ("visual.class_embedding", "embeddings.class_embedding"),
    ("visual.positional_embedding", "embeddings.position_embedding.weight"),
    ("visual.conv1.", "embeddings.patch_embedding."),
    ("visual.ln_pre.", "pre_layrnorm."),
    ("visual.ln_post.", "post_layernorm."),
    ("visual.transformer.resblocks.", "encoder.layers."),
    (".attn.out_proj.", ".self_attn.out_proj."),
    (".mlp.c_fc.", ".mlp.fc1."),
    (".mlp.c_proj.", ".mlp.fc2."),
    (".ln_1.", ".layer_norm1."),
    (".ln_2.", ".layer_norm2."),
)


def from_open_clip(name: str, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    """A tensor of an open_clip checkpoint; nothing for its text part and for its projection, which OpenFlamingo does not use."""
    if not name.startswith("visual.") or name == "visual.proj":
        return {}
    for theirs, ours in _OPEN_CLIP:
        name = name.replace(theirs, ours)
    name = f"vision_model.{name}"
    if match := re.fullmatch(r"(.+)\.attn\.in_proj_(weight|bias)", name):
        block, kind = match.groups()
        return {f"{block}.self_attn.{part}_proj.{kind}": piece for part, piece in zip("qkv", tensor.chunk(3), strict=True)}
    return {name: tensor}
