"""VisualCLA as a `VisionPipeline`: the eyes for a language model that somebody else runs."""

import os
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from ..base import ImageReading
from ..embedder import evaluating, weights_fingerprint
from ..fixed_length import FixedLengthPipeline, PromptSide, Unloaded
from .checkpoint import load_eyes, read_whole_config
from .modeling_visualcla import VisualCLAVisionModel, VisualCLAVisionOutput
from .processing_visualcla import IMAGE_MARK, VisualCLAProcessor, load_image_processor
from .tokenization_visualcla import IMAGE_END, IMAGE_START

SAMPLING = {
    "max_new_tokens": 512,
    "min_length": 0,
    "do_sample": True,
    "top_p": 0.9,
    "top_k": 40,
    "num_beams": 1,
    "temperature": 0.5,
    "num_return_sequences": 1,
    "no_repeat_ngram_size": 15,
    "repetition_penalty": 1.1,
}
"""The original's sampling settings."""


class VisualCLAPipeline(FixedLengthPipeline):
    """The eyes of a VisualCLA model.

    Args:
        eyes: the vision model, or a whole model, whose language model is then left alone.
        image_processor: the checkpoint's; gets RGB, alpha dropped, as VisualCLA was trained.
        name: shown to the user.
        max_batch: pictures encoded at once; bounds the memory of a long conversation's first sight.
    """

    image_start = IMAGE_START
    image_end = f"{IMAGE_END}\n"
    image_mark = IMAGE_MARK
    sampling = SAMPLING

    def __init__(self, eyes: VisualCLAVisionModel, image_processor: Any, name: str = "visualcla", max_batch: int = 16):
        if eyes.config.image_token_id is None:
            raise ValueError("The eyes do not know the id of '<img_token>': load them from a folder that holds the tokenizer.")
        self.eyes = eyes
        self.image_processor = image_processor
        self.name = name
        self.max_batch = max_batch
        self.placeholder_token_id = eyes.config.image_token_id
        self.num_image_embeds = eyes.config.num_image_embeds
        self.embedding_width = eyes.config.text_config.hidden_size

    @classmethod
    def from_pretrained(
        cls,
        folder: str | os.PathLike,
        device: torch.device | str | None = None,
        dtype: torch.dtype | str | None = None,
        name: str | None = None,
    ) -> "VisualCLAPipeline":
        """Load the eyes of a model folder; its language model stays on disk.

        Args:
            folder: any layout of `checkpoint.py`.
            device: where the eyes live; the CPU when absent.
            dtype: their precision, 16 or 32 bits; as stored when absent.
        """
        eyes = load_eyes(folder, dtype=dtype)
        if device is not None:
            eyes = eyes.to(device)
        return cls(eyes, load_image_processor(folder), name or Path(folder).resolve().name)

    def move(self, device: torch.device | str, dtype: torch.dtype | None = None) -> None:
        self.eyes.to(device=device, dtype=dtype)

    def move_projector(self, device: torch.device | str, dtype: torch.dtype) -> None:
        """Keep resampler and projector on another device or in another precision than the vision encoder."""
        for part in (self.eyes.visual_resampler, self.eyes.image_projection_layer):
            if part is not None:
                part.to(device, dtype)

    @property
    def fingerprint(self) -> str:
        own = [each for each in self.eyes.named_parameters() if not each[0].startswith(("model.text_model.", "lm_head."))]
        return f"{self.name}:{weights_fingerprint(own, self.eyes.modules())}"

    @property
    def device(self) -> torch.device:
        return self.eyes.vision_model.device

    def pixel_values(self, images: Sequence[Image.Image]) -> torch.Tensor:
        return self.image_processor([image.convert("RGB") for image in images], return_tensors="pt")["pixel_values"]

    @torch.no_grad()
    def image_embeds(self, pixel_values: torch.Tensor) -> torch.Tensor:
        with evaluating(self.eyes):
            return self.eyes.encode_images(pixel_values).pooler_output

    def readings(self, images: Sequence[Image.Image]) -> list[ImageReading]:
        """What the resampler's queries attended to, mean over its layers and heads."""
        where = _where_read(self.look(images, output_attentions=True))  # (N, Q, P)
        side = int(where.shape[2] ** 0.5)
        boxes = [_visible_box(image.size, self.image_processor) for image in images]
        return [ImageReading(maps.unflatten(1, (side, side)), box) for maps, box in zip(where, boxes, strict=True)]

    @torch.no_grad()
    def look(self, images: list[Image.Image], output_attentions: bool = False) -> VisualCLAVisionOutput:
        """Everything the eyes compute of some pictures; on request what the resampler looked at."""
        with evaluating(self.eyes):
            return self.eyes.encode_images(self.pixel_values(images), output_attentions)


def _visible_box(size: tuple[int, int], image_processor) -> tuple[float, float, float, float]:
    """The part of a picture that is left after the image processor's centre crop, as shares of its sides."""
    if not (getattr(image_processor, "do_center_crop", False) and "shortest_edge" in dict(image_processor.size)):
        return 0.0, 0.0, 1.0, 1.0
    crop, shortest_edge = dict(image_processor.crop_size), dict(image_processor.size)["shortest_edge"]
    shares = [
        min(1.0, crop[key] * min(size) / (shortest_edge * side)) for key, side in zip(("width", "height"), size, strict=True)
    ]
    x, y = ((1 - share) / 2 for share in shares)
    return x, y, 1 - x, 1 - y


def _where_read(eyes: VisualCLAVisionOutput) -> torch.Tensor:
    """(N, Q, P): where in the picture each embedding was read, rows sum to 1; mean over the resampler's layers and heads."""
    num_tokens = eyes.image_tokens.shape[1]
    if eyes.attentions is None:  # no resampler: every embedding is one token of the vision encoder
        where = torch.eye(num_tokens, device=eyes.image_tokens.device).expand(len(eyes.image_tokens), -1, -1)
    else:
        where = torch.stack([layer.float().mean(1) for layer in eyes.attentions]).mean(0)[..., -num_tokens:]
    num_patches = int(num_tokens**0.5) ** 2
    where = where[..., num_tokens - num_patches :]  # CLIP's first token stands for the whole picture
    return where / where.sum(-1, keepdim=True).clamp_min(1e-12)


def load_pipeline(folder: str | os.PathLike, device=None, dtype=None) -> VisualCLAPipeline:
    """See `pipelines.registry.load_pipeline`."""
    return VisualCLAPipeline.from_pretrained(folder, device=device, dtype=dtype)


def load_prompt_side(folder: str | os.PathLike) -> PromptSide:
    """See `pipelines.registry.load_prompt_side`."""
    config, embeddings = read_whole_config(Path(folder))
    processor = VisualCLAProcessor.from_pretrained(folder)
    config.image_token_id = processor.image_token_id
    pipeline = VisualCLAPipeline(Unloaded(config), processor.image_processor, Path(folder).resolve().name)
    return PromptSide(config, processor, pipeline, embeddings.read)


def pipeline_of(model: Any, processor: Any) -> VisualCLAPipeline:
    """See `pipelines.registry.pipeline_of`."""
    return VisualCLAPipeline(weakref.proxy(model), processor.image_processor)
