"""The structure of a family's vision model, without any weights: names and shapes."""

from typing import Any

import torch

from pipelines.checkpoints.merging import Merging

_ADAPTABLE = (torch.nn.Linear, torch.nn.Conv2d, torch.nn.Embedding)


def vision_fields(family: Merging, config: dict[str, Any]) -> dict[str, Any]:
    """As far as a configuration is about the vision model."""
    fields = family.vision_fields(config)
    return fields | {key: without_paths(value) for key, value in fields.items() if isinstance(value, dict)}


def without_paths(config: dict[str, Any]) -> dict[str, Any]:
    """Without the traces of where old versions of transformers loaded it from."""
    return {key: value for key, value in config.items() if key not in ("_name_or_path", "_commit_hash")}


def vision_shapes(family: Merging, vision: dict[str, Any], text_config: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Every tensor of the vision model, on the meta device."""
    return family.vision_model(vision, text_config).state_dict()


def vision_modules(family: Merging, vision: dict[str, Any], text_config: dict[str, Any]) -> set[str]:
    """The modules of the vision model that LoRA may stand on."""
    named = family.vision_model(vision, text_config).named_modules()
    return {name for name, module in named if isinstance(module, _ADAPTABLE)}
