"""The processor of a model folder, for pictures: its part for videos is never made, and torchvision may be absent.

Transformers' processors of models that take videos too cannot be made without torchvision, and some not with it either (LLaVA-NeXT-Video
without a `video_preprocessor_config.json` looks for its own part for ever); without it 5.6 finds no image processor by itself. Pictures
need neither: image processors exist for Pillow.
"""

import importlib
import json
import os
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import transformers
from transformers import AutoConfig, AutoFeatureExtractor, ProcessorMixin
from transformers.models.auto.image_processing_auto import AutoImageProcessor
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
from transformers.utils import is_torchvision_available

_constructing = threading.Lock()

TEMPLATES = {
    "paligemma": (
        "{% for m in messages %}{% if m['content'] is not string %}{% for item in m['content'] %}{% if item['type'] == 'image' %}"
        "{{ '<image>' }}{% endif %}{% endfor %}{% endif %}{% endfor %}{{ bos_token }}"
        "{% for m in messages %}{% if m['content'] is string %}{{ m['content'] }}{% else %}"
        "{% for item in m['content'] %}{% if item['type'] == 'text' %}{{ item['text'] }}{% endif %}{% endfor %}{% endif %}"
        "{{ '\\n' }}{% endfor %}"
    ),
}
"""`model_type` of models that were published without a chat template, to one that writes what their processors make of a prompt."""


class NoVideo:
    """Stands where a processor keeps its part for videos: holds the settings, processes nothing.

    Args:
        settings: of `video_preprocessor_config.json`.
    """

    model_input_names: list[str] = []
    _auto_class = None

    def __init__(self, settings: dict[str, Any]):
        self.settings = settings

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "settings":
            raise AttributeError(name)
        return self.settings.get(name)

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        raise ValueError("Videos are not taken, only pictures.")

    def save_pretrained(self, folder: str | os.PathLike, **kwargs: Any) -> None:
        """Write the settings back."""
        path = Path(folder) / "video_preprocessor_config.json"
        path.write_text(json.dumps(self.settings, indent=2), encoding="utf-8")

    def fetch_videos(self, *args: Any, **kwargs: Any) -> None:
        self()


_ASK_FOR_TYPES = frozenset(("cosmos3_edge",))
"""`model_type` of models that want to be told which ids stand for pictures, by a processor that says so only when asked."""


class _SaysTypes:
    """Put before a processor's class: asked always."""

    def __call__(self, *args, **kwargs):
        return super().__call__(*args, **{"return_mm_token_type_ids": True, **kwargs})


class _PicturesOnly:
    """Put before a processor's class: its part for videos is a `NoVideo`."""

    @classmethod
    def _get_arguments_from_pretrained(cls, folder, processor_dict=None, **kwargs):
        given = {key: value for key, value in kwargs.items() if key != "subfolder"}
        makers = {
            "image_processor": lambda: _image_processor(Path(folder), given),
            "tokenizer": lambda: cls._load_tokenizer_from_pretrained("tokenizer", folder, **given),
            "feature_extractor": lambda: AutoFeatureExtractor.from_pretrained(folder, **given),
            "video_processor": lambda: NoVideo(_settings(Path(folder), "video_preprocessor_config.json")),
        }
        unknown = [name for name in cls.get_attributes() if name not in makers]
        if unknown:
            raise ValueError(f"{cls.__name__} has parts that are not known here: {', '.join(unknown)}.")
        return [makers[name]() for name in cls.get_attributes()]

    def to_dict(self, *args, **kwargs):
        return {name: value for name, value in super().to_dict(*args, **kwargs).items() if not isinstance(value, NoVideo)}

    def check_argument_for_proper_class(self, name, argument):
        return NoVideo if isinstance(argument, NoVideo) else super().check_argument_for_proper_class(name, argument)


def load_processor(folder: str | os.PathLike) -> ProcessorMixin:
    """The processor of a model folder, whose code is never run.

    Raises:
        ValueError: it has none that transformers knows, or none that takes pictures.
    """
    folder = Path(folder)
    given = {"trust_remote_code": False, "local_files_only": True}
    model_type = _settings(folder, "config.json").get("model_type")
    cls = processor_class(folder)
    if getattr(cls, "is_dummy", False) and cls.__name__ == "PixtralProcessor":
        cls = _pixtral_without_torchvision()
    if getattr(cls, "is_dummy", False):
        raise ValueError(
            f"{cls.__name__} needs torchvision: pip install torchvision, in the version that belongs to this torch."
        )
    if not is_torchvision_available() or "video_processor" in cls.get_attributes():
        cls = type(cls.__name__, (_PicturesOnly, cls), {"__module__": cls.__module__})
    if model_type in _ASK_FOR_TYPES:
        cls = type(cls.__name__, (_SaysTypes, cls), {"__module__": cls.__module__})
    try:
        with _constructing, _Spelled(cls):
            processor = cls.from_pretrained(folder, **given)
    except (OSError, ImportError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"The processor of {str(folder)!r} cannot be loaded: {error}") from error
    if getattr(processor, "image_processor", None) is None:
        raise ValueError(f"The processor of {str(folder)!r} takes no pictures ({type(processor).__name__}).")
    if not (processor.chat_template or processor.tokenizer.chat_template):
        processor.chat_template = TEMPLATES.get(model_type)
    return processor


def _pixtral_without_torchvision() -> type[ProcessorMixin]:
    """Of its image processor's module it needs one function, which the one for Pillow has as well."""
    package = "transformers.models.pixtral"
    with _constructing:
        name = f"{package}.image_processing_pixtral"
        sys.modules[name] = importlib.import_module(f"{package}.image_processing_pil_pixtral")
        try:
            return importlib.import_module(f"{package}.processing_pixtral").PixtralProcessor
        finally:
            del sys.modules[name]


def _image_processor(folder: Path, given: dict[str, Any]) -> Any:
    """A folder's image processor; without torchvision the one for Pillow, from its own module: 5.6 believes that some of them need it."""
    name = f"{_settings(folder, 'preprocessor_config.json').get('image_processor_type')}".removesuffix("Fast") + "Pil"
    known = None if is_torchvision_available() else getattr(transformers, name, None)
    found = None if known is None else getattr(importlib.import_module(known.__module__), name)
    return (found or AutoImageProcessor).from_pretrained(folder, **given)


def processor_class(folder: Path) -> type[ProcessorMixin]:
    """Transformers' class of a folder's processor.

    Raises:
        ValueError: there is none.
    """
    for name in ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json"):
        found = getattr(transformers, str(_settings(folder, name).get("processor_class")), None)
        if isinstance(found, type) and (issubclass(found, ProcessorMixin) or getattr(found, "is_dummy", False)):
            return found
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    if type(config) not in PROCESSOR_MAPPING:
        raise ValueError(f"transformers knows no processor for models of type {config.model_type!r}.")
    return PROCESSOR_MAPPING[type(config)]


def _settings(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


class _Spelled:
    """While a processor is made, a package that spells the number of a video's frames counts as there: pictures need none."""

    def __init__(self, cls: type):
        modules = (sys.modules.get(each.__module__) for each in cls.__mro__)
        self.modules: list[ModuleType] = [module for module in modules if getattr(module, "num2words", self) is None]

    def __enter__(self) -> None:
        for module in self.modules:
            module.num2words = str

    def __exit__(self, *error: object) -> None:
        for module in self.modules:
            module.num2words = None
