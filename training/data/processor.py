"""The processor of a model folder, without its weights: what data commands need to know of a model."""

import os
from typing import TYPE_CHECKING

from pipelines.hub import resolve_folder
from pipelines.json_files import read_json
from pipelines.registry import load_processor as load_any

if TYPE_CHECKING:
    from transformers import ProcessorMixin


def load_processor(name_or_path: str | os.PathLike) -> "ProcessorMixin":
    """Of any model that trains, its tokenizer's `model_max_length` at most the model's context.

    Raises:
        FileNotFoundError, ValueError: it cannot be opened.
    """
    folder = resolve_folder(name_or_path)
    processor = load_any(folder)
    values = read_json(folder / "config.json")
    limit_length(processor, values.get("text_config", values).get("max_position_embeddings"))
    return processor


def limit_length(processor: "ProcessorMixin", context: int | None) -> None:
    """Set the tokenizer's `model_max_length` to at most so many tokens; None: leave it."""
    if context:
        processor.tokenizer.model_max_length = min(processor.tokenizer.model_max_length, context)
