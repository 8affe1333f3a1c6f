"""A prompt and a language model to ids and what the model takes beside them; every picture is encoded once.

embedder = Embedder(PromptEncoder(tokenizer, pipeline))
prepared = embedder.prepare(prompt, language_model)
language_model.generate(inputs=prepared.input_ids, **prepared.inputs)
"""

import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import nn

from .base import ImageFeatures, ImageSpan
from .prompt import EncodedPrompt, Prompt, PromptEncoder, Truncated

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Key = tuple[str, str, int]
"""Fingerprint of the weights, key of the picture, length of its span."""


class ImageFeatureCache:
    """Image features by content and weights, the least recently used going first. Safe to use from several threads.

    Args:
        max_bytes: bound of what is kept; a picture of a 7B model (64 x 4096 in fp16) takes 0.5 MiB.
    """

    def __init__(self, max_bytes: int = 256 * 2**20):
        self.max_bytes = max_bytes
        self._features: OrderedDict[Key, ImageFeatures] = OrderedDict()
        self._num_bytes = 0
        self._lock = threading.Lock()

    @property
    def num_bytes(self) -> int:
        """Bytes held now; never more than `max_bytes`."""
        return self._num_bytes

    def __len__(self) -> int:
        return len(self._features)

    def get(self, key: Key) -> ImageFeatures | None:
        with self._lock:
            features = self._features.get(key)
            if features is not None:
                self._features.move_to_end(key)
            return features

    def put(self, key: Key, features: ImageFeatures) -> None:
        """Keep features; a picture larger than the whole cache is not kept."""
        if features.nbytes > self.max_bytes:
            return
        with self._lock:
            old = self._features.pop(key, None)
            self._num_bytes += features.nbytes - (old.nbytes if old is not None else 0)
            self._features[key] = features
            while self._num_bytes > self.max_bytes:
                _, gone = self._features.popitem(last=False)
                self._num_bytes -= gone.nbytes

    def clear(self) -> None:
        with self._lock:
            self._features.clear()
            self._num_bytes = 0


@dataclass(frozen=True)
class PreparedPrompt:
    """What `generate` takes.

    Attributes:
        input_ids: (1, T), real ids of the vocabulary, none of them the padding id where a picture stands.
        inputs: what goes beside them; see `VisionPipeline.model_inputs`.
        image_spans: where each picture stands.
        features: what each of them became, in the same order.
        truncated: what was dropped to fit the budget; None when no budget was given.
    """

    input_ids: torch.Tensor
    inputs: dict[str, torch.Tensor]
    image_spans: list[ImageSpan]
    features: list[ImageFeatures] = field(default_factory=list)
    truncated: Truncated | None = None


class Embedder:
    """Prepares prompts for a language model that is handed in with each call and never kept.

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
    def image_features(self, spans: Sequence[ImageSpan]) -> list[ImageFeatures]:
        """Features of the pictures that stand there; those not seen before are encoded in one batch.

        Raises:
            ValueError: a picture cannot be decoded, or the vision model gave something that is not finite.
        """
        fingerprint = self.pipeline.fingerprint
        keys = [(fingerprint, span.image.key, span.length) for span in spans]
        with self._encoding:  # the same picture in two requests at once is still encoded once
            found = {key: self.cache.get(key) for key in keys}
            missing = {key: span for key, span in zip(keys, spans, strict=True) if found[key] is None}
            if missing:
                images = [span.image.open() for span in missing.values()]
                encoded = self.pipeline.encode_images(images, [span.length for span in missing.values()])
                for key, features in zip(missing, encoded, strict=True):
                    self._check(features)
                    found[key] = features
                    self.cache.put(key, features)
        return [found[key] for key in keys]

    def _check(self, features: ImageFeatures) -> None:
        for tensor in features.tensors:
            if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                raise ValueError(
                    f"{self.pipeline.name} gave image features that are not finite (dtype {tensor.dtype}). Load the vision model "
                    "in float32 or bfloat16; quantise the language model only."
                )

    @torch.no_grad()
    def prepare(self, prompt: Prompt, language_model: "PreTrainedModel", max_tokens: int | None = None) -> PreparedPrompt:
        """Ids and what goes beside them.

        Args:
            prompt: text and pictures.
            language_model: any model with `get_input_embeddings`; a PEFT wrapper, quantised or dispatched one too.
            max_tokens: budget; whole oldest parts are dropped to fit it.

        Raises:
            ValueError: the vision model belongs to another language model, or the prompt cannot be made to fit.
        """
        truncated = None if max_tokens is None else self.encoder.truncate(prompt, max_tokens)
        encoded = self.encoder.encode(prompt) if truncated is None else truncated.encoded
        return self.prepare_encoded(encoded, language_model, truncated)

    @torch.no_grad()
    def prepare_encoded(
        self, encoded: EncodedPrompt, language_model: "PreTrainedModel", truncated: Truncated | None = None
    ) -> PreparedPrompt:
        """As `prepare`, of a prompt that is encoded already."""
        input_ids = torch.tensor([encoded.input_ids], dtype=torch.long, device=embedding_device(language_model))
        features = self.image_features(encoded.image_spans) if encoded.image_spans else []
        inputs = self.pipeline.model_inputs(language_model, input_ids, None, [encoded.image_spans], [features])
        return PreparedPrompt(input_ids, inputs, encoded.image_spans, features, truncated)


def embedding_device(language_model: "PreTrainedModel") -> torch.device:
    """Where a language model wants its ids, also when accelerate keeps the weights elsewhere until they are used."""
    return execution_device(language_model.get_input_embeddings())


def execution_device(module: nn.Module) -> torch.device:
    """Where a module computes, also when accelerate keeps its weights elsewhere until they are used."""
    for submodule in module.modules():
        hook = getattr(submodule, "_hf_hook", None)
        for each in getattr(hook, "hooks", [hook]):
            if getattr(each, "execution_device", None) is not None:
                return torch.device(each.execution_device)
    return next(module.parameters()).device


def weights_fingerprint(named_parameters: Iterable[tuple[str, nn.Parameter]], modules: Iterable[nn.Module]) -> int:
    """Of weights as they are in memory: training, an adapter switched on or off, a reload all change it.

    Args:
        named_parameters: the weights that count.
        modules: where adapters may be.
    """
    states = [(name, p.data_ptr(), 0 if p.is_inference() else p._version) for name, p in named_parameters]
    adapters = [
        (str(module.active_adapters), module.disable_adapters, module.merged, str(getattr(module, "scaling", "")))
        for module in modules
        if hasattr(module, "disable_adapters") and hasattr(module, "merged")
    ]
    return hash((*states, *adapters))


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
