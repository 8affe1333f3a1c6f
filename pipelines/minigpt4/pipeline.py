"""MiniGPT-4 as a `VisionPipeline`."""

import os
import weakref
from pathlib import Path
from typing import Any

from ..composite.pipeline import CompositePipeline
from .checkpoint import FAMILY, SAMPLING
from .processing_minigpt4 import IMAGE_END, IMAGE_START, IMAGE_TOKEN, SEPARATOR


class MiniGPT4Pipeline(CompositePipeline):
    """32 embeddings per picture (64 without a Q-Former) between `<Img>` and `</Img>`, which are plain text."""

    image_mark = f"{IMAGE_START}{IMAGE_TOKEN}{IMAGE_END}"
    image_start = IMAGE_START
    image_end = IMAGE_END
    sampling = SAMPLING

    def __init__(self, vision_model, processor, name: str, max_batch: int = 8):
        super().__init__(vision_model, processor, name, max_batch)
        self.stop_strings = () if vision_model.config.prompt_style == "llama2" else (SEPARATOR,)


def load_pipeline(folder: str | os.PathLike, device=None, dtype=None) -> MiniGPT4Pipeline:
    """See `pipelines.registry.load_pipeline`."""
    vision_model, processor = FAMILY.load_vision(folder, dtype=dtype)
    return MiniGPT4Pipeline(vision_model.to(device or "cpu"), processor, Path(folder).resolve().name)


def pipeline_of(model: Any, processor: Any) -> MiniGPT4Pipeline:
    """See `pipelines.registry.pipeline_of`."""
    return MiniGPT4Pipeline(weakref.proxy(model.model.vision_model), processor, "minigpt4")
