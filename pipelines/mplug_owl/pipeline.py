"""mPLUG-Owl as a `VisionPipeline`."""

import os
import weakref
from pathlib import Path
from typing import Any

from ..composite.pipeline import CompositePipeline
from ..fixed_length import PromptSide
from .checkpoint import FAMILY, SAMPLING
from .processing_mplug_owl import AFTER_IMAGE, IMAGE_TOKEN


class MplugOwlPipeline(CompositePipeline):
    """65 embeddings per picture; what follows a picture is a new `Human:` line."""

    image_mark = f"{IMAGE_TOKEN}{AFTER_IMAGE}"
    image_end = AFTER_IMAGE
    sampling = SAMPLING


def load_pipeline(folder: str | os.PathLike, device=None, dtype=None) -> MplugOwlPipeline:
    """See `pipelines.registry.load_pipeline`."""
    vision_model, processor = FAMILY.load_vision(folder, dtype=dtype)
    return MplugOwlPipeline(vision_model.to(device or "cpu"), processor, Path(folder).resolve().name)


def load_prompt_side(folder: str | os.PathLike) -> PromptSide:
    """See `pipelines.registry.load_prompt_side`."""
    return FAMILY.load_prompt_side(folder, MplugOwlPipeline)


def pipeline_of(model: Any, processor: Any) -> MplugOwlPipeline:
    """See `pipelines.registry.pipeline_of`."""
    return MplugOwlPipeline(weakref.proxy(model.model.vision_model), processor, "mplug_owl")
