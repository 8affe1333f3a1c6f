"""Which family does a model folder, or a loaded model, belong to. Families are imported when they are needed, not before.

A family is a package beside this file; what it declares is in README.md. Folders with a `pipelines.py` of the web UI's old
extension count too: see `legacy.py`.
"""

import contextlib
import importlib
import inspect
import os
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from . import legacy
from .base import VisionPipeline
from .chat_template import check_chat_template
from .checkpoints.formats import refuse_foreign
from .json_files import read_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import torch
    from transformers import GenerationConfig, PreTrainedModel, ProcessorMixin

    from .checkpoints.merging import Merging
    from .fixed_length import PromptSide

FAMILIES: dict[str, str] = {
    "visualcla": "VisualCLA: CLIP or SigLIP, resampler, linear projector",
    "mplug_owl": "mPLUG-Owl and LRV-Instruction V2: CLIP, abstractor, LLaMA",
    "minigpt4": "MiniGPT-4 and LRV-Instruction V1: EVA-CLIP, Q-Former, Vicuna or LLaMA-2",
    "llava": "LLaVA 1 and 1.5: CLIP, linear or two-layer projector, LLaMA or any language model",
    "open_flamingo": "OpenFlamingo v1 and Multimodal-GPT: CLIP, perceiver resampler, gated cross-attention in LLaMA",
    "native": "image-text-to-text models of transformers, such as Qwen2.5-VL, Gemma 3, SmolVLM",
}
"""Family id (the name of its package) to a line for the user."""

MODEL_TYPES: dict[str, str] = {
    "visualcla": "visualcla",
    "mplug_owl": "mplug_owl",
    "mplug-owl": "mplug_owl",
    "minigpt4": "minigpt4",
    "llava": "llava",
    "llava_llama": "llava",
    "open_flamingo": "open_flamingo",
}
"""`model_type` of a configuration to the family."""

MAX_LAYERS = 1000
LAYERS = re.compile(r"(^|_)(n_layers?|num_\w*layers|depth)$")
"""Keys of a configuration that say how many layers there are."""

NUMBERS = re.compile(
    r"^((max|min)_(length|new_tokens)|pad_token_id|no_repeat_ngram_size|num_(beams|return_sequences)"
    r"|(repetition|length|diversity)_penalty|temperature|(top|min|typical)_[kp])$"
)
"""Settings of a generation that are numbers."""

PICKLES: dict[str, str] = {
    "*.pth": "minigpt4",
    "*.pt": "open_flamingo",
    "mm_projector*.bin": "llava",
    "non_lora_trainables.bin": "llava",
}
"""Pattern of files, which have no configuration, to the family whose package tells by `is_published(path)` whether they are its own."""


MERGED_BY_DEFAULT = "visualcla"
"""The family that a language model, a vision encoder and an adapter become where nothing says which."""


def family(name: str) -> ModuleType:
    """The package of a family.

    Raises:
        ValueError: there is no such family.
    """
    if name not in FAMILIES:
        raise ValueError(f"Unknown family {name!r}. Available: {', '.join(map(repr, FAMILIES))}.")
    return importlib.import_module(f".{name}", __package__)


def is_native(model_type: str | None) -> bool:
    """Whether transformers, where it is installed, has an image-text-to-text model of that type."""
    try:
        from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    except ImportError:
        return False

    return model_type in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES


def find_family(folder: str | os.PathLike) -> str | None:
    """The family whose vision model a folder holds; None when it holds none that is known.

    Told by the configuration; where there is none, by what is in the files that a family was published as.

    Args:
        folder: a model folder, or one such file.
    """
    for file_name in ("vision/config.json", "config.json"):
        path = Path(folder) / file_name
        if path.is_file():
            stored = read_json(path)
            model_type = stored.get("model_type")
            if isinstance(model_type, str) and model_type in MODEL_TYPES:
                return MODEL_TYPES[model_type]
            if (
                file_name == "config.json"
                and any("vision" in key or "image_token" in key for key in stored)
                and is_native(model_type)
            ):
                return "native"
    path = Path(folder)
    for pattern, name in PICKLES.items():
        if (path.match(pattern) if path.is_file() else any(path.glob(pattern))) and family(name).is_published(path):
            return name
    return None


def check_layers(folder: str | os.PathLike) -> None:
    """Refuse configurations with more layers than any model has, before somebody makes them.

    Raises:
        ValueError: there is such a configuration, or one that is no JSON object.
    """

    def most(values: Any) -> int:
        if not isinstance(values, dict):
            return 0
        own = [value for key, value in values.items() if LAYERS.search(key) and isinstance(value, int)]
        return max([*own, *map(most, values.values())], default=0)

    for place in ("", "vision", "text_encoder", "vision_encoder"):
        path = Path(folder) / place / "config.json"
        if (count := most(read_json(path))) > MAX_LAYERS:
            raise ValueError(f"{str(path)!r} says {count} layers; no model has more than {MAX_LAYERS}. Copy the file again.")


def available_pipelines() -> list[str]:
    """What `load_pipeline` takes as `name`: the families, and the old pipelines that were dropped in."""
    return [*FAMILIES, *legacy.available_pipelines()]


def load_pipeline(
    folder: str | os.PathLike,
    name: str | None = None,
    device: "torch.device | str | None" = None,
    dtype: "torch.dtype | str | None" = None,
) -> VisionPipeline:
    """Load the vision model of a model folder, for a language model that somebody else runs.

    Args:
        folder: a model folder that holds a vision model (see pipelines/README.md), or, for an old pipeline, the language model's.
        name: one of `available_pipelines()`; found out from the folder when absent, by its configuration or, for an old
            pipeline, by its name.
        device: where pictures are encoded; the CPU when absent.
        dtype: precision of the vision model; as stored when absent.

    Raises:
        FileNotFoundError: the folder does not exist.
        ValueError: it holds no vision model of a known family, or `name` is unknown.
        RuntimeError: an old pipeline failed.
    """
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"{os.fspath(folder)!r} is not a folder.")
    check_layers(folder)
    found = name or find_family(folder)
    if found in FAMILIES:
        with _in_one_kind_of_error(folder):
            return family(found).load_pipeline(folder, device=device, dtype=dtype)
    pipeline = legacy.load_pipeline(folder, name, device=device, dtype=dtype)
    if pipeline is not None:
        return pipeline
    available = ", ".join(map(repr, available_pipelines()))
    broken = "".join(f" {source!r} cannot be used ({reason})." for source, reason in legacy.broken_pipelines().items())
    if name is None:
        raise ValueError(
            f"{os.fspath(folder)!r} holds no vision model: no 'vision/config.json' of a known family ({available}). "
            f"Make one: python -m training merge --help{'.' + broken if broken else ''}"
        )
    raise ValueError(f"Unknown vision pipeline {name!r}. Available: {available}.{broken}")


def load_prompt_side(folder: str | os.PathLike) -> "PromptSide":
    """What writes a model's prompts and prepares its pictures, for a serving engine whose other processes hold the weights.

    Args:
        folder: a whole model of a family whose pictures are a fixed number of embeddings in the prompt.

    Raises:
        FileNotFoundError, ValueError: the folder is no such model, or not whole; the message says what to do.
    """
    check_layers(folder)
    found = find_family(folder)
    load = None if found is None else getattr(family(found), "load_prompt_side", None)
    if load is None:
        what = "holds no vision model of a known family" if found is None else f"is a model of the family {found!r}"
        raise ValueError(
            f"{os.fspath(folder)!r} {what}: only pictures that are a fixed number of embeddings in the prompt can be given to an "
            "engine so. Use python -m demo page or the web UI; image-text-to-text models of transformers are served by engines themselves."
        )
    with _in_one_kind_of_error(folder):
        side = load(folder)
    check_chat_template(side.processor, repr(os.fspath(folder)))
    return side


def load_model(folder: str | os.PathLike, **kwargs: Any) -> "tuple[PreTrainedModel, Any]":
    """Load a whole model of any family with its processor, in evaluation mode.

    Args:
        folder: a model folder, or what a family's published files are; a hub name works where the family is told by its
            configuration.
        kwargs: for the family: `text_model`, `vision_model`, `lora_model`, `dtype`, `device_map`, `load_in_8bit`, `load_in_4bit`,
            `prompt_style`.

    Returns:
        (model, processor)

    Raises:
        FileNotFoundError, ValueError: files are missing or do not fit each other; the message says which and what to do.
    """
    from .hub import resolve_folder

    folder = resolve_folder(folder)
    found = _family_to_load(folder)
    load = family(found).load_model
    if "prompt_style" in kwargs and "prompt_style" not in inspect.signature(load).parameters:
        raise ValueError(f"{found} has one prompt only: leave prompt_style out.")
    with _in_one_kind_of_error(folder):
        model, processor = load(folder, **kwargs)
    check_chat_template(processor, repr(str(folder)))
    check_generation(getattr(model, "generation_config", None), folder)
    return model, processor


def load_processor(folder: str | os.PathLike) -> "ProcessorMixin":
    """The processor of a whole model of any family, as `load_model` gives it, without the model.

    Args:
        folder: a model folder, or a hub name where the family is told by its configuration.

    Raises:
        FileNotFoundError, ValueError: as `load_model`.
    """
    from .hub import resolve_folder

    folder = resolve_folder(folder)
    found = _family_to_load(folder)
    with _in_one_kind_of_error(folder):
        processor = family(found).load_processor(folder)
    check_chat_template(processor, repr(str(folder)))
    return processor


def _family_to_load(folder: Path) -> str:
    """The family of a whole model.

    Raises:
        ValueError: there is none, or the folder is in a format that others load.
    """
    check_layers(folder)
    found = find_family(folder)
    refuse_foreign(folder, "load", has_vision=found is not None)
    if found is None:
        raise ValueError(
            f"{str(folder)!r} is no model of a known family ({', '.join(FAMILIES)}): neither 'vision/config.json' nor 'config.json' "
            "names one. What is it? python -m pipelines.doctor FOLDER"
        )
    return found


def check_generation(settings: "GenerationConfig | None", folder: Path) -> None:
    """Generation settings are not looked at when a model is loaded, but in the middle of its first answer.

    Raises:
        ValueError: what must be a number is none.
    """
    for name, value in settings.to_dict().items() if settings is not None else ():
        if NUMBERS.search(name) and not isinstance(value, int | float | None):
            raise ValueError(f"The generation settings of {str(folder)!r} say {name} {value!r}, which is no number.")


@contextlib.contextmanager
def _in_one_kind_of_error(folder: str | os.PathLike) -> Iterator[None]:
    """Odd values in a folder's files lead the libraries to any exception, none of which names the folder.

    Raises:
        MemoryError: it was one of memory.
        ValueError: it was none of those that our own readers raise.
    """
    try:
        yield
    except (OSError, ValueError, ImportError, MemoryError):
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        if type(error).__name__ == "OutOfMemoryError":
            raise MemoryError(f"{os.fspath(folder)!r} does not fit ({reason}). Load it in 8 or 4 bits.") from error
        raise ValueError(
            f"{os.fspath(folder)!r} cannot be loaded ({reason}). Copy its files again, or see: python -m pipelines.doctor FOLDER"
        ) from error


def converter(path: str | os.PathLike) -> "Callable[..., None] | None":
    """How the family of a model, or of a file that one was published as, writes its layouts.

    Returns:
        `convert(path, output_dir, layout, text_model=, vision_model=, lora_model=, dtype=, max_shard_bytes=, force=)`; None where
        the path is of no known family, or of one whose models are merged by plan (`training.merge.plan`).
    """
    found = find_family(path)
    return None if found is None else getattr(family(found), "convert", None)


def merging(*paths: str | os.PathLike) -> "Merging":
    """What merging by plan asks of the family that models, vision encoders and adapters belong to; see `checkpoints/merging.py`.

    Args:
        paths: in the order in which they count. Where none is of a family that is merged by plan, as a language model and a CLIP by
            themselves are not, they become one of `MERGED_BY_DEFAULT`.
    """
    families = [*filter(None, map(find_family, paths)), MERGED_BY_DEFAULT]
    return next(found for name in families if (found := getattr(family(name), "MERGING", None)) is not None)


def pipeline_of(model: "PreTrainedModel", processor: Any) -> VisionPipeline:
    """The pipeline of a whole model that is loaded, also inside a `PeftModel`; it keeps the model alive no longer.

    Raises:
        ValueError: the model is of no known family.
    """
    whole = model.get_base_model() if hasattr(model, "get_base_model") else model
    return family_of(whole).pipeline_of(whole, processor)


def parts_of(model: "PreTrainedModel") -> "Mapping[str, tuple[str, ...]]":
    """Which parameters of a whole model that is loaded are `vision`, `connector` and `language`, as beginnings of their names.

    Raises:
        ValueError: the model is of no known family.
    """
    package = family_of(model)
    return package.parts_of(model) if hasattr(package, "parts_of") else package.PARTS


def save_model(model: "PreTrainedModel", processor: Any, folder: str | os.PathLike) -> None:
    """Write a whole model that is loaded, in the dtypes its weights have, so that `load_model` and the web UI open it.

    The folder appears whole or not at all; a model that is there already is replaced.

    Raises:
        ValueError: the model is of no known family, quantised, or holds LoRA layers.
    """
    if lora := [name for name, _ in model.named_parameters() if ".lora_" in name]:
        raise ValueError(f"The model holds {len(lora)} LoRA tensors, the first: {lora[:3]}. Merge them before saving.")
    if quantised := [name for name, parameter in model.named_parameters() if not parameter.is_floating_point()]:
        raise ValueError(f"The model is quantised ({quantised[0]}): load it in 16 or 32 bits before saving.")
    family_of(model).save_model(model, processor, folder)


def family_of(model: "PreTrainedModel") -> ModuleType:
    """The package of a whole model's family.

    Raises:
        ValueError: there is none.
    """
    model_type = model.config.model_type
    found = MODEL_TYPES.get(model_type) or ("native" if is_native(model_type) else None)
    if found is None:
        raise ValueError(f"A model of type {model_type!r} is of no known family ({', '.join(FAMILIES)}).")
    return family(found)


def is_whole(folder: str | os.PathLike) -> bool:
    """Whether a folder holds an image-text-to-text model as transformers publishes it, vision model and language model in one."""
    path = Path(folder) / "config.json"
    if not path.is_file() or (Path(folder) / "vision" / "config.json").is_file():
        return False
    stored = read_json(path)
    model_type = stored.get("model_type")
    if model_type in MODEL_TYPES:  # ours read it, too; what the original code wrote only they do
        return "text_config" in stored and is_native(model_type)
    return find_family(folder) == "native"


def model_class(folder: str | os.PathLike) -> Any:
    """What has to load a folder's whole model where others would take `AutoModelForCausalLM`; None where that is right.

    Raises:
        ValueError: the model is refused.
    """
    return family("native").model_class(folder) if is_whole(folder) else None
