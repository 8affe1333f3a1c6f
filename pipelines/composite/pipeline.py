"""A composite model's vision model as a `VisionPipeline`, for a language model that somebody else runs."""

from collections.abc import Sequence

import torch
from PIL import Image

from ..embedder import evaluating, weights_fingerprint
from ..fixed_length import FixedLengthPipeline
from .modeling import CompositeVisionModel
from .processing import CompositeProcessor


class CompositePipeline(FixedLengthPipeline):
    """Pictures as a fixed number of embeddings.

    Args:
        vision_model: the family's.
        processor: the model's.
        name: shown to the user.
        max_batch: pictures encoded at once; bounds the memory of a long conversation's first sight.
    """

    def __init__(self, vision_model: CompositeVisionModel, processor: CompositeProcessor, name: str, max_batch: int = 8):
        config = vision_model.config
        self.vision_model = vision_model
        self.processor = processor
        self.name = name
        self.max_batch = max_batch
        self.placeholder_token_id = config.image_token_id
        self.num_image_embeds = config.num_image_embeds
        self.embedding_width = config.text_config.hidden_size

    @property
    def device(self) -> torch.device:
        return next(self.vision_model.parameters()).device

    @property
    def fingerprint(self) -> str:
        return f"{self.name}:{weights_fingerprint(self.vision_model.named_parameters(), self.vision_model.modules())}"

    def pixel_values(self, images: Sequence[Image.Image]) -> torch.Tensor:
        return self.processor.preprocess_images(list(images))

    @torch.no_grad()
    def image_embeds(self, pixel_values: torch.Tensor) -> torch.Tensor:
        with evaluating(self.vision_model):
            return self.vision_model(pixel_values).pooler_output

    def move(self, device: torch.device | str, dtype: torch.dtype | None = None) -> None:
        self.vision_model.to(device=device, dtype=dtype)
