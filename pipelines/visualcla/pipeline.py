"""VisualCLA as a `VisionPipeline`: the eyes for a language model that somebody else runs."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn

from ..base import VisionPipeline
from .checkpoint import load_eyes
from .modeling_visualcla import VisualCLAVisionModel, VisualCLAVisionOutput
from .processing_visualcla import IMAGE_MARK, load_image_processor
from .tokenization_visualcla import IMAGE_END, IMAGE_START


class VisualCLAPipeline(VisionPipeline):
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

    def move_projector(self, device: torch.device | str, dtype: torch.dtype) -> None:
        """Keep resampler and projector on another device or in another precision than the vision encoder."""
        for part in (self.eyes.visual_resampler, self.eyes.image_projection_layer):
            if part is not None:
                part.to(device, dtype)

    @property
    def fingerprint(self) -> str:
        """Of the weights as they are in memory: training, an adapter switched on or off, a reload all change it."""
        states = [
            (parameter.data_ptr(), 0 if parameter.is_inference() else parameter._version)
            for name, parameter in self.eyes.named_parameters()
            if not name.startswith("text_model.")
        ]
        adapters = [
            (str(module.active_adapters), module.disable_adapters, module.merged)
            for module in self.eyes.modules()
            if hasattr(module, "disable_adapters") and hasattr(module, "merged")
        ]
        return f"{self.name}:{hash((*states, *adapters))}"

    @torch.no_grad()
    def embed_images(self, images: list[Image.Image]) -> torch.Tensor:
        return torch.cat(
            [self.look(images[i : i + self.max_batch]).image_features for i in range(0, len(images), self.max_batch)]
        )

    @torch.no_grad()
    def look(self, images: list[Image.Image], output_attentions: bool = False) -> VisualCLAVisionOutput:
        """Everything the eyes compute of some pictures; on request what the resampler looked at."""
        rgb = [image.convert("RGB") for image in images]
        pixel_values = self.image_processor(rgb, return_tensors="pt")["pixel_values"]
        with evaluating(self.eyes):
            return self.eyes.encode_images(pixel_values, output_attentions)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Dropout off, also in the middle of a training; afterwards every module is in the mode it was in."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def load_pipeline(folder: str | os.PathLike, device=None, dtype=None) -> VisualCLAPipeline:
    """See `pipelines.registry.load_pipeline`."""
    return VisualCLAPipeline.from_pretrained(folder, device=device, dtype=dtype)
