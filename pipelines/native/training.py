"""What training needs to know of a native model: which parameters are which part, and how it is written."""

import os
import re
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from ..composite.tensors import new_folder

_CONNECTOR = re.compile(
    r"(^|\.)(multi_modal_projector|mm_projector|connector|aligner|merger|merger_list|deepstack_merger_list|resampler|embed_vision"
    r"|image_newline|vision_projection|vision_proj|multimodal_projection|abstractor)(\.|$)"
)
_UNTRAINED = {"paligemma": "its prompts are read in both directions and its answers in one, which no chat template tells apart"}
"""`model_type` of models that chat and do not learn, to the reason."""
_LANGUAGE = ("model.language_model.", "language_model.", "model.text_model.", "text_model.", "lm_head.")


def parts_of(model: PreTrainedModel) -> dict[str, tuple[str, ...]]:
    """The beginnings of the names of each part's parameters; see `pipelines.registry.parts_of`.

    The language model is what transformers calls so, and the head; a connector is told by its name, also inside the vision model;
    the rest is the vision encoder.

    Raises:
        ValueError: the model is not trained here.
    """
    if reason := _UNTRAINED.get(model.config.model_type):
        raise ValueError(f"{model.config.model_type} is not trained here: {reason}.")
    parts: dict[str, list[str]] = {"vision": [], "connector": [], "language": []}
    _place(model, "", parts)
    return {part: tuple(names) for part, names in parts.items()}


def _place(module: nn.Module, path: str, parts: dict[str, list[str]]) -> None:
    """Gives a module to the part that all of its parameters are of, else its children each to theirs."""
    for name, _ in module.named_parameters(recurse=False):
        parts[_part(path + name)].append(path + name)
    for name, child in module.named_children():
        inner = f"{path}{name}."
        kinds = {_part(inner + each) for each, _ in child.named_parameters()}
        if len(kinds) == 1:
            parts[kinds.pop()].append(inner)
        else:
            _place(child, inner, parts)


def _part(name: str) -> str:
    return "language" if name.startswith(_LANGUAGE) else "connector" if _CONNECTOR.search(name) else "vision"


def save_model(model: PreTrainedModel, processor: Any, folder: str | os.PathLike) -> None:
    """See `pipelines.registry.save_model`; as transformers writes it."""
    with new_folder(Path(folder), force=True) as partial:
        model.save_pretrained(partial)
        processor.save_pretrained(partial)
        processor.image_processor.save_pretrained(partial)  # a file of its own, which versions before 5.7 look for
