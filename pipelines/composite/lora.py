"""Adapters of composite models in every form they were published in, laid over the parts of a model.

Whole PEFT state dicts or LoRA keys alone, with and without the adapter's name in the keys (`.default.`), with and without
`base_model.model.`, with and without an `adapter_config.json`; of the language model by itself or inside the whole model. What PEFT
can put into an adapter is read by `pipelines.checkpoints.adapters`, and laid over the weights by `pipelines.checkpoints.overlay`.
"""

import copy
import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import nn

from ..checkpoints.adapters import Adapter, read_adapter
from ..checkpoints.offsets import StoredTensor
from ..checkpoints.overlay import Overlay
from ..checkpoints.structure import language_model
from ..tokenization import has_tokenizer
from .parts import Parts

_LANGUAGE_PREFIXES = ("language_model.model.", "model.language_model.", "llama_model.model.", "language_model.", "model.")
_HEADS = ("language_model.lm_head.", "llama_model.lm_head.", "lm_head.")
_ADAPTABLE = (nn.Linear, nn.Embedding, nn.Conv2d)

Tensors = Mapping[str, torch.Tensor]


def language_name(name: str) -> str | None:
    """A tensor's name in a causal language model of its own; None when it belongs to another part."""
    for prefix in _HEADS:
        if name.startswith(prefix):
            return f"lm_head.{name.removeprefix(prefix)}"
    for prefix in _LANGUAGE_PREFIXES:
        if name.startswith(prefix) and name.removeprefix(prefix).startswith(("layers.", "embed_tokens.", "norm.")):
            return f"model.{name.removeprefix(prefix)}"
    return None


def with_adapter(
    parts: Parts,
    path: Path,
    vision_class: type[nn.Module],
    default_alpha: float,
    from_published: Callable[[Tensors], dict[str, torch.Tensor]] = dict,
    vision_prefix: str = "model.vision_model.",
    uses_beside: bool = False,
) -> Parts:
    """A model with an adapter over it; the language model's share is merged when its tensors are asked for.

    Args:
        parts: the model.
        path: `pytorch_model.bin`, `adapter_model.bin`, any other name, or their folder.
        vision_class: of the vision model.
        default_alpha: lora_alpha where no `adapter_config.json` says it.
        from_published: whole tensors of the vision model under published names to those of `parts.vision`.
        vision_prefix: how the vision model's names begin in the whole model in memory, as PEFT sees it.
        uses_beside: see `read_adapter`.

    Raises:
        ValueError: there is no LoRA in it, it is not whole, or belongs to another model.
    """

    def canonical(name: str) -> str:
        return language_name(name) or name.removeprefix(vision_prefix)

    adapter = read_adapter(path, canonical, defaults={"lora_alpha": default_alpha}, uses_beside=uses_beside)
    if not adapter.lora:
        raise ValueError(
            f"{str(path)!r} holds no LoRA: none of its {len(adapter.whole)} tensors is named '*.lora_A.*'. Give the adapter's file."
        )
    own = {name: tensor for name, tensor in adapter.whole.items() if language_name(name) or name in parts.vision}
    published = {name: tensor.map() for name, tensor in adapter.whole.items() if name not in own}
    adapter = dataclasses.replace(adapter, whole=own | from_published(published))
    config, structure = parts.config.text_config, None
    if parts.language is None:
        adapter = _without_language(adapter)
    else:
        structure = language_model(config, parts.language, path)
    overlay = Overlay(parts.vision | (parts.language or {}), structure)
    overlay.changes.update(parts.changes)
    is_whole = any(f"{module}.weight" in parts.vision for module in adapter.lora)
    rows = None if structure is None else overlay.num_rows
    overlay.apply(adapter, _modules(vision_class, parts) if is_whole else (), _namings(vision_prefix))
    tokenizer_folder = parts.tokenizer_folder
    if structure is not None:
        config.vocab_size, config.tie_word_embeddings = overlay.num_rows, overlay.is_tied
        if overlay.num_rows != rows:
            tokenizer_folder = path if path.is_dir() else path.parent
            if not has_tokenizer(tokenizer_folder):
                raise ValueError(
                    f"The adapter {str(path)!r} brings {overlay.num_rows} token embeddings where the model has {rows}, but no tokenizer "
                    "for them. Copy the tokenizer it was trained with into its folder."
                )
    vision = {name: overlay.read(name) for name in parts.vision}
    language = {name: _mapped(tensor) for name, tensor in overlay.tensors.items() if name not in vision}
    return dataclasses.replace(
        parts,
        vision=vision,
        language=None if parts.language is None else language,
        changes={name: change for name, change in overlay.changes.items() if name not in vision},
        tokenizer_folder=tokenizer_folder,
        adapter=repr(str(path)),
    )


def _without_language(adapter: Adapter) -> Adapter:
    lora = {module: lora for module, lora in adapter.lora.items() if not language_name(f"{module}.weight")}
    whole = {name: tensor for name, tensor in adapter.whole.items() if not language_name(name)}
    return dataclasses.replace(adapter, lora=lora, whole=whole)


def _modules(vision_class: type[nn.Module], parts: Parts) -> set[str]:
    """The modules of the vision model that LoRA may stand on."""
    with torch.device("meta"):
        named = vision_class(copy.deepcopy(parts.config)).named_modules()
    return {name for name, module in named if isinstance(module, _ADAPTABLE) and f"{name}.weight" in parts.vision}


def _namings(vision_prefix: str) -> list[Callable[[str], str]]:
    """What a module may be called where an adapter was trained: alone, in the whole model in memory, in the published one."""

    def in_memory(module: str) -> str:
        if not language_name(f"{module}.weight"):
            return vision_prefix + module
        return module if module == "lm_head" else f"model.language_model.{module.removeprefix('model.')}"

    return [in_memory, str, lambda module: f"language_model.{module}", lambda module: f"llama_model.{module}"]


def _mapped(tensor: StoredTensor | torch.Tensor) -> torch.Tensor:
    return tensor.map() if isinstance(tensor, StoredTensor) else tensor
