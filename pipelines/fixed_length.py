"""Families whose pictures are a fixed number of embeddings each: what they share, and what a serving engine asks of them.

An engine writes prompts and prepares pictures in one process and computes in others. `PromptSide` is what the first needs, read
without weights; the others encode with `FixedLengthPipeline.image_embeds`.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .base import ImageFeatures, VisionPipeline

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor
    from transformers import PreTrainedConfig, ProcessorMixin


class FixedLengthPipeline(VisionPipeline):
    """A picture of any size becomes one tensor of pixels, and that as many embeddings as any other.

    Legend of shapes: N pictures, S the side in pixels, Q embeddings per picture, Dt the language model's width.

    Attributes:
        num_image_embeds: Q.
        max_batch: pictures encoded at once; bounds the memory of a long conversation's first sight.
    """

    num_image_embeds: int
    max_batch: int = 8

    @abstractmethod
    def pixel_values(self, images: "Sequence[Image.Image]") -> "Tensor":
        """(N, 3, S, S) on the CPU, RGB, normalised; computed without weights."""

    @abstractmethod
    def image_embeds(self, pixel_values: "Tensor") -> "Tensor":
        """(N, Q, Dt) of what `pixel_values` gave, without gradient."""

    def image_ids(self, sizes: Sequence[tuple[int, int]], tokenizer) -> list[list[int]]:
        return [[self.placeholder_token_id] * self.num_image_embeds for _ in sizes]

    def encode_images(self, images: "Sequence[Image.Image]", lengths: object = None) -> list[ImageFeatures]:
        batches = [images[first : first + self.max_batch] for first in range(0, len(images), self.max_batch)]
        # cloned: one picture in the cache shall not keep its whole batch in memory
        return [
            ImageFeatures(embeds=embeds.clone()) for batch in batches for embeds in self.image_embeds(self.pixel_values(batch))
        ]


CONVERT_FIRST = (
    "{path!r} is a {family} as it was published: an engine is given one folder with everything in it. Make one: python -m training convert "
    "--help, or python -m training merge --help"
)


@dataclass(frozen=True)
class PromptSide:
    """What writes the prompts of a model, and prepares its pictures, without its weights.

    Attributes:
        config: of the whole model; `text_config` is the language model's, its vocabulary counted on the weights.
        processor: with the tokenizer and the chat template.
        pipeline: everything but `image_embeds`.
        read_embeddings: reads (V, Dt), the language model's input embeddings, as they are stored.
    """

    config: "PreTrainedConfig"
    processor: "ProcessorMixin"
    pipeline: FixedLengthPipeline
    read_embeddings: Callable[[], "Tensor"]


@dataclass(frozen=True)
class Unloaded:
    """Stands for a vision model that nobody loads: a pipeline of it knows its configuration."""

    config: Any
