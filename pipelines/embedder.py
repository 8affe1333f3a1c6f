"""A prompt and a language model to `input_ids` and `inputs_embeds`; every picture is encoded once.

cache = ImageFeatureCache()
embedder = Embedder(PromptEncoder(tokenizer, pipeline), cache)
embedded = embedder.embed(prompt, language_model)
language_model.generate(inputs=embedded.input_ids, inputs_embeds=embedded.inputs_embeds)
"""

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from .prompt import EncodedPrompt, ImagePart, Prompt, PromptEncoder, Truncated

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class ImageFeatureCache:
    """Image features by content and weights, the least recently used going first. Safe to use from several threads.

    Args:
        max_bytes: bound of what is kept; a picture of a 7B model (64 x 4096 in fp16) takes 0.5 MiB.
    """

    def __init__(self, max_bytes: int = 256 * 2**20):
        self.max_bytes = max_bytes
        self._features: OrderedDict[tuple[str, str], torch.Tensor] = OrderedDict()
        self._num_bytes = 0
        self._lock = threading.Lock()

    @property
    def num_bytes(self) -> int:
        """Bytes held now; never more than `max_bytes`."""
        return self._num_bytes

    def __len__(self) -> int:
        return len(self._features)

    def get(self, fingerprint: str, key: str) -> torch.Tensor | None:
        with self._lock:
            features = self._features.get((fingerprint, key))
            if features is not None:
                self._features.move_to_end((fingerprint, key))
            return features

    def put(self, fingerprint: str, key: str, features: torch.Tensor) -> None:
        """Keep (Q, Dt) features; a picture larger than the whole cache is not kept."""
        if features.nbytes > self.max_bytes:
            return
        with self._lock:
            old = self._features.pop((fingerprint, key), None)
            self._num_bytes += features.nbytes - (old.nbytes if old is not None else 0)
            self._features[fingerprint, key] = features
            while self._num_bytes > self.max_bytes:
                _, gone = self._features.popitem(last=False)
                self._num_bytes -= gone.nbytes

    def clear(self) -> None:
        with self._lock:
            self._features.clear()
            self._num_bytes = 0


@dataclass(frozen=True)
class EmbeddedPrompt:
    """What `generate` takes.

    Attributes:
        input_ids: (1, T), placeholders where the images are: real ids of the vocabulary, none of them the padding id.
        inputs_embeds: (1, T, Dt), the language model's device and dtype.
        image_spans: for each image, the position of its first placeholder and the picture.
        truncated: what was dropped to fit the budget; None when no budget was given.
    """

    input_ids: torch.Tensor
    inputs_embeds: torch.Tensor
    image_spans: list[tuple[int, ImagePart]]
    truncated: Truncated | None = None


class Embedder:
    """Embeds prompts for a language model that is handed in with each call and never kept.

    Args:
        encoder: prompts to ids.
        cache: image features; shared between embedders when given.
    """

    def __init__(self, encoder: PromptEncoder, cache: ImageFeatureCache | None = None):
        self.encoder = encoder
        self.pipeline = encoder.pipeline
        self.cache = ImageFeatureCache() if cache is None else cache
        self._encoding = threading.Lock()

    @torch.no_grad()
    def image_features(self, images: list[ImagePart]) -> list[torch.Tensor]:
        """Features of pictures, (Q, Dt) each; those not seen before are encoded in one batch.

        Raises:
            ValueError: the eyes gave something that is not finite.
        """
        fingerprint = self.pipeline.fingerprint
        with self._encoding:  # the same picture in two requests at once is still encoded once
            found = {image.key: self.cache.get(fingerprint, image.key) for image in images}
            missing = {image.key: image for image in images if found[image.key] is None}
            if missing:
                encoded = self.pipeline.embed_images([image.image for image in missing.values()])
                if not torch.isfinite(encoded).all():
                    raise ValueError(
                        f"{self.pipeline.name} gave image features that are not finite (dtype {encoded.dtype}). Load the eyes in "
                        "float32 or bfloat16; quantise the language model only."
                    )
                for key, features in zip(missing, encoded, strict=True):
                    found[key] = features.clone()
                    self.cache.put(fingerprint, key, found[key])
        return [found[image.key] for image in images]

    @torch.no_grad()
    def embed(self, prompt: Prompt, language_model: "PreTrainedModel", max_tokens: int | None = None) -> EmbeddedPrompt:
        """Ids and embeddings of equal length.

        Args:
            prompt: text and pictures.
            language_model: any model with `get_input_embeddings`; a PEFT wrapper, quantised or dispatched one too.
            max_tokens: budget; whole oldest parts are dropped to fit it.

        Raises:
            ValueError: the eyes' width is not the language model's, or the prompt cannot be made to fit.
        """
        truncated = None if max_tokens is None else self.encoder.truncate(prompt, max_tokens)
        encoded = self.encoder.encode(prompt) if truncated is None else truncated.encoded
        input_ids, inputs_embeds = self.embed_encoded(encoded, language_model)
        return EmbeddedPrompt(input_ids, inputs_embeds, encoded.image_spans, truncated)

    @torch.no_grad()
    def embed_encoded(self, encoded: EncodedPrompt, language_model: "PreTrainedModel") -> tuple[torch.Tensor, torch.Tensor]:
        """(1, T) ids and (1, T, Dt) embeddings of an encoded prompt. See `embed`."""
        device = embedding_device(language_model)
        input_ids = torch.tensor([encoded.input_ids], dtype=torch.long, device=device)
        inputs_embeds = self.pipeline.embed_tokens(language_model, input_ids)
        if not encoded.image_spans:
            return input_ids, inputs_embeds
        width = inputs_embeds.shape[-1]
        if width != self.pipeline.embedding_width:
            raise ValueError(
                f"{self.pipeline.name} gives embeddings of width {self.pipeline.embedding_width}, but the language model's width "
                f"is {width}: these eyes belong to another language model."
            )
        inputs_embeds = inputs_embeds.clone()
        features = self.image_features([image for _, image in encoded.image_spans])
        for (start, _), image_features in zip(encoded.image_spans, features, strict=True):
            inputs_embeds[0, start : start + len(image_features)] = image_features.to(inputs_embeds)
        return input_ids, inputs_embeds


def embedding_device(language_model: "PreTrainedModel") -> torch.device:
    """Where a language model wants its ids, also when accelerate keeps the weights elsewhere until they are used."""
    embeddings = language_model.get_input_embeddings()
    execution_device = getattr(getattr(embeddings, "_hf_hook", None), "execution_device", None)
    return embeddings.weight.device if execution_device is None else torch.device(execution_device)
