"""An adapter on an OpenFlamingo checkpoint, merged while its weights are read: Multimodal-GPT's LoRA, or one of PEFT's."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from ..checkpoints.adapters import read_adapter
from ..checkpoints.offsets import StoredTensor
from ..checkpoints.overlay import Overlay
from ..checkpoints.structure import language_model
from ..checkpoints.torch_pickles import read_pickle
from ..tokenization import has_tokenizer
from .checkpoint import LANGUAGE, Checkpoint, language_tensors
from .configuration_open_flamingo import OpenFlamingoConfig
from .layouts import PARTS, from_checkpoint
from .modeling_open_flamingo import OpenFlamingoForConditionalGeneration
from .processing_open_flamingo import IMAGE_TOKEN, load_tokenizer


def add_lora(checkpoint: Checkpoint, path: Path) -> None:
    """Give a checkpoint an adapter: Multimodal-GPT's LoRA, or one of PEFT's over the language model or the whole model.

    Args:
        checkpoint: changed in place.
        path: `mmgpt-lora-v0-release.pt`, what its trainer writes, or an adapter's folder.

    Raises:
        FileNotFoundError, ValueError: the file is not there, is no LoRA, is half a LoRA, or belongs to another model.
    """
    if not path.is_file() and not (path / "adapter_config.json").is_file():
        raise FileNotFoundError(
            f"lora_model {str(path)!r} is neither an adapter's folder nor a file. Give mmgpt-lora-v0-release.pt, or what a trainer wrote."
        )
    settings = lora_settings(read_pickle(path)) if path.is_file() and path.suffix != ".safetensors" else {}
    prefixes = tuple(prefix for found in PARTS.values() for prefix in found)
    adapter = read_adapter(path, lambda name: from_checkpoint(name) or name, prefixes, LANGUAGE, defaults=settings)
    if not adapter.lora:
        raise ValueError(
            f"{str(path)!r} holds no LoRA: its first names are {[*adapter.whole][:3]}. Give mmgpt-lora-v0-release.pt."
        )
    config, tensors = checkpoint.config, checkpoint.tensors
    overlay = Overlay(tensors, language_model(config.text_config, language_tensors(tensors), path), LANGUAGE)
    overlay.changes.update(checkpoint.changes)
    with torch.device("meta"):
        named = OpenFlamingoForConditionalGeneration(copy.deepcopy(config)).named_modules()
    linear = {name for name, module in named if isinstance(module, torch.nn.Linear) and f"{name}.weight" in tensors}
    overlay.apply(adapter, linear if adapter.is_whole else (), [str, lambda module: module.removeprefix(LANGUAGE)])
    if overlay.num_rows != config.text_config.vocab_size:
        checkpoint.tokenizer = _tokenizer_of(path if path.is_dir() else path.parent, config, overlay.num_rows)
        config.text_config.vocab_size = overlay.num_rows
    config.text_config.tie_word_embeddings = overlay.is_tied
    checkpoint.tensors = {
        name: tensor.map() if isinstance(tensor, StoredTensor) else tensor for name, tensor in overlay.tensors.items()
    }
    checkpoint.changes = overlay.changes


def _tokenizer_of(folder: Path, config: OpenFlamingoConfig, num_rows: int) -> PreTrainedTokenizerBase:
    """The tokenizer of an adapter that brings new tokens, behind OpenFlamingo's own.

    Raises:
        ValueError: there is none, it has other tokens in OpenFlamingo's places, or more than the adapter has embeddings.
    """
    brings = (
        f"The adapter in {str(folder)!r} brings {num_rows} token embeddings where the model has {config.text_config.vocab_size}"
    )
    if not has_tokenizer(folder):
        raise ValueError(f"{brings}, but no tokenizer for them. Copy the tokenizer it was trained with into its folder.")
    tokenizer = load_tokenizer(folder)
    if (found := tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)) != config.image_token_id or len(tokenizer) > num_rows:
        raise ValueError(
            f"{brings}, but in its tokenizer of {len(tokenizer)} tokens {IMAGE_TOKEN!r} is {found}, not {config.image_token_id}: it "
            "was trained on a LLaMA without OpenFlamingo's tokens. Train it on a folder that `python -m training convert` wrote."
        )
    return tokenizer


def lora_settings(content: Any) -> dict[str, Any]:
    """`lora_alpha` and `r` of the settings beside the tensors, however they are wrapped; nothing where there are none, as in the
    release, whose scale is 1."""
    if isinstance(content, Mapping):
        if "lora_alpha" in content and "lora_r" in content:
            return {"lora_alpha": content["lora_alpha"], "r": content["lora_r"]}
        candidates = [*content.values(), *getattr(content, "arguments", ()), getattr(content, "state", None)]
    else:
        candidates = content if isinstance(content, (list, tuple)) else ()
    return next((found for found in map(lora_settings, candidates) if found), {})
