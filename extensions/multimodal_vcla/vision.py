"""The vision model of the language model that is loaded: found, loaded when the first picture comes, gone when the model goes.

Nothing here keeps the language model alive. The web UI tells nobody when it loads or unloads a model, so every call asks
whether the one that is loaded is still the one the vision model was loaded for.
"""

import contextlib
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.base import ImagePart
from pipelines.prompt import Prompt, PromptEncoder
from pipelines.registry import FAMILIES, available_pipelines, find_family, is_whole, load_pipeline

from . import settings, webui
from .pictures import PictureError
from .texts import say

if TYPE_CHECKING:
    import torch

    from pipelines.base import ImageSpan, VisionPipeline
    from pipelines.embedder import PreparedPrompt


class VisionModel:
    """A vision model and what belongs to it: the cache of what it has seen, and the lengths of prompts.

    Args:
        pipeline: the loaded family.
        tokenizer: the language model's.
        device: where it lives.
        max_bytes: bound of the cache.
    """

    def __init__(self, pipeline: "VisionPipeline", tokenizer: Any, device: "torch.device", max_bytes: int):
        from pipelines.embedder import Embedder, ImageFeatureCache

        self.pipeline = pipeline = _Unchanging(pipeline)
        self.device = device
        token = tokenizer.convert_ids_to_tokens(pipeline.placeholder_token_id)
        self.placeholder = (
            token if token in getattr(tokenizer, "all_special_tokens", []) or _is_added(tokenizer, token) else None
        )
        tokenize = lru_cache(4096)(lambda text: tuple(tokenizer(text, add_special_tokens=False)["input_ids"]))
        probe = tokenizer("a")["input_ids"]
        self._adds_bos = tokenizer.bos_token_id is not None and probe[:1] == [tokenizer.bos_token_id]
        self._encoders = {
            add_bos: PromptEncoder(tokenizer, pipeline, add_bos, lambda text: list(tokenize(text))) for add_bos in (False, True)
        }
        self.cache = ImageFeatureCache(max_bytes)
        self.embedder = Embedder(self.encoder(), self.cache)

    def encoder(self, add_bos: bool = True) -> PromptEncoder:
        """The encoder that puts BOS in front as the web UI's `encode` does: when asked to, or when the tokenizer does."""
        return self._encoders[add_bos or self._adds_bos]

    def see(self, pictures: list[ImagePart]) -> None:
        """Encode what has not been seen yet.

        Args:
            pictures: all of a prompt.

        Raises:
            PictureError: a picture cannot be decoded.
        """
        self.embedder.image_features(self._spans(pictures))

    def costs(self, pictures: list[ImagePart]) -> list[int]:
        """How many tokens each of the pictures of a prompt takes, without its marks."""
        return [span.length for span in self._spans(pictures)]

    def _spans(self, pictures: list[ImagePart]) -> "list[ImageSpan]":
        return self.encoder().encode(Prompt(tuple(pictures))).image_spans

    def prepare(self, prompt: Prompt, language_model: Any, add_bos: bool, max_tokens: int) -> "PreparedPrompt":
        """Ids, and what the language model is given beside them; cut to a budget by whole parts."""
        truncated = self.encoder(add_bos).truncate(prompt, max_tokens)
        with self.pipeline.attach(language_model):
            return self.embedder.prepare_encoded(truncated.encoded, language_model, truncated)


def _is_added(tokenizer: Any, token: str) -> bool:
    return token in getattr(tokenizer, "get_added_vocab", dict)()


class _Unchanging:
    """A pipeline whose weights nobody changes, so that they are looked over once and not for every prompt."""

    def __init__(self, pipeline: "VisionPipeline"):
        self._pipeline = pipeline
        self.fingerprint = pipeline.fingerprint

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pipeline, name)


class _Loaded:
    """What is known about the model that was looked at last. One per process, as there is one model per process."""

    model: "weakref.ref | None" = None
    wanted: tuple = ()
    vision: VisionModel | None = None
    made_of: tuple = ()
    error: str | None = None
    is_loading = False


_loaded = _Loaded()
_lock = threading.RLock()
_lengths: "OrderedDict[int, int]" = OrderedDict()


def current() -> VisionModel:
    """The vision model of the loaded model, loading it when it is new.

    Raises:
        PictureError: it has none, or it cannot be loaded; the reason is remembered until the model or a setting changes.
    """
    model = webui.model()
    if model is None:
        raise PictureError(say("blind", reason=say("no_model")))
    wanted = _wanted()
    with _lock:
        if not (_loaded.model is not None and _loaded.model() is model and _loaded.wanted == wanted):
            _loaded.error = None
            try:
                _look(model)
            except Exception as error:
                _forget_vision()
                _loaded.error = say("blind", reason=error)
                webui.logger.warning("%s", _loaded.error)
            _loaded.model = weakref.ref(model, _model_is_gone)
            _loaded.wanted = wanted
        if _loaded.error is not None:
            raise PictureError(_loaded.error)
        return _loaded.vision


def whole() -> VisionModel | None:
    """That of the loaded model where this is a whole one, which takes pictures itself; None for others, and where it cannot."""
    folder = webui.model_folder()
    if folder is None or not _holds_whole(folder):
        return None
    webui.wake_model()
    try:
        return current()
    except PictureError:
        return None


def look_if_whole() -> None:
    """Look at a whole model that is loaded before its first picture comes: no weights are read for it, and its prices are known."""
    folder = webui.model_folder()
    if webui.model() is not None and webui.is_ours_to_serve() and folder is not None and _holds_whole(folder):
        with contextlib.suppress(PictureError):  # the reason is remembered, and `status` gives it
            current()


def look_again() -> None:
    """Forget what was found out, so that the next call looks anew."""
    with _lock:
        _forget_vision()
        _loaded.model, _loaded.error = None, None


def status() -> tuple[str, VisionModel | None, str | None]:
    """For the panel, without loading anything: "none", "waiting", "loading", "ready" or "blind"; the vision model; the reason."""
    model = webui.model()
    if model is None:
        return "none", None, None
    if _loaded.is_loading:
        return "loading", None, None
    is_known = _loaded.model is not None and _loaded.model() is model and _loaded.wanted == _wanted()
    if is_known and _loaded.error is not None:
        return "blind", None, _loaded.error
    if is_known and _loaded.vision is not None:
        return "ready", _loaded.vision, None
    try:
        _find_folder()
    except Exception as error:
        return "blind", None, say("blind", reason=error)
    return "waiting", None, None


def length(text: str, to_prompt: Callable[[VisionModel], Prompt]) -> int | None:
    """The exact length of a prompt with pictures, as remembered where there is no tokenizer; None when it cannot be known.

    Args:
        text: the prompt.
        to_prompt: its parts.
    """
    key = hash((text, settings.get("max_pixels"), settings.get("use_tiles")))
    if webui.tokenizer() is None:
        return _lengths.get(key)
    try:
        vision = current()
    except PictureError:
        return None
    num_tokens = vision.encoder().length(to_prompt(vision))
    _lengths[key] = num_tokens
    while len(_lengths) > 4096:
        _lengths.popitem(last=False)
    return num_tokens


def _wanted() -> tuple:
    names = (
        "eyes", "pipeline", "vision_device", "vision_bits", "projector_device", "projector_bits", "max_pixels", "use_tiles", "cache_mb"
    )  # fmt: skip
    return (webui.model_name(), id(webui.tokenizer()), *(settings.get(name) for name in names))


def _look(model: Any) -> None:
    folder, family = _find_folder()
    where, how = _device_and_dtype(model, "vision")
    if is_inside := family == "native":  # its vision part is where the model is
        where = model.get_input_embeddings().weight.device
    weights = sorted((path.name, path.stat().st_mtime_ns) for path in (folder / "vision").glob("*") if path.is_file())
    made_of = (folder, str(where), str(how), tuple(weights), *_wanted()[1:])
    if _loaded.vision is None or _loaded.made_of != made_of:
        _forget_vision()
        _loaded.is_loading = True
        webui.logger.info("%s", say("loading", name=folder.name))
        try:
            pipeline = load_pipeline(folder, family, device=where, dtype=how)
            if not is_inside:
                _place_projector(pipeline, model)
            pipeline.limit_pictures(settings.max_pixels(), settings.use_tiles())
            vision = VisionModel(pipeline, webui.tokenizer(), where, int(settings.number("cache_mb", 0) * 2**20))
        finally:
            _loaded.is_loading = False
        _check(pipeline, model)
        _loaded.vision, _loaded.made_of = vision, made_of


def folders() -> list[Path]:
    """Where the vision model of the loaded model may be: its own folder before the one that is set."""
    own, given = webui.model_folder(), settings.get("eyes")
    wanted = [own] if own is not None else []
    if given:
        wanted += [Path(given), webui.models_folder() / given]
    return [folder for folder in wanted if folder.is_dir()]


def _holds_whole(folder: Path) -> bool:
    config = folder / "config.json"
    return config.is_file() and _is_whole(folder, config.stat().st_mtime_ns)


@lru_cache(maxsize=8)
def _is_whole(folder: Path, changed_ns: int) -> bool:
    try:
        return is_whole(folder)
    except ValueError:  # the configuration cannot be read; whoever needs it says so
        return False


def _find_folder() -> tuple[Path, str | None]:
    """Where the vision model of the loaded model is, and of which family, where that is set.

    Raises:
        ValueError: nowhere.
    """
    own = webui.model_folder()
    if own is not None and _holds_whole(own):
        return own, "native"
    for folder in folders():
        if find_family(folder) is not None:
            return folder, None
    name = settings.get("pipeline") or None
    if own is not None and (name or len(available_pipelines()) > len(FAMILIES)):  # pipelines of the former extension
        return own, name
    raise ValueError(say("no_eyes", model=webui.model_name(), families=", ".join(FAMILIES)))


def _device_and_dtype(model: Any, part: str) -> "tuple[torch.device, torch.dtype]":
    """Where it lives and how precisely: as set, else beside the language model's embeddings, in 32 bits on a CPU."""
    import torch

    embeddings = model.get_input_embeddings().weight
    where = torch.device(settings.device(f"{part}_device") or embeddings.device)
    bits = settings.bits(f"{part}_bits") or (32 if where.type == "cpu" else 16)
    half = embeddings.dtype if embeddings.dtype in (torch.float16, torch.bfloat16) else torch.float16
    if where.type == "cpu" and bits == 16:
        half = torch.bfloat16
    return where, torch.float32 if bits == 32 else half


def _place_projector(pipeline: "VisionPipeline", model: Any) -> None:
    """Move what stands behind the vision encoder, where `projector_*` is set."""
    if settings.device("projector_device") is None and settings.bits("projector_bits") is None:
        return
    where, how = _device_and_dtype(model, "projector")
    pipeline.move_projector(where, how)


def _check(pipeline: "VisionPipeline", model: Any) -> None:
    """Does this vision model belong to this language model?

    Raises:
        ValueError: the widths differ, or the placeholder is no token that a prompt may hold.
    """
    rows, width = model.get_input_embeddings().weight.shape[0], _width(model)
    if pipeline.embedding_width not in (None, width):
        raise ValueError(
            f"{pipeline.name} gives embeddings of width {pipeline.embedding_width}, but the width of {webui.model_name()!r} is "
            f"{width}: this vision model belongs to another language model."
        )
    if not 0 <= pipeline.placeholder_token_id < rows:
        raise ValueError(
            f"{pipeline.name} uses the token {pipeline.placeholder_token_id}, but {webui.model_name()!r} has {rows} embeddings."
        )
    padding = getattr(getattr(model, "generation_config", None), "pad_token_id", None)
    if pipeline.placeholder_token_id == padding:
        raise ValueError(f"{pipeline.name} uses the padding token {padding} for pictures, which generation masks.")


def _width(model: Any) -> int:
    embeddings = model.get_input_embeddings()
    return getattr(embeddings, "embedding_dim", None) or embeddings.weight.shape[-1]


def _model_is_gone(reference: "weakref.ref") -> None:
    """Runs when the model is collected, on whatever thread: no lock, one assignment."""
    if _loaded.model is reference:
        _forget_vision()


def _forget_vision() -> None:
    _loaded.vision, _loaded.made_of = None, ()
