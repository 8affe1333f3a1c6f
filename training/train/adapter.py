"""LoRA on a model, and what it becomes: merged into the weights, or an adapter in the VisualCLA release's format."""

import json
from pathlib import Path

import torch
from peft import LoraConfig, LoraModel
from peft.tuners.tuners_utils import check_target_module_exists
from safetensors.torch import save_file
from torch import nn

from pipelines.visualcla import VisualCLAProcessor
from pipelines.visualcla.processing_visualcla import plain_template

from .config import Recipe

ADAPTER_NAME = "default"


def add_lora(model: nn.Module, recipe: Recipe) -> LoraModel | None:
    """Put fresh LoRA layers on the modules that the recipe names; None when it names none.

    Raises:
        ValueError: no module of the model fits `lora_target_modules`.
    """
    if recipe.lora_target_modules is None:
        return None
    config = LoraConfig(
        r=recipe.lora_r,
        lora_alpha=recipe.lora_alpha,
        lora_dropout=recipe.lora_dropout,
        target_modules=recipe.lora_target_modules,
    )
    config.target_modules = _targets(model, config)
    return LoraModel(model, config, ADAPTER_NAME)


def _targets(model: nn.Module, config: LoraConfig) -> set[str]:
    """The modules that a recipe's pattern means: it is about the names in files, and in memory they may be called otherwise."""
    names = {name: model.stored_name(f"{name}.").removesuffix(".") for name, _ in model.named_modules() if name}
    targets = {name for name, stored in names.items() if check_target_module_exists(config, stored)}
    if not targets:
        raise ValueError(
            f"No module of the model is a target: lora_target_modules is {config.target_modules!r}, the modules are called like "
            f"{list(names.values())[-1]!r}."
        )
    return targets


def merge_lora(lora: LoraModel | None) -> None:
    """Add the LoRA layers to the weights, in place."""
    if lora is not None:
        lora.merge_and_unload()


def save_adapter(model: nn.Module, processor: VisualCLAProcessor, recipe: Recipe, folder: Path, dtype: torch.dtype) -> None:
    """Write an adapter as VisualCLA was released: LoRA layers and whole tensors under PEFT's names, with the tokenizer, the
    image processor and the configuration of the whole model.

    Resampler and projector are in it as a whole: the language model and the vision encoder that it lies over have none.
    """
    folder.mkdir(parents=True)
    whole = ("visual_resampler", "image_projection_layer")
    tensors = {
        release_key(name): tensor.to(dtype).contiguous()
        for name, tensor in ((model.stored_name(name), tensor) for name, tensor in model.state_dict().items())
        if ".lora_" in name or (name.split(".")[0] in whole and ".base_layer." not in name)
    }
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {
        "base_model_name_or_path": "",
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "lora_alpha": recipe.lora_alpha,
        "lora_dropout": recipe.lora_dropout,
        "modules_to_save": list(whole),
        "peft_type": "LORA",
        "r": recipe.lora_r,
        "target_modules": recipe.lora_target_modules,
        "task_type": "CAUSAL_LM",
    }
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    model.config.save_pretrained(folder)
    processor.tokenizer.save_pretrained(folder)
    processor.image_processor.save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(plain_template(processor.chat_template), encoding="utf-8")


def release_key(name: str) -> str:
    """A parameter's name to the released adapter's.

    >>> release_key("vision_model.encoder.layers.0.mlp.fc1.lora_A.default.weight")
    'base_model.model.vision_model.vision_model.encoder.layers.0.mlp.fc1.lora_A.weight'
    """
    if name.startswith("vision_model."):
        name = f"vision_model.{name}"
    return "base_model.model." + name.replace(f".{ADAPTER_NAME}.", ".")
