"""MiniGPT-4 as a `VisionPipeline`."""

import os
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..base import ImagePart
from ..composite.pipeline import CompositePipeline
from ..fixed_length import PromptSide
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
        is_llama2 = vision_model.config.prompt_style == "llama2"
        self.stop_strings = () if is_llama2 else (SEPARATOR,)
        self.next_message = "<s>[INST] " if is_llama2 else f"{SEPARATOR}Human: "

    def arranged(self, parts: Sequence[str | ImagePart]) -> list[str | ImagePart]:
        """Every picture but the last of a question is a message of its own, and a space joins the last one with the question."""
        arranged: list[str | ImagePart] = []
        for part in parts:
            if arranged and isinstance(arranged[-1], ImagePart):
                if isinstance(part, ImagePart):
                    arranged.append(self.next_message)
                elif not part.startswith((" ", "\n", self.next_message, SEPARATOR)):
                    part = f" {part}"
            arranged.append(part)
        return arranged


def load_pipeline(folder: str | os.PathLike, device=None, dtype=None) -> MiniGPT4Pipeline:
    """See `pipelines.registry.load_pipeline`."""
    vision_model, processor = FAMILY.load_vision(folder, dtype=dtype)
    return MiniGPT4Pipeline(vision_model.to(device or "cpu"), processor, Path(folder).resolve().name)


def load_prompt_side(folder: str | os.PathLike) -> PromptSide:
    """See `pipelines.registry.load_prompt_side`."""
    return FAMILY.load_prompt_side(folder, MiniGPT4Pipeline)


def pipeline_of(model: Any, processor: Any) -> MiniGPT4Pipeline:
    """See `pipelines.registry.pipeline_of`."""
    return MiniGPT4Pipeline(weakref.proxy(model.model.vision_model), processor, "minigpt4")
