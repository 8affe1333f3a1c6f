"""Pre-training a vision encoder alone: it learns to tell the attributes of a picture."""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ..data import Row


class AttributeCollator:
    """Rows of {"images": [one], "targets": [[A integers] * J]} to `pixel_values` (B, 3, S, S) and `labels` (B, J, A)."""

    def __init__(self, processor: Any):
        self.processor = processor

    def __call__(self, rows: list[Row]) -> dict[str, torch.Tensor]:
        return {
            "pixel_values": self.processor.preprocess_images([image for row in rows for image in row["images"]]),
            "labels": torch.tensor([row["targets"] for row in rows]),
        }


class AttributeClassifier(nn.Module):
    """Eyes that tell A attributes of each of J things in a picture.

    The j-th thing is told by what the j-th learnt query has seen; the head that tells is thrown away after training.

    The queries are the resampler's when it is trained too; else they are this class's own, and the vision encoder learns
    alone.

    Args:
        eyes: a VisualCLA model, trained in place.
        num_things: J.
        num_attributes: A.
        num_values: each attribute is in 0..num_values - 1.
        use_resampler: whether the resampler learns too.

    Raises:
        ValueError: the resampler has fewer than J queries.
    """

    def __init__(self, eyes: nn.Module, num_things: int, num_attributes: int, num_values: int, use_resampler: bool):
        super().__init__()
        width, num_heads = eyes.config.vision_config.hidden_size, eyes.config.vision_config.num_attention_heads
        self.vision_model = eyes.vision_model
        self.image_tokens = eyes.model.image_tokens  # the family knows which encoders have normalised their output already
        self.resampler = eyes.visual_resampler if use_resampler else None
        if not use_resampler:
            self.queries = nn.Parameter(torch.randn(num_things, width))
            self.attention = nn.MultiheadAttention(width, num_heads, batch_first=True)
            self.norm = nn.LayerNorm(width)
        elif eyes.config.num_image_embeds < num_things:
            raise ValueError(f"{num_things} things in a row's targets, but only {eyes.config.num_image_embeds} queries.")
        self.num_things, self.num_values = num_things, num_values
        self.head = nn.Linear(width, num_attributes * num_values)

    def forward(self, pixel_values: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """(B, 3, S, S) and (B, J, A) to the mean cross-entropy and logits (B, J, A, values)."""
        tokens = self.image_tokens(pixel_values)  # (B, P, Dv)
        if self.resampler is None:
            queries = self.queries.expand(len(tokens), -1, -1)
            seen, _ = self.attention(queries, tokens, tokens, need_weights=False)
            seen = self.norm(seen + queries)
        else:
            seen, _ = self.resampler(tokens)
        logits = self.head(seen[:, : self.num_things]).unflatten(-1, (-1, self.num_values))
        return {"loss": F.cross_entropy(logits.float().flatten(0, 2), labels.flatten()), "logits": logits}
