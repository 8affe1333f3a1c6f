"""VisualCLA's side of merging by plan: see `pipelines.checkpoints.merging`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from ..checkpoints.adapters import Adapter
from ..checkpoints.layouts import Layout
from ..checkpoints.merging import Merging, Part, WholeModel
from ..checkpoints.stored_tensors import stored_tensors
from ..checkpoints.structure import read_config
from ..tokenization import load_tokenizer, plain_template
from . import adapter_forms
from .adapter import apply_adapter, load_adapter
from .checkpoint import find_layout, load_pretrained
from .configuration_visualcla import AUTO_MAP, AUTO_MODULE, AUTO_SOURCE, VisualCLAConfig
from .layouts import MODEL_TYPE, ORIGINAL, TEXT, TRANSFORMERS, WEBUI, release_name
from .modeling_visualcla import VisualCLAVisionModel
from .original_files import check_original, explicit_configs, text_buffers, vision_buffers
from .original_tokenizer import original_tokenizer_files
from .processing_visualcla import CHAT_TEMPLATE, load_image_processor
from .tokenization_visualcla import IMAGE_TOKEN

VISION_FIELDS = ("vision_config", "visual_resampler_config", "use_visual_resampler")
_ARCHITECTURES = {
    "webui": "VisualCLAVisionModel",
    "transformers": "VisualCLAForConditionalGeneration",
    "original": "VisualCLAModel",
}


class VisualCLAMerging(Merging):
    label = "VisualCLA"
    model_type = MODEL_TYPE
    text = TEXT
    layouts = {layout.name: layout for layout in (WEBUI, TRANSFORMERS, ORIGINAL)}
    namings = (lambda module: module.removeprefix(TEXT), str, release_name)
    adapter_forms = {"release": adapter_forms.release, "split": adapter_forms.split}
    original_tokenizer_files = staticmethod(original_tokenizer_files)
    terms = "VisualCLA's own are meant for research."

    def layout(self, folder: Path) -> Layout:
        return find_layout(folder)

    def read_encoder(self, folder: Path) -> Part:
        config = read_config(folder)
        vision_config = config.get("vision_config") or config
        vision_config = {"model_type": _vision_type(config), **vision_config}
        stored = stored_tensors(folder)
        tensors = {name: tensor for name, tensor in stored.items() if name.startswith("vision_model.")}
        if not tensors and "vision" in vision_config["model_type"]:
            tensors = {f"vision_model.{name}": tensor for name, tensor in stored.items()}
        used = {id(tensor) for tensor in tensors.values()}
        unused = tuple(name for name, tensor in stored.items() if id(tensor) not in used)
        return Part(folder, {"vision_config": vision_config}, tensors, folder, folder, unused)

    def read_adapter(self, folder: Path) -> Adapter:
        return load_adapter(folder)

    def vision_fields(self, config: Mapping[str, Any]) -> dict[str, Any]:
        return {key: config[key] for key in VISION_FIELDS if key in config}

    def vision_model(self, vision: Mapping[str, Any], text_config: Mapping[str, Any]) -> nn.Module:
        with torch.device("meta"):
            return VisualCLAVisionModel(VisualCLAConfig.from_dict({**vision, "text_config": text_config}))

    def additions(
        self, model: WholeModel, layout: Layout, shapes: Mapping[str, tuple[int, ...]]
    ) -> dict[str, torch.Tensor | str]:
        if layout is not ORIGINAL:
            return {}
        check_original(model)
        num_positions = shapes["vision_model.embeddings.position_embedding.weight"][0]
        return text_buffers(model, f"{TEXT}lm_head.weight" not in shapes) | vision_buffers(num_positions)

    def files(self, model: WholeModel, layout: Layout) -> dict[str, bytes]:
        config, preprocessor = _config(model, layout), _preprocessor(model.preprocessor_folder)
        if layout is WEBUI:
            return {
                "vision/config.json": _json(config),
                "vision/preprocessor_config.json": preprocessor,
                "chat_template.jinja": _template(model.tokenizer_folder),
            }
        if layout is TRANSFORMERS:
            return {
                "config.json": _json(config | {"auto_map": AUTO_MAP}),
                "preprocessor_config.json": preprocessor,
                f"{AUTO_MODULE}.py": AUTO_SOURCE.encode(),
                "chat_template.jinja": _template(model.tokenizer_folder),
            }
        dtype = {"torch_dtype": config["torch_dtype"]}
        text_config, vision_config = explicit_configs(model)
        config |= {"text_config": text_config | dtype, "vision_config": vision_config | dtype}
        return {
            "config.json": _json(config),
            "preprocessor_config.json": preprocessor,
            "text_encoder/config.json": _json(config["text_config"]),
            "vision_encoder/config.json": _json(config["vision_config"]),
            **original_tokenizer_files(model.tokenizer_folder),
        }

    def load(self, folder: Path, bases: Mapping[str, Path], dtype: torch.dtype) -> PreTrainedModel:
        return load_pretrained(folder, **bases, dtype=dtype, use_adapter=not bases)

    def apply_adapter(self, model: PreTrainedModel, folder: Path) -> None:
        apply_adapter(model, folder)


def _vision_type(config: dict[str, Any]) -> str:
    model_type = config.get("model_type", "clip")
    return model_type if "vision" in model_type else f"{model_type}_vision_model"


def _config(model: WholeModel, layout: Layout) -> dict[str, Any]:
    config = {
        "architectures": [_ARCHITECTURES[layout.name]],
        "model_type": MODEL_TYPE,
        "image_token_id": load_tokenizer(model.tokenizer_folder).convert_tokens_to_ids(IMAGE_TOKEN),
        **model.vision,
        "text_config": model.text_config,
        "dtype": str(model.dtype).removeprefix("torch."),
    }
    if layout is ORIGINAL:
        resampler = VisualCLAConfig.from_dict(config).visual_resampler_config
        names = [name for name in type(resampler).__annotations__ if hasattr(resampler, name)]
        config["visual_resampler_config"] = {name: getattr(resampler, name) for name in names}
        config |= {"use_visual_resampler": True, "torch_dtype": config.pop("dtype"), "vocab_size": model.vocab_size}
    return config


def _preprocessor(folder: Path) -> bytes:
    for candidate in (folder, folder / "vision"):
        if (candidate / "preprocessor_config.json").is_file():
            return (candidate / "preprocessor_config.json").read_bytes()
    return load_image_processor(folder).to_json_string().encode()


def _template(tokenizer_folder: Path) -> bytes:
    """The model's own template; VisualCLA's where that has no place for pictures, as a language model's has not."""
    file = tokenizer_folder / "chat_template.jinja"
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    return plain_template(text if IMAGE_TOKEN in text else CHAT_TEMPLATE).encode()


def _json(values: dict[str, Any]) -> bytes:
    return (json.dumps(values, indent=2, ensure_ascii=False) + "\n").encode()


MERGING = VisualCLAMerging()
