"""What a LoRA becomes: merged into the weights, or an adapter folder in PEFT's own format."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraModel
from safetensors.torch import save_file
from torch import nn

from pipelines.registry import family_of, parts_of

from .config import Recipe
from .parts import ADAPTER_NAME, LORA, Group

RELEASE = "release"
"""The folder beside an adapter in the form that its family's original code opens, and that form's name."""
PEFT_PREFIX = "base_model.model."


def merge_lora(lora: LoraModel | None) -> None:
    """Add the LoRA layers to the weights, in place."""
    if lora is not None:
        lora.merge_and_unload()


def check_adapter(model: nn.Module, groups: Sequence[Group]) -> list[str]:
    """The modules that an adapter holds as a whole.

    Raises:
        ValueError: something learns that PEFT's format cannot hold.
    """
    whole = [module for group in groups if group.name != LORA for module in group.modules]
    with_lora = {name.partition(".lora_")[0] for name, _ in model.named_parameters() if ".lora_" in name}
    for place in whole:
        try:
            module = model.get_submodule(place)
        except AttributeError as error:
            raise ValueError(
                f"{place!r} is a bare parameter, which an adapter cannot hold. Name the modules to train in train_parts instead of "
                "the part it belongs to, or give --result model."
            ) from error
        if any(name.startswith(f"{place}.") for name in with_lora):
            raise ValueError(f"{place!r} is trained in full and has LoRA layers: an adapter holds one of the two. Choose.")
        if module is model.get_decoder() or place == "language_model":
            raise ValueError("The language model is trained in full: an adapter holds LoRA for it. Give --result model.")
    return whole


def check_release(model: nn.Module, family: str, groups: Sequence[Group], folder: Path) -> None:
    """
    Args:
        folder: where the model was opened.

    Raises:
        ValueError: the model is not of this family, its original code opens no adapters or not its tokenizer, or they hold more of
            it than learns.
    """
    own = family_of(model).__name__.rpartition(".")[2]
    merging = getattr(family_of(model), "MERGING", None)
    able = own if merging is not None and RELEASE in merging.adapter_forms else None
    if family != able:
        raise ValueError(f"release_format is {family!r}; for this model, a {own}, is allowed: {able!r}. Leave it out.")
    merging.original_tokenizer_files(folder)
    places = {module for group in groups for module in group.modules}
    if missing := [prefix for prefix in parts_of(model)["connector"] if prefix.removesuffix(".") not in places]:
        raise ValueError(
            f"release_format {family!r} holds the whole connector, but {missing[0].removesuffix('.')!r} does not learn: give "
            "--train_parts connector."
        )


def save_adapter(
    model: nn.Module, processor: Any, recipe: Recipe, lora: LoraModel, groups: Sequence[Group], folder: Path
) -> None:
    """Write an adapter: LoRA layers and whole modules under PEFT's names, with tokenizer, image processor and configuration.

    `PeftModel.from_pretrained`, `python -m training merge` and every loader's `lora_model` open it over the model that was trained.

    Args:
        folder: a new one.
    """
    folder.mkdir(parents=True)
    dtype, whole = getattr(torch, recipe.result_dtype), check_adapter(model, groups)
    tensors = {
        f"{PEFT_PREFIX}{name}".replace(f".{ADAPTER_NAME}.", "."): tensor.detach().to("cpu", dtype).contiguous()
        for name, tensor in model.state_dict().items()
        if ".lora_" in name or name.startswith(tuple(f"{place}." for place in whole))
    }
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    (folder / "adapter_model.safetensors").chmod(0o644)
    values = lora.peft_config[ADAPTER_NAME].to_dict() | {
        "base_model_name_or_path": recipe.model,
        "inference_mode": True,
        "modules_to_save": whole or None,
    }
    values = {key: sorted(value) if isinstance(value, set) else value for key, value in values.items()}
    text = json.dumps(values, indent=2, sort_keys=True, default=str)
    (folder / "adapter_config.json").write_text(f"{text}\n", encoding="utf-8")
    model.config.save_pretrained(folder)
    processor.tokenizer.save_pretrained(folder)
    processor.image_processor.save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(processor.chat_template, encoding="utf-8")
