"""LLaMA as Meta published it: `params.json` and `consolidated.*.pth`, one per GPU it was meant for.

Here are the names, the order of the rotary pairs, and how the files of several GPUs are put together again. Pure functions but for
reading `params.json`; `training/merge/language_models.py` writes the folder that transformers opens.

Legend of shapes: D the model's width, H heads, K heads of keys and values, F width of the feed-forward layer.

Source: facebookresearch/llama, llama/model.py (names, rotary pairs side by side, which dimension is split over GPUs).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..json_files import read_json

if TYPE_CHECKING:
    import torch

_OUTER = {
    "tok_embeddings.weight": "model.embed_tokens.weight",
    "norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_IN_LAYER = {
    "attention.wq.weight": "self_attn.q_proj.weight",
    "attention.wk.weight": "self_attn.k_proj.weight",
    "attention.wv.weight": "self_attn.v_proj.weight",
    "attention.wo.weight": "self_attn.o_proj.weight",
    "feed_forward.w1.weight": "mlp.gate_proj.weight",
    "feed_forward.w2.weight": "mlp.down_proj.weight",
    "feed_forward.w3.weight": "mlp.up_proj.weight",
    "attention_norm.weight": "input_layernorm.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
}
_SPLIT_OVER_INPUTS = ("tok_embeddings.weight", "attention.wo.weight", "feed_forward.w2.weight")
_WHOLE = ("norm.weight", "rope.freqs")


def is_meta_llama(folder: Path) -> bool:
    """Whether a folder is one of Meta's, by its file names."""
    return (folder / "params.json").is_file() and any(folder.glob("consolidated.*.pth"))


def name_of(published: str) -> str | None:
    """A tensor's name in transformers' LLaMA; None for the rotary frequencies, which are computed.

    Raises:
        ValueError: no LLaMA has it.
    """
    if published == "rope.freqs":
        return None
    if published in _OUTER:
        return _OUTER[published]
    kind, _, rest = published.partition(".")
    index, _, inner = rest.partition(".")
    if kind != "layers" or not index.isdigit() or inner not in _IN_LAYER:
        raise ValueError(f"{published!r} is no tensor of Meta's LLaMA.")
    return f"model.layers.{index}.{_IN_LAYER[inner]}"


def tensor_of(published: str, shards: "Sequence[torch.Tensor]", params: Mapping[str, Any]) -> "torch.Tensor":
    """One tensor of transformers' LLaMA.

    Args:
        published: its name in Meta's files.
        shards: its part in every file, in the order of their numbers.
        params: of `params.json`.

    Returns:
        The whole; of queries and keys, whose rotary pairs lie side by side there, with the halves of each head one behind the other.
    """
    import torch

    if published.endswith(_WHOLE):
        return shards[0]
    whole = shards[0] if len(shards) == 1 else torch.cat(list(shards), dim=1 if published.endswith(_SPLIT_OVER_INPUTS) else 0)
    if published.endswith(("attention.wq.weight", "attention.wk.weight")):
        num_heads = params["n_heads"] if "wq" in published else params.get("n_kv_heads") or params["n_heads"]
        whole = whole.unflatten(0, (num_heads, -1, 2)).transpose(1, 2).flatten(0, 2)
    return whole


def read_params(folder: Path) -> dict[str, Any]:
    """`params.json`.

    Raises:
        ValueError: it does not say how large the model is.
    """
    params = read_json(folder / "params.json")
    if missing := [key for key in ("dim", "n_heads", "n_layers", "norm_eps") if key not in params]:
        raise ValueError(f"{str(folder / 'params.json')!r} lacks {missing}. Copy the file again.")
    if params.get("moe") or params.get("use_scaled_rope"):
        raise ValueError(f"{str(folder)!r} is a later model of Meta's than LLaMA 2. Get it in transformers' form from the hub.")
    return params


def config_of(params: Mapping[str, Any], vocab_size: int, feed_forward: int) -> dict[str, Any]:
    """The `config.json` of transformers."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_act": "silu",
        "hidden_size": params["dim"],
        "initializer_range": 0.02,
        "intermediate_size": feed_forward,
        "max_position_embeddings": 2048,
        "num_attention_heads": params["n_heads"],
        "num_hidden_layers": params["n_layers"],
        "num_key_value_heads": params.get("n_kv_heads") or params["n_heads"],
        "rms_norm_eps": params["norm_eps"],
        "tie_word_embeddings": False,
        "vocab_size": vocab_size,
    }
