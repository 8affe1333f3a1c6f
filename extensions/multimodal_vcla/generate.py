"""One wrapper around the `generate` of the model that is loaded: where what no hook carries reaches it.

The web UI's hook carries ids and embeddings only. What a prompt's pictures are is left here under a digest of the ids that the hook
returned, and taken by the ids that `generate` is called with: never by thread, and once only. Here, too, the keys and values of what
was in a chat before are kept (`pipelines/prefix_cache.py`).
"""

import functools
import hashlib
import threading
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import settings

if TYPE_CHECKING:
    from torch import Tensor

    from pipelines.base import VisionPipeline
    from pipelines.embedder import PreparedPrompt
    from pipelines.prefix_cache import PrefixCache, Reuse

_WRAPPED = "_multimodal_vcla_wrapped"
_MAX_WAITING = 64

_lock = threading.Lock()
_waiting: "dict[str, Waiting]" = {}
_prefixes: "PrefixCache | None" = None


@dataclass
class Waiting:
    """A prompt with pictures on its way to `generate`.

    Attributes:
        pipeline: the family.
        prepared: ids, spans, features.
        is_taken: `generate` has been called with it.
    """

    pipeline: "VisionPipeline"
    prepared: "PreparedPrompt"
    is_taken: bool = False


def leave(model: Any, pipeline: "VisionPipeline", prepared: "PreparedPrompt") -> Waiting:
    """Leave a prompt for the `generate` of its ids.

    Args:
        model: the one that is loaded; its `generate` is wrapped at the first call, on this object alone.
    """
    wrap(model)
    waiting = Waiting(pipeline, prepared)
    with _lock:
        _waiting[digest(prepared.input_ids)] = waiting
        while len(_waiting) > _MAX_WAITING:  # requests that were given up before their generation began
            del _waiting[next(iter(_waiting))]
    return waiting


def digest(input_ids: "Tensor") -> str:
    """128 bits that name ids."""
    return hashlib.blake2b(input_ids.detach().cpu().contiguous().numpy().tobytes(), digest_size=16).hexdigest()


def _take(input_ids: Any) -> Waiting | None:
    if not _waiting or input_ids is None:
        return None
    with _lock:
        waiting = _waiting.pop(digest(input_ids), None)
    if waiting is not None:
        waiting.is_taken = True
    return waiting


def wrap(model: Any) -> None:
    """Wrap the `generate` of a model, on this object alone; once."""
    if _WRAPPED in vars(model):
        return
    if _prefixes is not None:
        _prefixes.clear()  # what is kept is of the model before
    holder = weakref.ref(model)
    before = vars(model).get("generate")  # somebody else's wrapper
    original = before or (lambda *args, **kwargs: type(holder()).generate(holder(), *args, **kwargs))

    @functools.wraps(type(model).generate)
    def generate(inputs: Any = None, *args: Any, **kwargs: Any) -> Any:
        waiting, model = _take(inputs), holder()
        if waiting is None:
            is_text = inputs is not None and not args and kwargs.get("inputs_embeds") is None
            if is_text and settings.get("prefix_cache_text"):
                return prefixes("prefix_cache_text").generate(original, model, inputs, **kwargs)
            return original(inputs, *args, **kwargs)
        prepared = waiting.prepared
        model.last_prompt_token_count = prepared.input_ids.shape[
            -1
        ]  # the web UI counted before the pictures were in the prompt
        with waiting.pipeline.attach(model):
            if args:
                given = waiting.pipeline.model_inputs(model, inputs, None, [prepared.image_spans], [prepared.features])
                return original(inputs, *args, **{**kwargs, **given})
            kwargs.pop("inputs_embeds", None)  # asked for again, for as much of the prompt as is new
            return prefixes("prefix_cache").generate(
                original, model, inputs, waiting.pipeline, prepared.image_spans, prepared.features, **kwargs
            )

    model.generate = generate
    setattr(model, _WRAPPED, True)


def prefixes(setting: str) -> "PrefixCache":
    """What keeps keys and values where a setting is on; else one that keeps nothing."""
    global _prefixes
    from pipelines.prefix_cache import PrefixCache

    if _prefixes is None:
        _prefixes = PrefixCache()
    _prefixes.max_bytes = int(settings.number("prefix_cache_mb", 0) * 2**20)
    return _prefixes if settings.get(setting) else PrefixCache(max_bytes=0)


def last_reuse() -> "Reuse | None":
    """How the last prompt was served; None before the first one."""
    return None if _prefixes is None else _prefixes.last
