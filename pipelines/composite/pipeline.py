"""A composite model's vision model as a `VisionPipeline`, for a language model that somebody else runs."""

from collections.abc import Sequence

import torch
from PIL import Image

from ..base import ImageFeatures, VisionPipeline
from ..embedder import evaluating, weights_fingerprint
from .modeling import CompositeVisionModel
from .processing import CompositeProcessor


class CompositePipeline(VisionPipeline):
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

    def image_ids(self, sizes: Sequence[tuple[int, int]], tokenizer) -> list[list[int]]:
        return [[self.placeholder_token_id] * self.num_image_embeds for _ in sizes]

    @torch.no_grad()
    def encode_images(self, images: Sequence[Image.Image], lengths: object = None) -> list[ImageFeatures]:
        features = []
        with evaluating(self.vision_model):
            for first in range(0, len(images), self.max_batch):
                pixel_values = self.processor.preprocess_images(list(images[first : first + self.max_batch]))
                # cloned: one picture in the cache shall not keep its whole batch in memory
                features += [ImageFeatures(embeds=embeds.clone()) for embeds in self.vision_model(pixel_values).pooler_output]
        return features

    def move(self, device: torch.device | str, dtype: torch.dtype | None = None) -> None:
        self.vision_model.to(device=device, dtype=dtype)
