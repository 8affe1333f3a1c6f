"""Keys and values of what was in a conversation before, so that a turn costs what is new in it.

cache = PrefixCache()
cache.generate(model.generate, model, input_ids, pipeline, spans, features, **kwargs)

`generate` of transformers is given a key/value cache that holds the longest prefix this prompt shares with an earlier one, pictures
included. Slow must never become stale: positions are compared by what stands at them and by what they look at, caches belong to one
model with the weights and adapters that made them, and wherever a warm start is not certain to be right the call goes through as it
came (the reason is logged at debug level).

Legend: T ids of a prompt, n of them taken from a cache.
"""

import hashlib
import inspect
import logging
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache, PreTrainedModel, StoppingCriteria, StoppingCriteriaList
from transformers.cache_utils import DynamicLayer
from transformers.generation.streamers import BaseStreamer

from .base import ImageFeatures, ImageSpan, VisionPipeline
from .embedder import weights_fingerprint

logger = logging.getLogger(__name__)

DRIFTING_ROPE = {"dynamic", "longrope"}
"""Rotary embeddings that change with the length of the prompt: keys of a shorter one are others."""


@dataclass
class Reuse:
    """How the last prompt was served.

    Attributes:
        num_prompt_tokens: T.
        num_reused_tokens: n.
        reason: why it went cold where it had to; empty otherwise.
    """

    num_prompt_tokens: int = 0
    num_reused_tokens: int = 0
    reason: str = ""


@dataclass(eq=False)
class _Conversation:
    """What one cache holds.

    Attributes:
        model: whose keys and values these are.
        owner: its weights and adapters, and the pipeline's.
        keys: (L, 5), see `position_keys`; L may exceed what the cache holds by the last token.
        cache: one tensor of keys and one of values per layer.
    """

    model: weakref.ref
    owner: str
    keys: np.ndarray
    cache: DynamicCache
    num_bytes: int = field(init=False)

    def __post_init__(self):
        self.keys = self.keys[: self.cache.get_seq_length()]
        self.num_bytes = cache_bytes(self.cache)


class PrefixCache:
    """Keys and values of several conversations, the least recently used going first. Safe to use from several threads.

    Args:
        max_bytes: bound of what is kept between calls, 0 for nothing; a token of a 7B model in 16 bits takes 0.5 MiB.
        chunk: new ids that go through the model at once where a picture is among them; bounds the memory of a long prefill.

    Attributes:
        last: how the last prompt was served.
    """

    def __init__(self, max_bytes: int = 2 * 2**30, chunk: int = 1024):
        self.max_bytes = max_bytes
        self.chunk = chunk
        self.last = Reuse()
        self._conversations: list[_Conversation] = []  # the least recently used first
        self._lock = threading.Lock()

    @property
    def num_bytes(self) -> int:
        """Bytes held now, on whatever device; never more than `max_bytes`."""
        return sum(conversation.num_bytes for conversation in self._conversations)

    def __len__(self) -> int:
        return len(self._conversations)

    def clear(self) -> None:
        """Give everything back."""
        with self._lock:
            self._conversations.clear()

    def generate(
        self,
        generate: Callable[..., Any],
        model: PreTrainedModel,
        input_ids: torch.Tensor,
        pipeline: VisionPipeline | None = None,
        spans: Sequence[ImageSpan] = (),
        features: Sequence[ImageFeatures] = (),
        **kwargs: Any,
    ) -> Any:
        """`generate(input_ids, **kwargs)`, with its prefix taken from an earlier call where that is certain to be right.

        Args:
            generate: the model's.
            model: the loaded model.
            input_ids: (1, T).
            pipeline: the family, attached to the model; None for a prompt of text.
            spans: where the pictures of the prompt stand.
            features: what they became.
            kwargs: of `generate`, without what a pipeline gives (`model_inputs`).

        Returns:
            What `generate` returns.
        """
        self.last = Reuse(input_ids.shape[-1])
        reason = "switched off" if self.max_bytes <= 0 else why_cold(model, input_ids, pipeline, spans, features, kwargs)
        if reason:
            return self._cold(reason, generate, model, input_ids, pipeline, spans, features, kwargs)
        owner = fingerprint(model, pipeline)
        keys = position_keys(input_ids[0].tolist(), spans, pipeline)
        warm = self._take(model, owner, keys, spans)
        counter = _Counter()
        arguments = {**kwargs, "stopping_criteria": StoppingCriteriaList([*(kwargs.get("stopping_criteria") or ()), counter])}
        prompt = (generate, model, input_ids, pipeline, spans, features)
        done = None
        try:
            done = self._run(*prompt, warm, arguments)
        except torch.OutOfMemoryError:
            self.clear()
            if counter.count:  # the caller has seen tokens of this answer
                raise
            logger.warning("Out of memory: the kept keys and values are given back, and the prompt is computed anew.")
        if done is None:  # not inside the except clause, whose traceback keeps the tensors alive
            warm = None
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            if arguments.get("streamer") is not None:
                arguments["streamer"] = _WithoutPrompt(arguments["streamer"])
            done = self._run(*prompt, None, arguments)
            self.last.reason = "out of memory"
        result, cache = done
        sequence = getattr(result, "sequences", result)[0].tolist()
        if cache.get_seq_length() > len(sequence):
            raise RuntimeError(
                f"{cache.get_seq_length()} positions stand in the cache of {len(sequence)} ids: some were computed twice."
            )
        new_keys = np.concatenate([keys, position_keys(sequence[len(keys) :], (), None, behind=keys)])
        self._keep(_Conversation(weakref.ref(model, self._model_is_gone), owner, new_keys, cache))
        return result

    def _cold(self, reason: str, generate, model, input_ids, pipeline, spans, features, kwargs: dict) -> Any:
        logger.debug("No prefix is reused: %s.", reason)
        self.last.reason = reason
        given = _model_inputs(pipeline, model, input_ids, kwargs.get("attention_mask"), spans, features)
        return generate(input_ids, **{**kwargs, **given})

    def _run(self, generate, model, input_ids, pipeline, spans, features, warm: DynamicCache | None, kwargs: dict) -> tuple:
        """(what `generate` returned, the cache that it filled)."""
        cache = DynamicCache(config=model.config.get_text_config(decoder=True)) if warm is None else warm
        start, end = cache.get_seq_length(), input_ids.shape[1]
        self.last = Reuse(end, start)
        given = _model_inputs(pipeline, model, input_ids, None, [*spans], [*features], start)
        if start and given and "inputs_embeds" not in given:
            if not takes(_whole(model).base_model, given):
                logger.debug("No prefix is reused: the model without its head would leave %s out.", ", ".join(given))
                return self._run(generate, model, input_ids, pipeline, spans, features, None, kwargs)
            self._prefill_whole(model, input_ids, given, cache, start, end - 1)
            given = {}
        elif start and (given or end - start > self.chunk):
            self._prefill(model, input_ids, given.get("inputs_embeds"), cache, start, end - 1)
            given = {}
        if start and kwargs.get("attention_mask") is None:
            # `generate` leaves out what stands in the cache only where a mask is as long as the prompt; the one that it would make
            # itself it makes for models whose `forward` names it.
            kwargs = {**kwargs, "attention_mask": torch.ones_like(input_ids)}
        return generate(input_ids, **{**kwargs, **given}, past_key_values=cache), cache

    @torch.no_grad()
    def _prefill(self, model, input_ids, embeds: torch.Tensor | None, cache: DynamicCache, start: int, end: int) -> None:
        """Put the ids from `start` to `end` into the cache, chunk by chunk; the head computes nothing."""
        decoder = model.get_decoder()
        for first in range(start, end, self.chunk):
            last = min(first + self.chunk, end)
            ids = {"input_ids": input_ids[:, first:last]}
            new = ids if embeds is None else {"inputs_embeds": embeds[:, first - start : last - start]}
            mask = torch.ones_like(input_ids[:, :last])
            decoder(**new, attention_mask=mask, past_key_values=cache, use_cache=True)

    @torch.no_grad()
    def _prefill_whole(
        self, model, input_ids, given: dict[str, torch.Tensor], cache: DynamicCache, start: int, end: int
    ) -> None:
        """Likewise through a whole multimodal model, which is given tensors of pictures, at once."""
        if end <= start:
            return
        if "position_ids" in given:
            given = {**given, "position_ids": given["position_ids"][..., : end - start]}
        mask = torch.ones_like(input_ids[:, :end])
        _whole(model).base_model(input_ids[:, start:end], attention_mask=mask, past_key_values=cache, use_cache=True, **given)

    def _take(self, model, owner: str, keys: np.ndarray, spans: Sequence[ImageSpan]) -> DynamicCache | None:
        """The cache with the longest common prefix, cut to it; what is taken is not kept until it comes back."""
        with self._lock:
            self._conversations = [kept for kept in self._conversations if kept.model() is not None]
            best, length = None, 0
            for kept in reversed(self._conversations):
                if kept.model() is model and kept.owner == owner:
                    common = common_length(kept.keys, keys, spans)
                    if common > length:
                        best, length = kept, common
            if best is None:
                return None
            self._conversations.remove(best)
            lost = len(best.keys) - length
            if (
                lost > length and 2 * best.num_bytes <= self.max_bytes
            ):  # another conversation that begins alike: it keeps its own
                self._conversations.append(best)
                return _copy(best.cache, length, model)
        if lost:
            best.cache.crop(-lost)
        return best.cache

    def _keep(self, conversation: _Conversation) -> None:
        with self._lock:
            if conversation.num_bytes > self.max_bytes:
                return
            self._conversations.append(conversation)
            while self.num_bytes > self.max_bytes:
                del self._conversations[0]

    def _model_is_gone(self, reference: weakref.ref) -> None:
        self._conversations = [kept for kept in self._conversations if kept.model is not reference]


def _whole(model: PreTrainedModel) -> PreTrainedModel:
    """The model inside a `PeftModel`."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def takes(module: torch.nn.Module, given: Mapping[str, Any]) -> bool:
    """Whether a forward names all of these: what goes into its `**kwargs` may be dropped without a word."""
    return set(given) <= set(inspect.signature(module.forward).parameters)


def position_keys(
    ids: Sequence[int], spans: Sequence[ImageSpan], pipeline: VisionPipeline | None, behind: np.ndarray | None = None
) -> np.ndarray:
    """What decides about the keys and values of each position, beside the positions before it.

    Args:
        ids: T ids.
        spans: where pictures stand.
        pipeline: says which positions depend on a picture that does not stand before them (`VisionPipeline.looks_at`).
        behind: keys of what stands before; these ids look at what its last position looks at.

    Returns:
        (T, 5) of int64: the id, or for positions of a picture the place in it (negative) and 128 bits of its content; then 128 bits
        of what is looked at elsewhere.
    """
    keys = np.zeros((len(ids), 5), np.int64)
    keys[:, 0] = ids
    for span in spans:
        keys[span.start : span.end, 0] = -1 - np.arange(span.length)
        keys[span.start : span.end, 1:3] = _digest(f"{span.image.key}:{span.length}")
    for start, end, what in () if pipeline is None else pipeline.looks_at(spans, len(ids)):
        keys[start:end, 3:] = _digest(what)
    if behind is not None and len(behind):
        keys[:, 3:] = behind[-1, 3:]
    return keys


def _digest(text: str) -> np.ndarray:
    """128 bits as two int64."""
    return np.frombuffer(hashlib.blake2b(text.encode(), digest_size=16).digest(), np.int64)


def common_length(kept: np.ndarray, keys: np.ndarray, spans: Sequence[ImageSpan]) -> int:
    """How long a prefix two prompts share: never a part of a picture, and never the whole of the second one."""
    length = min(len(kept), len(keys) - 1)
    differs = (kept[:length] != keys[:length]).any(-1)
    length = int(differs.argmax()) if differs.any() else length
    return next((span.start for span in spans if span.start < length < span.end), length)


def why_cold(
    model: PreTrainedModel,
    input_ids: torch.Tensor,
    pipeline: VisionPipeline | None,
    spans: Sequence[ImageSpan],
    features: Sequence[ImageFeatures],
    kwargs: dict[str, Any],
) -> str:
    """Why this call must not be served from a cache; empty when it may."""
    text_config = model.config.get_text_config(decoder=True)
    configs = (kwargs.get("generation_config"), model.generation_config)  # what the first leaves open is taken from the second

    def setting(name: str) -> Any:
        return kwargs.get(name, next((v for v in (getattr(each, name, None) for each in configs) if v is not None), None))

    keeps_prefix = None if pipeline is None else pipeline.keeps_prefix
    if keeps_prefix is None:
        keeps_prefix = not any(found.inputs for found in features)
    mask = kwargs.get("attention_mask")
    pad, eos = setting("pad_token_id"), setting("eos_token_id")
    is_pad_known = isinstance(pad, int) and pad not in (eos if isinstance(eos, (list, tuple)) else [eos])
    rope = getattr(text_config, "rope_parameters", None) or getattr(text_config, "rope_scaling", None) or {}
    checks = {
        "several rows": input_ids.ndim != 2 or input_ids.shape[0] != 1 or (setting("num_return_sequences") or 1) > 1,
        "an empty prompt": input_ids.shape[-1] < 2,
        "the caller has a cache of its own": kwargs.get("past_key_values") is not None,
        "no key/value cache": setting("use_cache") is False,
        "a cache of another kind": setting("cache_implementation") not in (None, "dynamic"),
        "beams": (setting("num_beams") or 1) > 1,
        "guidance": setting("guidance_scale") not in (None, 1, 1.0),
        "prompt lookup": bool(setting("prompt_lookup_num_tokens")),
        "an assistant model": kwargs.get("assistant_model") is not None,
        "an encoder-decoder": bool(getattr(model.config, "is_encoder_decoder", False)),
        "positions that are padded": mask is not None and not bool(mask.all()),
        # Without a mask `generate` takes padding ids for padding, wherever they stand.
        "padding ids without a mask": mask is None and is_pad_known and bool((input_ids == pad).any()),
        "rotary embeddings that depend on the length": _rope_types(rope) & DRIFTING_ROPE != set(),
        "cross-attention inside the model": bool(getattr(text_config, "cross_attention_layers", None)),
        "pictures that the family cannot go on from": bool(spans) and not keeps_prefix,
        "positions that hang on pictures": pipeline is None
        and hasattr(getattr(_whole(model), "base_model", None), "rope_deltas"),
        "the prompt ends in a picture": any(span.end >= input_ids.shape[-1] for span in spans),
        "a training model": model.training,
    }
    if found := next((reason for reason, holds in checks.items() if holds), ""):
        return found
    if not hasattr(model, "get_decoder"):
        return "a model without a decoder"
    layers = DynamicCache(config=text_config).layers
    if not all(type(layer) is DynamicLayer for layer in layers):
        return "layers whose cache cannot be cut"
    if "past_key_values" not in inspect.signature(model.get_decoder().forward).parameters:
        return "a decoder without a key/value cache"
    return ""


def _rope_types(rope: Any) -> set[str]:
    """The kinds of rotary embeddings in a configuration: of the model, or of each type of layer."""
    if not isinstance(rope, dict):
        return set()
    found = {rope[name] for name in ("rope_type", "type") if isinstance(rope.get(name), str)}
    return found.union(*map(_rope_types, rope.values()))


def fingerprint(model: PreTrainedModel, pipeline: VisionPipeline | None) -> str:
    """Of a model's weights as they are in memory, of its adapters as they are switched, and of the pipeline's."""
    own = weights_fingerprint(model.named_parameters(), model.modules())
    return f"{own}:{'' if pipeline is None else pipeline.fingerprint}"


def cache_bytes(cache: DynamicCache) -> int:
    """Bytes of the storages behind a cache."""
    tensors = [tensor for layer in cache.layers if layer.is_initialized for tensor in (layer.keys, layer.values)]
    return sum(tensor.untyped_storage().nbytes() for tensor in tensors)


def _copy(cache: DynamicCache, length: int, model: PreTrainedModel) -> DynamicCache:
    """The first `length` positions of a cache, in tensors of their own."""
    copied = DynamicCache(config=model.config.get_text_config(decoder=True))
    for index, layer in enumerate(cache.layers):
        if layer.is_initialized:
            copied.update(layer.keys[..., :length, :].clone(), layer.values[..., :length, :].clone(), index)
    return copied


def _model_inputs(pipeline, model, input_ids, mask, spans, features, cached: int = 0) -> dict[str, torch.Tensor]:
    if pipeline is None:
        return {}
    return pipeline.model_inputs(model, input_ids, mask, [list(spans)], [list(features)], cached)


class _Counter(StoppingCriteria):
    """Counts tokens and stops nothing."""

    count = 0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        self.count += 1
        return torch.zeros(len(input_ids), device=input_ids.device, dtype=torch.bool)


class _WithoutPrompt(BaseStreamer):
    """A streamer that has been given the prompt already."""

    def __init__(self, streamer: BaseStreamer):
        self._streamer = streamer
        self._is_prompt = True

    def put(self, value: torch.Tensor) -> None:
        if not self._is_prompt:
            self._streamer.put(value)
        self._is_prompt = False

    def end(self) -> None:
        self._streamer.end()
