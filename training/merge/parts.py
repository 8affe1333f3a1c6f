"""The parts of a model as they lie on disk: a language model, or eyes, under the composite model's names.

    text_model.*     vision_model.*     visual_resampler.*     image_projection_layer.*

A part may come from a folder of its own (LLaMA, CLIP) or from a VisualCLA model in any layout.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.checkpoints.stored_tensors import StoredTensor, model_tensors, stored_tensors
from pipelines.checkpoints.structure import COMPUTED_BUFFERS, read_config
from pipelines.checkpoints.weight_files import model_files
from pipelines.visualcla.checkpoint import detect_layout


@dataclass(frozen=True)
class Part:
    """A part of a model.

    Attributes:
        folder: the folder that was given.
        config: its configuration: the language model's, or for eyes VisualCLA's with at least `vision_config`.
        tensors: composite name to tensor, in the order of the files.
        files_folder: where its tokenizer, generation and preprocessor settings lie.
    """

    folder: Path
    config: dict[str, Any]
    tensors: dict[str, StoredTensor]
    files_folder: Path


def read_language_model(folder: Path) -> Part:
    """The language model of a folder: a model of its own, or the one inside a VisualCLA model.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is quantised, an adapter, or the eyes alone.
    """
    if (folder / "adapter_config.json").is_file() and not model_files(folder):
        raise ValueError(
            f"{str(folder)!r} is an adapter, not a language model: give it as lora_model, and its base as text_model."
        )
    config = read_config(folder)
    if config.get("model_type") == "visualcla":
        layout = detect_layout(folder)
        text_folder = folder / "text_encoder" if layout == "original" else folder
        if layout == "transformers":
            tensors = _starting_with("text_model.", stored_tensors(folder).items())
            config = config["text_config"]
        else:
            config = read_config(text_folder)
            tensors = {f"text_model.{name}": tensor for name, tensor in model_tensors(text_folder).items()}
        if not tensors:
            raise ValueError(f"{str(folder)!r} holds the eyes alone, no language model. Give the folder of the whole model.")
    else:
        tensors = {f"text_model.{name}": tensor for name, tensor in model_tensors(folder).items()}
    _refuse_quantised(folder, config)
    return Part(folder, config, _without_computed(tensors), folder)


def read_eyes(folder: Path) -> Part:
    """The eyes of a folder: a vision encoder (CLIP, SigLIP, alone or with its text tower), or those of a VisualCLA model.

    Raises:
        FileNotFoundError: there are none.
        ValueError: the folder holds no vision encoder.
    """
    if has_whole_eyes(folder / "vision"):
        part = read_eyes(folder / "vision")
        return Part(folder, part.config, part.tensors, folder / "vision")
    config = read_config(folder)
    if config.get("model_type") == "visualcla":
        if (folder / "adapter_config.json").is_file():
            raise ValueError(
                f"{str(folder)!r} is an adapter, not a vision encoder: give it as lora_model, and its base as vision_model."
            )
        items = list(stored_tensors(folder).items())
        if (folder / "vision_encoder").is_dir():
            items += read_eyes(folder / "vision_encoder").tensors.items()
        tensors = {name: tensor for name, tensor in items if not name.startswith("text_model.")}
    else:
        vision_config = config.get("vision_config") or config
        vision_config = {"model_type": _vision_type(config), **vision_config}
        config = {"vision_config": vision_config}
        stored = stored_tensors(folder)
        tensors = _starting_with("vision_model.", stored.items())
        if not tensors and "vision" in vision_config["model_type"]:
            tensors = {f"vision_model.{name}": tensor for name, tensor in stored.items()}
    _refuse_quantised(folder, config["vision_config"])
    if not any(name.startswith("vision_model.") for name in tensors):
        raise ValueError(
            f"{str(folder)!r} holds no vision encoder: no tensor is named 'vision_model.*'. Give a CLIP or SigLIP model."
        )
    return Part(folder, config, _without_computed(tensors), folder)


def has_whole_eyes(folder: Path) -> bool:
    """Whether a folder is a VisualCLA model, or the eyes of one."""
    return (folder / "config.json").is_file() and read_config(folder).get("model_type") == "visualcla"


def _starting_with(prefix: str, items: Iterable[tuple[str, StoredTensor]]) -> dict[str, StoredTensor]:
    return {name: tensor for name, tensor in items if name.startswith(prefix)}


def _without_computed(tensors: dict[str, StoredTensor]) -> dict[str, StoredTensor]:
    return {name: tensor for name, tensor in tensors.items() if not name.endswith(COMPUTED_BUFFERS)}


def _vision_type(config: dict[str, Any]) -> str:
    model_type = config.get("model_type", "clip")
    return model_type if "vision" in model_type else f"{model_type}_vision_model"


def _refuse_quantised(folder: Path, config: dict[str, Any]) -> None:
    if config.get("quantization_config"):
        raise ValueError(
            f"{str(folder)!r} is quantised ({config['quantization_config'].get('quant_method', 'unknown method')}): merging needs "
            "the weights in 16 or 32 bits. Give the model it was quantised from."
        )
