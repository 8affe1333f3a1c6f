"""What transformers says about a configuration, without any weights: names, shapes, which matrices are tied."""

from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from pipelines.visualcla import VisualCLAConfig, VisualCLAVisionModel

from .parts import Part

EYES_FIELDS = ("vision_config", "visual_resampler_config", "use_visual_resampler")


def language_model_structure(text: Part) -> tuple[str, str, bool, set[str]]:
    """Names of the input embedding and of the head, whether they are tied, and the modules that store (in, out)."""
    model_type = text.config.get("model_type")
    if model_type not in CONFIG_MAPPING:
        raise ValueError(
            f"{str(text.folder)!r} has model_type {model_type!r}, which this version of transformers does not know. Give a "
            "causal language model of transformers."
        )
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[model_type].from_dict(text.config))
    names = {id(module): f"text_model.{name}" for name, module in model.named_modules()}
    conv1d = {names[id(module)] for module in model.modules() if isinstance(module, Conv1D)}
    embedding = names[id(model.get_input_embeddings())] + ".weight"
    head = names[id(model.get_output_embeddings())] + ".weight"
    is_tied = bool(model.config.tie_word_embeddings)
    if missing := [name for name in ((embedding,) if is_tied else (embedding, head)) if name not in text.tensors]:
        raise ValueError(f"{str(text.folder)!r} lacks {missing}: its weights do not fit its config.json.")
    return embedding, head, is_tied, conv1d


def eyes_fields(config: dict[str, Any]) -> dict[str, Any]:
    """As far as a VisualCLA configuration is about the eyes."""
    fields = {key: config[key] for key in EYES_FIELDS if key in config}
    return fields | {key: without_paths(value) for key, value in fields.items() if isinstance(value, dict)}


def without_paths(config: dict[str, Any]) -> dict[str, Any]:
    """Without the traces of where old versions of transformers loaded it from."""
    return {key: value for key, value in config.items() if key not in ("_name_or_path", "_commit_hash")}


def eyes_shapes(eyes_config: dict[str, Any], text_config: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Every tensor of the eyes, on the meta device."""
    with torch.device("meta"):
        return VisualCLAVisionModel(VisualCLAConfig.from_dict({**eyes_config, "text_config": text_config})).state_dict()
