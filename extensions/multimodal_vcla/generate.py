"""One wrapper around the `generate` of the model that is loaded: where what no hook carries reaches it.

The web UI's hook carries ids and embeddings only. What a prompt's pictures are is left here under a digest of the ids that the hook
returned, and taken by the ids that `generate` is called with: never by thread, and once only.
"""

import functools
import hashlib
import threading
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from pipelines.base import VisionPipeline
    from pipelines.embedder import PreparedPrompt

_WRAPPED = "_multimodal_vcla_wrapped"
_MAX_WAITING = 64

_lock = threading.Lock()
_waiting: "dict[str, Waiting]" = {}


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
    if _WRAPPED not in vars(model):
        _wrap(model)
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


def _wrap(model: Any) -> None:
    holder = weakref.ref(model)
    before = vars(model).get("generate")  # somebody else's wrapper
    original = before or (lambda *args, **kwargs: type(holder()).generate(holder(), *args, **kwargs))

    @functools.wraps(type(model).generate)
    def generate(inputs: Any = None, *args: Any, **kwargs: Any) -> Any:
        waiting = _take(inputs)
        if waiting is None:
            return original(inputs, *args, **kwargs)
        prepared, model = waiting.prepared, holder()
        with waiting.pipeline.attach(model):
            given = waiting.pipeline.model_inputs(model, inputs, None, [prepared.image_spans], [prepared.features])
            return original(inputs, *args, **{**kwargs, **given})

    model.generate = generate
    setattr(model, _WRAPPED, True)
