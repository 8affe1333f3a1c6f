"""LLaVA as a `VisionPipeline`."""

import os
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from ..base import ImagePart
from ..embedder import evaluating, weights_fingerprint
from ..fixed_length import FixedLengthPipeline, PromptSide
from .checkpoint import FAMILY
from .configuration_llava import num_image_embeds
from .processing_llava import IMAGE_TOKEN, LlavaChatProcessor

SAMPLING = {"do_sample": True, "temperature": 0.2, "max_new_tokens": 512}
"""The original's `run_llava.py` and worker."""


class LlavaPipeline(FixedLengthPipeline):
    """A picture is 256 or 576 embeddings in the prompt.

    Args:
        model: a `LlavaModel` without a language model, or a whole model, whose language model is then left alone.
        processor: the model's.
        name: shown to the user.
        max_batch: pictures encoded at once; bounds the memory of a long conversation's first sight.
    """

    image_mark = IMAGE_TOKEN
    sampling = SAMPLING

    def __init__(self, model: Any, processor: LlavaChatProcessor, name: str = "llava", max_batch: int = 8):
        self.model = model
        self.processor = processor
        self.name = name
        self.max_batch = max_batch
        self.image_start, self.image_end = processor.marks
        self.placeholder_token_id = model.config.image_token_id
        self.num_image_embeds = num_image_embeds(model.config)
        self.embedding_width = model.config.text_config.hidden_size

    @property
    def _parts(self) -> tuple[torch.nn.Module, torch.nn.Module]:
        holder = getattr(self.model, "model", self.model)
        return holder.vision_tower, holder.multi_modal_projector

    @property
    def device(self) -> torch.device:
        return self._parts[0].device

    @property
    def fingerprint(self) -> str:
        own = torch.nn.ModuleList(self._parts)
        return f"{self.name}:{weights_fingerprint(own.named_parameters(), own.modules())}"

    def arranged(self, parts: Sequence[str | ImagePart]) -> list[str | ImagePart]:
        """A line break after each picture, as the originals' conversations and the chat template write it."""
        found: list[str | ImagePart] = []
        for part, following in zip(parts, [*parts[1:], ""], strict=True):
            is_followed = isinstance(following, str) and following.startswith("\n")
            found += [part, "\n"] if isinstance(part, ImagePart) and not is_followed else [part]
        return found

    def pixel_values(self, images: Sequence[Image.Image]) -> torch.Tensor:
        return self.processor.preprocess_images(list(images))

    @torch.no_grad()
    def image_embeds(self, pixel_values: torch.Tensor) -> torch.Tensor:
        with evaluating(self.model):
            output = self.model.get_image_features(pixel_values.to(self.device, self._parts[0].dtype))
        return torch.stack(list(output.pooler_output))

    def move(self, device: torch.device | str, dtype: torch.dtype | None = None) -> None:
        for part in self._parts:
            part.to(device=device, dtype=dtype)


def load_pipeline(folder: str | os.PathLike, device=None, dtype=None) -> LlavaPipeline:
    """See `pipelines.registry.load_pipeline`."""
    model, processor = FAMILY.load_vision(folder, dtype=dtype)
    return LlavaPipeline(model.to(device or "cpu"), processor, Path(folder).resolve().name)


def load_prompt_side(folder: str | os.PathLike) -> PromptSide:
    """See `pipelines.registry.load_prompt_side`."""
    return FAMILY.load_prompt_side(folder, LlavaPipeline)


def pipeline_of(model: Any, processor: Any) -> LlavaPipeline:
    """See `pipelines.registry.pipeline_of`."""
    return LlavaPipeline(weakref.proxy(model), processor)
