"""The parts of a model as they lie on disk, under the family's names: a language model, or a vision model.

A part may come from a folder of its own (LLaMA, CLIP) or from a whole model in any layout.
"""

import dataclasses
from pathlib import Path
from typing import Any

from pipelines.checkpoints.merging import Merging, Part
from pipelines.checkpoints.offsets import StoredTensor
from pipelines.checkpoints.stored_tensors import model_tensors
from pipelines.checkpoints.structure import COMPUTED_BUFFERS, read_config
from pipelines.checkpoints.weight_files import model_files


def read_language_model(folder: Path, family: Merging) -> Part:
    """The language model of a folder: a model of its own, or the one inside a whole model.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is quantised, an adapter, or a vision model alone.
    """
    if (folder / "adapter_config.json").is_file() and not model_files(folder):
        raise ValueError(
            f"{str(folder)!r} is an adapter, not a language model: give it as lora_model, and its base as text_model."
        )
    config, place = read_config(folder), folder
    if family.holds(folder):
        layout = family.layout(folder)
        sub = layout.folder_of(family.text)
        place = folder / sub
        config = read_config(place) if sub else config["text_config"]
        read = layout.read(folder, [sub])
        tensors = {name: tensor for name, tensor in read.items() if name.startswith(family.text)}
        if not tensors:
            raise ValueError(
                f"{str(folder)!r} holds a vision model alone, no language model. Give the folder of the whole model."
            )
    else:
        tensors = {f"{family.text}{name}": tensor for name, tensor in model_tensors(folder).items()}
    _refuse_quantised(folder, config)
    has_own = (place / "generation_config.json").is_file()
    return Part(folder, config, _without_computed(tensors), folder, place if has_own else folder)


def read_vision_model(folder: Path, family: Merging) -> Part:
    """The vision model of a folder: a vision encoder (CLIP, SigLIP, alone or with its text tower), or that of a whole model.

    Raises:
        FileNotFoundError: there is none.
        ValueError: the folder holds no vision encoder.
    """
    if family.holds(folder / "vision"):
        part = read_vision_model(folder / "vision", family)
        return dataclasses.replace(part, folder=folder)
    if family.holds(folder):
        if (folder / "adapter_config.json").is_file():
            raise ValueError(
                f"{str(folder)!r} is an adapter, not a vision encoder: give it as lora_model, and its base as vision_model."
            )
        layout = family.layout(folder)
        places = [rename.folder for rename in layout.renames if rename.canonical != family.text]
        read = layout.read(folder, dict.fromkeys(places))
        tensors = {name: tensor for name, tensor in read.items() if not name.startswith(family.text)}
        part = Part(folder, read_config(folder), tensors, folder, folder)
    else:
        part = family.read_encoder(folder)
    _refuse_quantised(folder, part.config["vision_config"])
    if not any(name.startswith("vision_model.") for name in part.tensors):
        raise ValueError(
            f"{str(folder)!r} holds no vision encoder: no tensor is named 'vision_model.*'. Give a CLIP or SigLIP model."
        )
    return dataclasses.replace(part, tensors=_without_computed(part.tensors))


def _without_computed(tensors: dict[str, StoredTensor]) -> dict[str, StoredTensor]:
    return {name: tensor for name, tensor in tensors.items() if not name.endswith(COMPUTED_BUFFERS)}


def _refuse_quantised(folder: Path, config: dict[str, Any]) -> None:
    if config.get("quantization_config"):
        raise ValueError(
            f"{str(folder)!r} is quantised ({config['quantization_config'].get('quant_method', 'unknown method')}): merging needs "
            "the weights in 16 or 32 bits. Give the model it was quantised from."
        )
