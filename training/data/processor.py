"""The processor of a model folder, without its weights: what data commands need to know of a model."""

import inspect
import os
from typing import Any

from transformers import AutoProcessor, ProcessorMixin

from pipelines.hub import resolve_folder
from pipelines.json_files import read_json
from pipelines.registry import family, find_family


def load_processor(name_or_path: str | os.PathLike) -> Any:
    """The processor of a family's folder, or of a native model, its tokenizer's `model_max_length` at most the model's context.

    Raises:
        FileNotFoundError, ValueError: it cannot be opened.
    """
    folder = resolve_folder(name_or_path)
    name = find_family(folder)
    try:
        if name is None:
            processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False)
        else:
            package = vars(family(name)).values()
            (kind,) = {value for value in package if inspect.isclass(value) and issubclass(value, ProcessorMixin)}
            processor = kind.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{str(folder)!r} holds no processor that can be opened ({str(error).splitlines()[0]}).") from error
    if not isinstance(processor, ProcessorMixin):
        raise ValueError(f"{str(folder)!r} is a text model: it has no processor for pictures.")
    values = read_json(folder / "config.json")
    context = values.get("text_config", values).get("max_position_embeddings")
    if context:
        processor.tokenizer.model_max_length = min(processor.tokenizer.model_max_length, context)
    return processor
