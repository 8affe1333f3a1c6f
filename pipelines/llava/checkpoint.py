"""LLaVA's files: llava-hf folders, the original project's folders, a projector by itself, LoRA with its projector.

| published as                                          | opened with                                                  |
| ----------------------------------------------------- | ------------------------------------------------------------ |
| llava-hf folder                                        | nothing else                                                 |
| original folder (`mm_vision_tower` in `config.json`)   | `vision_model`, where the encoder is neither in it nor cached |
| `mm_projector.bin`, `non_lora_trainables.bin`          | `text_model`, `vision_model`                                 |
| LoRA folder with `non_lora_trainables.bin`             | `text_model`, `vision_model`; or as `lora_model` over a model |
"""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, LlavaConfig, LlavaForConditionalGeneration, LlavaModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from ..checkpoints.formats import refuse_foreign
from ..composite.checkpoint import Family, Output, write_json
from ..composite.lora import language_name, with_adapter
from ..composite.parts import Parts
from ..composite.processing import PLACEHOLDER
from ..composite.tensors import check_finite, check_placed, stored_tensors, write_pickles, write_safetensors
from ..hub import resolve_folder
from ..json_files import read_json
from ..tokenization import load_tokenizer, plain_template
from .configuration_llava import SETTINGS, VISION_ENCODERS, composed, is_original, original_values, text_config_of
from .layouts import join_hf, projector_from_original, projector_to_original, split_hf, split_original
from .modeling_llava import build_vision, compose
from .processing_llava import IMAGE_START, IMAGE_TOKEN, LlavaChatProcessor

PROJECTOR_FILES = ("mm_projector.bin", "non_lora_trainables.bin")
LORA_ALPHA = 16
"""lora_alpha where no `adapter_config.json` says it: peft's own default at that time."""


class LlavaFamily(Family):
    """LLaVA as a `Family`, with transformers' own model."""

    def layout(self, folder: Path) -> str:
        if read_json(folder / "vision" / "config.json").get("model_type") == "llava":
            return "webui"
        values = read_json(folder / "config.json")
        return "transformers" if "text_config" in values and values.get("model_type") == "llava" else "original"

    @staticmethod
    def is_projector(path: str | os.PathLike) -> bool:
        """Whether a file, or one of a folder, is a projector by itself: told by its name, and by its tensors' names."""
        files = [Path(path)] if Path(path).is_file() else [Path(path) / name for name in PROJECTOR_FILES]
        try:
            return any(file.is_file() and bool(split_original(stored_tensors(file))[0]) for file in files)
        except ValueError:
            return False

    def split(self, tensors: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        return split_hf(tensors)

    def compose(self, vision: LlavaModel, language_model: Any, source: str) -> LlavaForConditionalGeneration:
        return compose(vision, language_model, source)

    def _vision(self, parts: Parts, dtype: torch.dtype | str | None) -> LlavaModel:
        check_finite(parts.vision, parts.source)
        stored = next(tensor.dtype for tensor in parts.vision.values() if tensor.is_floating_point())
        dtype = stored if dtype in (None, "auto") else getattr(torch, dtype) if isinstance(dtype, str) else dtype
        return build_vision(parts.config, parts.vision, dtype)

    def _check(self, parts: Parts) -> None:
        config = parts.config
        with torch.device("meta"):
            vision = LlavaModel(config)
            language_model = AutoModelForCausalLM.from_config(config.text_config)
        names = ("vision_tower.", "multi_modal_projector.")
        expected = {name: tensor for name, tensor in vision.state_dict().items() if name.startswith(names)}
        check_placed(parts.vision, expected, f"{parts.source}: the vision model")
        if parts.language is None:
            return
        expected = language_model.state_dict()
        if config.text_config.tie_word_embeddings and "lm_head.weight" not in parts.language:
            expected.pop("lm_head.weight")
        check_placed(parts.language, expected, f"{parts.source}: the language model")
        rows = next(tensor.shape[0] for name, tensor in parts.language.items() if name.endswith("embed_tokens.weight"))
        if not 0 <= config.image_token_id < rows:
            raise ValueError(
                f"{parts.source}: pictures are put at the id {config.image_token_id}, but the language model has {rows} embeddings. "
                "Use the tokenizer and config.json that belong to it."
            )

    def _read_own(self, folder: Path, layout: str, with_language: bool) -> Parts:
        config = self.load_config(folder)
        if layout == "webui":
            vision, language = stored_tensors(folder / "vision"), stored_tensors(folder) if with_language else None
            if with_language:
                values = read_json(folder / "config.json")
                config.text_config = CONFIG_MAPPING[values["model_type"]].from_dict(values)
        else:
            vision, language = self.split(stored_tensors(folder))
            language = language if with_language else None
        for name, default in SETTINGS.items():
            if not hasattr(config, name):
                setattr(config, name, default)
        return Parts(config, vision, _with_rows(config, language), folder, repr(str(folder)))

    def _write_own(self, parts: Parts, out: Output, layout: str) -> None:
        folder, config, text = out.folder, parts.config, parts.config.text_config
        config.architectures = ["LlavaForConditionalGeneration"]
        text.architectures = [MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[text.model_type]]
        dtypes = {tensor.dtype for tensor in parts.language.values() if tensor.is_floating_point()}
        text.dtype = config.dtype = out.dtype or (dtypes.pop() if len(dtypes) == 1 else None)
        processor = self.processor_of(parts)
        if layout == "webui":
            text.save_pretrained(folder)
            write_safetensors(out.checked(parts.language_tensors(), parts.source), folder, out.max_shard_bytes)
            (folder / "vision").mkdir()
            config.save_pretrained(folder / "vision")
            write_safetensors(out.checked(parts.vision.items(), parts.source), folder / "vision", out.max_shard_bytes)
            processor.image_processor.save_pretrained(folder / "vision")
            processor.tokenizer.chat_template = plain_template(processor.chat_template)
            processor.tokenizer.save_pretrained(folder)
        else:
            config.save_pretrained(folder)
            tensors = join_hf(parts.vision, parts.language_tensors())
            write_safetensors(out.checked(tensors, parts.source), folder, out.max_shard_bytes)
            processor.native(config).save_pretrained(folder)
        self._copy_files(parts, folder)


def read_original(
    path: Path,
    text_model: str | os.PathLike | None = None,
    vision_model: str | os.PathLike | None = None,
    with_language: bool = True,
) -> Parts:
    """An original folder, a projector by itself, or a LoRA folder; see the table above.

    Raises:
        FileNotFoundError, ValueError: something is missing, or does not fit.
    """
    folder = path if path.is_dir() else path.parent
    settings, source = read_json(folder / "config.json"), repr(str(path))
    if settings.get("image_aspect_ratio", "pad") not in ("pad", "square", None):
        raise ValueError(
            f"{source} is a LLaVA-NeXT (image_aspect_ratio {settings['image_aspect_ratio']!r}), which cuts pictures into tiles. Take its "
            "llava-hf edition with transformers' own LlavaNextForConditionalGeneration."
        )
    is_lora = (folder / "adapter_config.json").is_file()
    files = [path] if path.is_file() else [folder / name for name in PROJECTOR_FILES if (folder / name).is_file()]
    if files:
        projector, encoder, rest = split_original(stored_tensors(files[0]))
    else:
        projector, encoder, rest = split_original({} if is_lora else stored_tensors(folder))
    if not projector:
        raise ValueError(
            f"{source} holds no projector: no tensor is named '*mm_projector.*'. "
            + ("Copy its non_lora_trainables.bin into it." if is_lora else "Is it a LLaVA's folder, and whole?")
        )
    stands_alone = bool(files)
    if stands_alone and text_model is None and with_language:
        raise ValueError(
            f"{source} is a {'LoRA' if is_lora else 'projector'} without its language model. Give text_model (--text_model), the "
            "model it was trained on, such as Vicuna."
        )
    if not stands_alone and text_model is not None:
        raise ValueError(f"{source} holds its language model: leave text_model out.")
    text_folder = folder if not stands_alone else None if text_model is None else resolve_folder(text_model)
    if text_folder is not None:
        refuse_foreign(text_folder, "merge")
    vision_config, encoder = _encoder(settings, encoder, vision_model, source)
    vision = encoder | projector_from_original(projector, source)
    is_linear = "weight" in projector
    width = projector["weight" if is_linear else "2.weight"].shape[0]
    if text_folder is None:
        text_config, language = CONFIG_MAPPING["llama"](hidden_size=width), None
    elif stands_alone:
        values = read_json(text_folder / "config.json")
        text_config = text_config_of(values) if is_original(values) else CONFIG_MAPPING[values["model_type"]].from_dict(values)
        language = {name: t for name, t in stored_tensors(text_folder).items() if language_name(name) == name}
        language |= {language_name(name): tensor for name, tensor in rest.items() if language_name(name)}
    else:
        text_config, language = text_config_of(settings), rest
    tokenizer_folder = folder if _has_tokenizer(folder) else text_folder or folder
    tokens = load_tokenizer(tokenizer_folder).get_vocab()
    if not settings:
        settings = {"mm_use_im_start_end": is_linear and IMAGE_START in tokens}
    settings = {"image_aspect_ratio": None if is_linear else "pad", **settings}
    if settings["image_aspect_ratio"] == "square":
        settings["image_aspect_ratio"] = None
    placeholder = next(token for token in (IMAGE_TOKEN, "<im_patch>", PLACEHOLDER) if token in tokens)
    has_bias = ("bias" if is_linear else "0.bias") in projector
    config = composed(text_config, vision_config, settings, is_linear, tokens[placeholder], has_bias)
    parts = Parts(config, vision, _with_rows(config, language) if with_language else None, tokenizer_folder, source)
    return _with_lora(parts, folder) if is_lora else parts


def apply_adapter(parts: Parts, path: Path) -> Parts:
    """A LoRA on the language model; a projector that lies beside it (`non_lora_trainables.bin`) takes the model's place."""
    vision, language = dict(parts.vision), None if parts.language is None else dict(parts.language)
    folder = path if path.is_dir() else path.parent
    for name in PROJECTOR_FILES:
        if (folder / name).is_file():
            projector, _, rest = split_original(stored_tensors(folder / name))
            if projector:
                vision |= projector_from_original(projector, repr(str(folder / name)))
            unknown = [key for key in rest if language_name(_plain(key)) is None]
            if unknown:
                raise ValueError(f"{str(folder / name)!r} holds {unknown[:3]}, which have no place in a LLaVA.")
            if language is not None:
                language |= {language_name(_plain(key)): tensor for key, tensor in rest.items()}
    return _with_lora(dataclasses.replace(parts, vision=vision, language=language), path)


def write_original(parts: Parts, out: Output) -> None:
    """The original project's layout, the vision encoder in it."""
    is_linear = parts.config.projector_hidden_act == "linear"

    def tensors():
        yield from parts.language_tensors()
        for name, tensor in projector_to_original(parts.vision, is_linear).items():
            yield f"model.mm_projector.{name}", tensor
        for name, tensor in parts.vision.items():
            if name.startswith("vision_tower."):
                yield f"model.vision_tower.vision_tower.vision_model.{name.removeprefix('vision_tower.')}", tensor

    write_pickles(out.checked(tensors(), parts.source), out.folder, out.max_shard_bytes)
    write_json(out.folder / "config.json", original_values(parts.config))
    LlavaChatProcessor.of(parts.tokenizer_folder, parts.config).tokenizer.save_pretrained(out.folder)
    FAMILY._copy_files(parts, out.folder)


def _with_lora(parts: Parts, path: Path) -> Parts:
    return with_adapter(parts, path, LlavaModel, LORA_ALPHA, vision_prefix="model.", uses_beside=True)


def _encoder(settings: dict[str, Any], stored: dict[str, torch.Tensor], given: Any, source: str) -> tuple[Any, dict]:
    """The vision encoder's configuration and tensors: those in the checkpoint, those given, or those it names."""
    name = settings.get("mm_vision_tower") or settings.get("vision_tower")
    known = settings.get("mm_vision_config") or VISION_ENCODERS.get(str(name).rstrip("/").rpartition("/")[2])
    if stored and known and given is None:
        return CONFIG_MAPPING[known["model_type"]](**{k: v for k, v in known.items() if k != "model_type"}), stored
    if given is None and name is None:
        raise ValueError(f"{source} does not say which vision encoder it was trained with. Give vision_model (--vision_model).")
    try:
        folder = resolve_folder(given or name)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{source} was trained with the vision encoder {name!r}, which is not in it. Give its folder as vision_model "
            "(--vision_model)."
        ) from error
    values = read_json(folder / "config.json")
    values = values.get("vision_config", values) | {} if values.get("model_type") in ("clip", "siglip") else values
    model_type = values.get("model_type", "clip_vision_model")
    config = CONFIG_MAPPING[model_type](**{key: value for key, value in values.items() if key != "model_type"})
    found = {
        f"vision_tower.{key.removeprefix('vision_model.')}": tensor
        for key, tensor in stored_tensors(folder).items()
        if key.startswith("vision_model.")
    }
    return config, stored or found


def _with_rows(config: LlavaConfig, language: dict[str, torch.Tensor] | None) -> dict[str, torch.Tensor] | None:
    """Counts the vocabulary on the weights."""
    for name, tensor in (language or {}).items():
        if name.endswith("embed_tokens.weight"):
            config.text_config.vocab_size = tensor.shape[0]
    return language


def _has_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model"))


def _plain(name: str) -> str:
    return name.removeprefix("base_model.").removeprefix("model.") if name.startswith("base_model.model.") else name


FAMILY = LlavaFamily(
    name="llava",
    model_class=LlavaForConditionalGeneration,
    vision_class=LlavaModel,
    processor_class=LlavaChatProcessor,
    read_original=read_original,
    write_original=write_original,
    apply_adapter=apply_adapter,
)
