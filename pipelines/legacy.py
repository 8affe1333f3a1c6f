"""Pipelines written for the web UI's removed extension `multimodal`: dropped into this folder, they work unchanged.

Such a pipeline is a folder with a `pipelines.py` that has `available_pipelines`, `get_pipeline(name, params)` and
`get_pipeline_from_model_name(model_name, params)`, and gives objects that subclass `AbstractMultimodalPipeline`. What they
import of the web UI (`modules.*`) is found there when they run in it; the module of their contract, which the web UI no
longer has, stands in `sys.modules` while they are imported and loaded.

The contract, restated: oobabooga/text-generation-webui, extensions/multimodal/DOCS.md, commit 598568b1.
"""

import importlib
import itertools
import logging
import os
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from .base import ImageFeatures, VisionPipeline
from .json_files import read_json

if TYPE_CHECKING:
    import torch
    from PIL import Image

HERE = Path(__file__).parent
CONTRACT = "extensions.multimodal.abstract_pipeline"

logger = logging.getLogger(__name__)
_lock = threading.RLock()
_numbers = itertools.count()


class AbstractMultimodalPipeline(ABC):
    """What an old pipeline subclasses. It also had to have `embed_tokens` and `placeholder_embeddings`: nobody calls them now."""

    @staticmethod
    @abstractmethod
    def name() -> str: ...

    @staticmethod
    @abstractmethod
    def image_start() -> str | None: ...

    @staticmethod
    @abstractmethod
    def image_end() -> str | None: ...

    @staticmethod
    @abstractmethod
    def placeholder_token_id() -> int: ...

    @staticmethod
    @abstractmethod
    def num_image_embeds() -> int: ...

    @abstractmethod
    def embed_images(self, images: "list[Image.Image]") -> "torch.Tensor": ...

    def _get_device(self, setting_name: str, params: dict[str, Any]) -> "torch.device":
        import torch

        best = "cuda:0" if torch.cuda.is_available() else "xpu:0" if torch.xpu.is_available() else "cpu"
        return torch.device(best if params[setting_name] is None else params[setting_name])

    def _get_dtype(self, setting_name: str, params: dict[str, Any]) -> "torch.dtype":
        import torch

        return torch.float32 if int(params[setting_name]) == 32 else torch.float16


class LegacyPipeline(VisionPipeline):
    """An old pipeline as a `VisionPipeline`.

    Tokens are embedded by the language model's own embeddings, whatever wraps it, and not by the old object.

    Args:
        old: the object that `get_pipeline` gave.
        name: what it is called here; old objects do not always know the name that they are listed under.
        language_model_folder: whose `config.json` tells the embedding width and the padding token.

    Raises:
        RuntimeError: the old object failed.
        ValueError: the folder's configuration does not tell the width.
    """

    image_mark = "<image>"

    def __init__(self, old: AbstractMultimodalPipeline, name: str, language_model_folder: str | os.PathLike):
        self._old = old
        self.name = name
        self.fingerprint_number = next(_numbers)  # its weights never change, and another object may have others
        with _errors_of(name):
            self.image_start = old.image_start() or ""
            self.image_end = old.image_end() or ""
            self.num_image_embeds = int(old.num_image_embeds())
            placeholder = int(old.placeholder_token_id())
        config = read_json(Path(language_model_folder) / "config.json")
        config = {**config, **config.get("text_config", {})}
        if "hidden_size" not in config:
            raise ValueError(f"'config.json' of {os.fspath(language_model_folder)!r} has no hidden_size, which {name!r} needs.")
        self.embedding_width = config["hidden_size"]
        # Old pipelines may take <unk>, which is the padding token of many language models: `generate` masks it today.
        tokens = {**config, **read_json(Path(language_model_folder) / "generation_config.json")}
        is_masked = placeholder == tokens.get("pad_token_id") and isinstance(tokens.get("bos_token_id"), int)
        self.placeholder_token_id = tokens["bos_token_id"] if is_masked else placeholder

    @property
    def fingerprint(self) -> str:
        return f"{self.name}:{self.fingerprint_number}"

    def image_ids(self, sizes, tokenizer) -> list[list[int]]:
        return [[self.placeholder_token_id] * self.num_image_embeds for _ in sizes]

    def encode_images(self, images: "list[Image.Image]", lengths: object = None) -> list[ImageFeatures]:
        import torch

        if not images:
            raise ValueError(f"{self.name}: there are no pictures to encode; give at least one.")
        with torch.no_grad(), _errors_of(self.name):
            features = self._old.embed_images([image.convert("RGB") for image in images])
            features = features if isinstance(features, torch.Tensor) else torch.stack(list(features))
        expected = (len(images), self.num_image_embeds, self.embedding_width)
        if tuple(features.shape) != expected:
            raise ValueError(
                f"{self.name} gave embeddings of shape {tuple(features.shape)}, expected {expected} (pictures, embeddings per "
                "picture, width of the language model): it was made for another language model."
            )
        return [ImageFeatures(embeds=embeds.clone()) for embeds in features]


def available_pipelines() -> dict[str, str]:
    """Names that `load_pipeline` takes, each with the folder that brings it."""
    return {name: folder for folder, module in _modules().items() for name in getattr(module, "available_pipelines", ())}


def broken_pipelines() -> dict[str, str]:
    """Folders whose `pipelines.py` cannot be imported, each with the reason."""
    found = _modules().items()
    return {folder: f"{type(error).__name__}: {error}" for folder, error in found if isinstance(error, Exception)}


def load_pipeline(
    folder: str | os.PathLike,
    name: str | None = None,
    device: "torch.device | str | None" = None,
    dtype: "torch.dtype | str | None" = None,
) -> LegacyPipeline | None:
    """The old pipeline of that name, or, without a name, the first that knows the model folder by its name.

    Args:
        folder: of the language model.
        name: one of `available_pipelines()`.
        device: for the old settings `vision_device` and `projector_device`; the CPU when absent.
        dtype: for `vision_bits` and `projector_bits`: 16 for a dtype of 16 bits, 32 otherwise.

    Returns:
        None when there is none.

    Raises:
        RuntimeError: the old code failed.
        ValueError: see `LegacyPipeline`.
    """
    device, bits = str(device or "cpu"), 16 if str(dtype).rpartition(".")[2] in ("float16", "bfloat16") else 32
    params = {"vision_device": device, "projector_device": device, "vision_bits": bits, "projector_bits": bits}
    params["add_all_images_to_prompt"] = True
    for source, module in _modules().items():
        get, wanted = ("get_pipeline", name) if name else ("get_pipeline_from_model_name", Path(folder).resolve().name.lower())
        if not hasattr(module, get) or (name and name not in module.available_pipelines):
            continue
        with _errors_of(name or source), _contract():
            old = getattr(module, get)(wanted, params)
            found = name or (old and old.name())
        if old is not None:
            return LegacyPipeline(old, found, folder)
    return None


def _modules() -> dict[str, ModuleType | Exception]:
    """Folder name to its `pipelines.py`, or to the reason why that cannot be imported."""
    files = sorted(HERE.glob("*/pipelines.py"))
    return {file.parent.name: _module(file.parent.name, file.stat().st_mtime_ns) for file in files}


@lru_cache(maxsize=64)  # what is broken is tried, and complained of, again when its file changes
def _module(folder: str, changed_ns: int) -> ModuleType | Exception:
    try:
        with _contract():
            return importlib.import_module(f".{folder}.pipelines", __package__)
    except Exception as error:
        logger.warning("%s cannot be used: %s: %s", HERE / folder / "pipelines.py", type(error).__name__, error)
        return error


@contextmanager
def _contract() -> Iterator[None]:
    """Offers the contract's old module where the real one is not; afterwards it is gone again."""
    with _lock:
        try:
            importlib.import_module(CONTRACT)
        except ModuleNotFoundError as error:
            if not f"{CONTRACT}.".startswith(f"{error.name}."):
                raise
            sys.modules[CONTRACT] = module = ModuleType(CONTRACT)
            module.AbstractMultimodalPipeline = AbstractMultimodalPipeline
            try:
                yield
            finally:
                sys.modules.pop(CONTRACT, None)
        else:
            yield


@contextmanager
def _errors_of(name: str) -> Iterator[None]:
    """Names the pipeline in whatever its code raises."""
    try:
        yield
    except Exception as error:
        raise RuntimeError(f"The old pipeline {name!r} failed: {type(error).__name__}: {error}") from error
