"""Adapters on a loaded model: the released format and PEFT's own, read by `pipelines.checkpoints.adapters`.

An adapter holds LoRA matrices for the vision encoder and the language model, and whole tensors for what was trained in full
(resampler, projector, embeddings). Every tensor of it must find its place: an adapter that is half loaded answers, and answers
wrongly.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from ..checkpoints.adapters import Adapter, check_targets, read_adapter
from .layouts import PREFIXES, TEXT, canonical_name, release_name

ADAPTER_NAME = "default"
_ADAPTABLE = (nn.Linear, nn.Embedding, nn.Conv2d, Conv1D)


def apply_adapter(model: PreTrainedModel, folder: Path) -> None:
    """Put an adapter on a model, in place: LoRA layers injected, whole tensors copied.

    An adapter of a language model alone goes onto the language model of a whole one. A vision model takes its share of the
    adapter of a whole model.

    Args:
        model: `VisualCLAForConditionalGeneration`, `VisualCLAVisionModel`, or a causal language model.
        folder: holds `adapter_config.json` and `adapter_model.bin` or `.safetensors`.

    Raises:
        FileNotFoundError: the folder holds no adapter.
        ValueError: the adapter is no LoRA, not whole, or was made for another model; names the first tensors that find no place.
    """
    is_composite = hasattr(model, "text_model")
    adapter = load_adapter(folder, is_composite)
    if not is_composite and adapter.is_whole:
        adapter = _vision_share(adapter)
    name_of: Callable[[str], str] = getattr(model, "stored_name", str)  # all names below are those of files
    _grow(model, adapter, name_of)
    _tie_or_untie(model, adapter, name_of)
    parameters = {name_of(name): parameter for name, parameter in model.named_parameters()}
    modules = {name_of(f"{name}.").removesuffix("."): name for name, _ in model.named_modules() if name}
    _check_places(adapter, parameters, set(modules))
    adaptable = {name for name, here in modules.items() if isinstance(model.get_submodule(here), _ADAPTABLE)}
    if is_composite and not adapter.is_whole:
        adaptable = {name for name in adaptable if name.startswith(TEXT)}
    in_memory = [(lambda module: modules.get(module, module))] if is_composite else []
    check_targets(adapter, adaptable, [lambda module: module.removeprefix(TEXT), str, release_name, *in_memory])
    with torch.no_grad():
        for name, tensor in adapter.whole.items():
            parameters[name].copy_(tensor.read())
    if adapter.lora:
        _inject(model, adapter, modules)
        model.requires_grad_(False)


def load_adapter(folder: Path, is_composite: bool = True) -> Adapter:
    """An adapter's tensors under the names that a whole model's files have, or, with `is_composite` false, a language model's."""
    return read_adapter(folder, canonical_name, PREFIXES, TEXT if is_composite else "")


def _vision_share(adapter: Adapter) -> Adapter:
    lora = {name: lora for name, lora in adapter.lora.items() if not name.startswith(TEXT)}
    whole = {name: tensor for name, tensor in adapter.whole.items() if not name.startswith(TEXT)}
    return Adapter(adapter.folder, adapter.config, lora, whole, True)


def _inject(model: PreTrainedModel, adapter: Adapter, modules: dict[str, str]) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    here = {modules[name]: lora for name, lora in adapter.lora.items()}
    uses = {option: bool(adapter.config.get(option)) for option in ("use_rslora", "use_dora", "fan_in_fan_out")}
    config = LoraConfig(
        r=next(iter(here.values())).rank,
        lora_alpha=next(iter(here.values())).alpha,
        lora_dropout=adapter.config.get("lora_dropout") or 0.0,
        target_modules=list(here),
        rank_pattern={name: lora.rank for name, lora in here.items()},
        alpha_pattern={name: lora.alpha for name, lora in here.items()},
        **uses,
    )
    inject_adapter_in_model(config, model, adapter_name=ADAPTER_NAME)
    with torch.no_grad():
        for name, lora in here.items():
            layer = model.get_submodule(name)
            for part, tensor in lora.parts.items():
                place = getattr(layer, part)[ADAPTER_NAME]
                place = place if isinstance(place, torch.Tensor) else place.weight
                place.copy_(tensor.read().view(place.shape))


def _language_model(model: PreTrainedModel) -> PreTrainedModel | None:
    """What has embeddings and a head; None for a vision model."""
    return (
        model if callable(getattr(model, "get_output_embeddings", None)) and model.get_output_embeddings() is not None else None
    )


def _weight_name(model: PreTrainedModel, module: nn.Module, name_of: Callable[[str], str]) -> str:
    return name_of(f"{next(name for name, found in model.named_modules() if found is module)}.weight")


def _grow(model: PreTrainedModel, adapter: Adapter, name_of: Callable[[str], str]) -> None:
    """An adapter that brings a larger vocabulary."""
    language_model = _language_model(model)
    if language_model is None:
        return
    embeddings = language_model.get_input_embeddings()
    whole = adapter.whole.get(_weight_name(model, embeddings, name_of))
    if whole is not None and whole.shape[0] > embeddings.weight.shape[0]:
        language_model.resize_token_embeddings(whole.shape[0], mean_resizing=False)


def _tie_or_untie(model: PreTrainedModel, adapter: Adapter, name_of: Callable[[str], str]) -> None:
    """An adapter that changes one of two tied matrices was trained with the other as it was (PEFT, issue 2777)."""
    language_model = _language_model(model)
    if language_model is None:
        return
    embeddings, head = language_model.get_input_embeddings(), language_model.get_output_embeddings()
    if head.weight is not embeddings.weight:
        return
    names = [_weight_name(model, module, name_of) for module in (embeddings, head)]
    modules = [name.removesuffix(".weight") for name in names]
    if not any(name in adapter.whole for name in names) and not any(module in adapter.lora for module in modules):
        return
    if adapter.ties and not any(module in adapter.lora for module in modules):
        adapter.whole.pop(names[1], None)
        return
    head.weight = nn.Parameter(embeddings.weight.detach().clone())
    model.config.get_text_config().tie_word_embeddings = False


def _check_places(adapter: Adapter, parameters: dict[str, torch.Tensor], modules: set[str]) -> None:
    unknown = [name for name in adapter.whole if name not in parameters]
    unknown += [name for name in adapter.lora if name not in modules or f"{name}.weight" not in parameters]
    if unknown:
        raise ValueError(
            f"{len(unknown)} of {len(adapter.whole) + len(adapter.lora)} tensors and modules of the adapter {str(adapter.folder)!r} have no "
            f"place in this model, the first: {unknown[:3]}. Was it made for another base model?"
        )
    wrong = [
        f"{name} is {tensor.shape}, the model's {tuple(parameters[name].shape)}"
        for name, tensor in adapter.whole.items()
        if tensor.shape != tuple(parameters[name].shape)
    ]
    for name, lora in adapter.lora.items():
        is_embedding = "lora_embedding_A" in lora.parts
        a, b = (lora.parts[f"lora_{'embedding_' * is_embedding}{side}"].shape for side in "AB")
        fits, weight = (a[1], b[0]), tuple(parameters[f"{name}.weight"].shape)
        if parameters[f"{name}.weight"].is_floating_point() and fits not in (weight[:2], weight[1::-1]):
            wrong.append(f"{name}'s LoRA is for a weight of {fits[::-1]}, the model's is {weight}")
    if wrong:
        raise ValueError(
            f"{len(wrong)} tensors of the adapter {str(adapter.folder)!r} have another shape than the model: {wrong[0]}. Was it made for "
            "another base model?"
        )
