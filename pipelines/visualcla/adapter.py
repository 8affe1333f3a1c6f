"""Adapters on a VisualCLA model: the released format and PEFT's own.

An adapter holds LoRA matrices for the vision encoder and the language model, and whole tensors for what was trained in
full (resampler, projector, embeddings). Every tensor of it must find its place: an adapter that is half loaded answers, and
answers wrongly.
"""

import dataclasses
import re
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from ..json_files import read_json
from ..weights import load_tensors

ADAPTER_NAME = "default"


def apply_adapter(model: PreTrainedModel, folder: Path) -> None:
    """Put an adapter on a model, in place: LoRA layers injected, whole tensors copied.

    A model that is the eyes alone takes the eyes' share of the adapter.

    Args:
        model: `VisualCLAForConditionalGeneration` or `VisualCLAVisionModel`.
        folder: holds `adapter_config.json` and `adapter_model.bin` or `.safetensors`.

    Raises:
        FileNotFoundError: the folder holds no adapter.
        ValueError: the adapter is no LoRA, or was made for another model; names the first tensors that find no place.
    """
    from peft import inject_adapter_in_model

    lora_config = read_lora_config(folder)
    # `original_module` is PEFT's untrained copy of a module that was saved whole.
    stored = {name: tensor for name, tensor in load_tensors(folder).items() if ".original_module." not in name}
    stored_name = getattr(model, "stored_name", str)  # all names below are those of files
    tensors = {model_key(name): tensor for name, tensor in stored.items()}
    if hasattr(model, "text_model"):
        tensors = {stored_name(name): tensor for name, tensor in tensors.items()}
    if not hasattr(model, "text_model"):
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("text_model.")}
    lora = {name: tensor for name, tensor in tensors.items() if ".lora_" in name}
    whole = {name: tensor for name, tensor in tensors.items() if name not in lora}

    if getattr(lora_config, "ensure_weight_tying", False):
        whole.pop(_tied_head(model), None)
    else:
        _untie(model, tensors)
    parameters = {stored_name(name): parameter for name, parameter in model.named_parameters()}
    _check_places(folder, parameters, whole, "tensors")
    for name, tensor in whole.items():
        with torch.no_grad():
            parameters[name].copy_(tensor)
    if not lora:
        return
    inject_adapter_in_model(for_names_in_memory(lora_config, model), model, adapter_name=ADAPTER_NAME)
    parameters = {stored_name(name): parameter for name, parameter in model.named_parameters()}
    places = {name.replace(".weight", f".{ADAPTER_NAME}.weight"): tensor for name, tensor in lora.items()}
    _check_places(folder, parameters, places, "LoRA tensors")
    empty = [name for name in parameters if f".lora_B.{ADAPTER_NAME}" in name and name not in places]
    if empty:
        raise ValueError(
            f"The adapter {str(folder)!r} has no LoRA tensors for {len(empty)} of its target modules: {empty[:3]}."
        )
    for name, tensor in places.items():
        with torch.no_grad():
            parameters[name].copy_(tensor)
    model.requires_grad_(False)


def read_lora_config(folder: Path) -> Any:
    """The LoRA configuration of an adapter, without the fields that only old versions of peft knew.

    Raises:
        FileNotFoundError: there is no `adapter_config.json`.
        ValueError: it is not LoRA's.
    """
    from peft import LoraConfig

    path = folder / "adapter_config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{str(folder)!r} is not an adapter: missing ['adapter_config.json'].")
    values = read_json(path)
    if values.get("peft_type", "LORA") != "LORA":
        raise ValueError(f"{str(path)!r} says peft_type {values['peft_type']!r}; only 'LORA' can be loaded.")
    known = {field.name for field in dataclasses.fields(LoraConfig)}
    values = {key: value for key, value in values.items() if key in known and key != "modules_to_save"}
    return LoraConfig(**values)


def model_key(adapter_key: str) -> str:
    """A tensor's name in an adapter file to its name in the files of a model.

    Understood are the release's names and those that PEFT writes for today's composite model (`model.text_model.layers.*`).

    >>> model_key("base_model.model.vision_model.vision_model.encoder.layers.0.mlp.fc1.lora_A.weight")
    'vision_model.encoder.layers.0.mlp.fc1.lora_A.weight'
    """
    name = adapter_key.removeprefix("base_model.model.")
    name = re.sub(r"^model\.(?=(vision_model|visual_resampler|image_projection_layer)\.)", "", name)
    name = re.sub(r"^model\.text_model\.", "text_model.model.", name)
    name = name.replace("vision_model.vision_model.", "vision_model.", 1)
    return name.replace(f".{ADAPTER_NAME}.", ".").replace(".modules_to_save.", ".")


def for_names_in_memory(lora_config: Any, model: PreTrainedModel) -> Any:
    """The same configuration with every target module listed: its patterns are about the names in files.

    Raises:
        ValueError: no module of the model is a target.
    """
    from peft.tuners.tuners_utils import check_target_module_exists

    if not hasattr(model, "stored_name") or lora_config.target_modules == "all-linear":
        return lora_config
    stored = {name: model.stored_name(f"{name}.").removesuffix(".") for name, _ in model.named_modules() if name}
    targets = {name for name in stored if check_target_module_exists(lora_config, stored[name])}
    if not targets:
        raise ValueError(
            f"No module of the model is a target: target_modules is {lora_config.target_modules!r}, the modules are called like "
            f"{list(stored.values())[-1]!r}."
        )
    patterns = {
        field: {
            name: value
            for name in targets
            for pattern, value in reversed(getattr(lora_config, field).items())
            if re.match(rf"(.*\.)?({pattern})$", stored[name])
        }
        for field in ("rank_pattern", "alpha_pattern")
    }
    return dataclasses.replace(
        lora_config, target_modules=targets, exclude_modules=None, layers_to_transform=None, layers_pattern=None, **patterns
    )


def _tied_head(model: PreTrainedModel) -> str | None:
    """Name of the language model's head where it is its embedding matrix as well."""
    language_model = getattr(model, "text_model", model)
    if not hasattr(language_model, "lm_head"):
        return None
    head = language_model.get_output_embeddings()
    if head is None or head.weight is not language_model.get_input_embeddings().weight:
        return None
    stored_name = getattr(model, "stored_name", str)
    return next(stored_name(f"{name}.weight") for name, module in model.named_modules() if module is head)


def _untie(model: PreTrainedModel, tensors: dict[str, torch.Tensor]) -> None:
    """An adapter that changes one of two tied matrices was trained with the other as it was (PEFT, issue 2777)."""
    head_name = _tied_head(model)
    if head_name is None:
        return
    language_model = getattr(model, "text_model", model)
    embeddings, head = language_model.get_input_embeddings(), language_model.get_output_embeddings()
    stored_name = getattr(model, "stored_name", str)
    modules = [stored_name(f"{name}.") for name, module in model.named_modules() if module is embeddings or module is head]
    if any(name.startswith(module) for name in tensors for module in modules):
        head.weight = torch.nn.Parameter(embeddings.weight.detach().clone())
        language_model.config.tie_word_embeddings = False


def _check_places(folder: Path, parameters: dict[str, torch.Tensor], tensors: dict[str, torch.Tensor], what: str) -> None:
    unknown = [name for name in tensors if name not in parameters]
    if unknown:
        raise ValueError(
            f"{len(unknown)} of {len(tensors)} {what} of the adapter {str(folder)!r} have no place in this model, the first: "
            f"{unknown[:3]}. Was it made for another base model?"
        )
    wrong = [name for name, tensor in tensors.items() if tensor.shape != parameters[name].shape]
    if wrong:
        name = wrong[0]
        raise ValueError(
            f"{len(wrong)} of {len(tensors)} {what} of the adapter {str(folder)!r} have another shape than the model: {name} is "
            f"{tuple(tensors[name].shape)}, the model's {tuple(parameters[name].shape)}. Was it made for another base model?"
        )
