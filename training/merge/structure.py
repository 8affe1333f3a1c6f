"""The structure of the vision model, without any weights: names and shapes."""

from typing import Any

import torch

from pipelines.visualcla import VisualCLAConfig, VisualCLAVisionModel

EYES_FIELDS = ("vision_config", "visual_resampler_config", "use_visual_resampler")


def eyes_fields(config: dict[str, Any]) -> dict[str, Any]:
    """As far as a VisualCLA configuration is about the eyes."""
    fields = {key: config[key] for key in EYES_FIELDS if key in config}
    return fields | {key: without_paths(value) for key, value in fields.items() if isinstance(value, dict)}


def without_paths(config: dict[str, Any]) -> dict[str, Any]:
    """Without the traces of where old versions of transformers loaded it from."""
    return {key: value for key, value in config.items() if key not in ("_name_or_path", "_commit_hash")}


def eyes_shapes(eyes_config: dict[str, Any], text_config: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Every tensor of the vision model, on the meta device."""
    return _vision_model(eyes_config, text_config).state_dict()


def vision_modules(eyes_config: dict[str, Any], text_config: dict[str, Any]) -> set[str]:
    """The modules of the vision model that LoRA may stand on."""
    named = _vision_model(eyes_config, text_config).named_modules()
    return {name for name, module in named if isinstance(module, torch.nn.Linear | torch.nn.Conv2d | torch.nn.Embedding)}


def _vision_model(eyes_config: dict[str, Any], text_config: dict[str, Any]) -> VisualCLAVisionModel:
    with torch.device("meta"):
        return VisualCLAVisionModel(VisualCLAConfig.from_dict({**eyes_config, "text_config": text_config}))
