"""The contract between a family of vision models and everybody who uses one.

A family turns pictures into embeddings that stand in a language model's prompt where the picture stood. Plugin, chat and
training know this class and nothing else of a family.
"""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from transformers import PreTrainedModel


class VisionPipeline(ABC):
    """The eyes of one model. The language model is handed in where it is needed and never kept.

    Shapes: N pictures, Q embeddings per picture, Dt the language model's embedding width, T tokens.

    Attributes:
        name: what the user is shown, such as "visualcla-7b".
        image_start: text written before a picture's embeddings; may be empty.
        image_end: text written after them; may be empty.
        image_mark: what the family's chat template writes for one picture.
        placeholder_token_id: the id that stands for one embedding of a picture: a real id of the vocabulary, and not the
            padding id, whose positions `generate` masks.
        num_image_embeds: Q, embeddings per picture; the same for every picture.
        embedding_width: Dt, which must be the language model's.
    """

    name: str
    image_start: str
    image_end: str
    image_mark: str
    placeholder_token_id: int
    num_image_embeds: int
    embedding_width: int

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Changes whenever the weights that `embed_images` uses change; part of every cache key."""

    @abstractmethod
    def embed_images(self, images: "list[Image.Image]") -> "torch.Tensor":
        """Encode pictures in one batch.

        Args:
            images: N >= 1 pictures as `pipelines.images.load_image` gives them (RGB or RGBA; alpha is the family's choice).

        Returns:
            (N, Q, Dt), finite, without gradient, on the eyes' device and in the eyes' dtype.
        """

    def embed_tokens(self, language_model: "PreTrainedModel", input_ids: "torch.Tensor") -> "torch.Tensor":
        """(1, T) ids to (1, T, Dt) embeddings, by the language model's own input embeddings."""
        return language_model.get_input_embeddings()(input_ids)

    def placeholder_embeddings(self, language_model: "PreTrainedModel") -> "torch.Tensor":
        """(1, Q, Dt): what stands for a picture that is left out of the prompt."""
        import torch

        from .embedder import embedding_device

        ids = torch.full((1, self.num_image_embeds), self.placeholder_token_id, device=embedding_device(language_model))
        return self.embed_tokens(language_model, ids)
