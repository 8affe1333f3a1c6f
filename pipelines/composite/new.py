"""What a fresh model is put together from: any causal language model, and a vision encoder by itself."""

import json
import os
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    CLIPVisionModel,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    SiglipVisionModel,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils import is_gguf_available

from ..hub import resolve_folder
from ..json_files import read_json
from ..tokenization import load_tokenizer

VISION_ENCODERS = {
    "clip": CLIPVisionModel,
    "clip_vision_model": CLIPVisionModel,
    "siglip": SiglipVisionModel,
    "siglip_vision_model": SiglipVisionModel,
}
"""`model_type` to the vision encoder in it."""


def open_text_model(path: str | os.PathLike) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A causal language model in the precision it is stored in, with its tokenizer.

    Args:
        path: a folder, a hub name, or a GGUF file, whose weights are unpacked to float32 (needs the package gguf).

    Raises:
        FileNotFoundError, ValueError: there is none, or not all of one.
        ImportError: it is a GGUF, and gguf is not installed.
    """
    if str(path).endswith(".gguf"):
        return _open_gguf(Path(path))
    folder = resolve_folder(path)
    model_type = read_json(folder / "config.json").get("model_type")
    if model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise ValueError(
            f"text_model {str(folder)!r} is of type {model_type!r}, which is no causal language model of transformers. Give a language "
            "model by itself, such as LLaMA, Qwen or Mistral."
        )
    tokenizer = load_tokenizer(folder)
    model, report = AutoModelForCausalLM.from_pretrained(
        folder, dtype="auto", trust_remote_code=False, output_loading_info=True
    )
    _refuse_missing("text_model", folder, report)
    return model, tokenizer


def _open_gguf(file: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    if not file.is_file():
        raise FileNotFoundError(f"text_model {str(file)!r} is not a file.")
    if not is_gguf_available():
        raise ImportError(f"text_model {str(file)!r} is a GGUF: pip install gguf to read it, or give the model's folder.")
    given = {"gguf_file": file.name, "local_files_only": True}
    unpacked = AutoModelForCausalLM.from_pretrained(file.parent, dtype=torch.float32, **given)
    config = unpacked.config
    if hasattr(config, "quantization_config"):  # transformers goes on taking it for quantised, and would not save it
        del config.quantization_config
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    model.load_state_dict(unpacked.state_dict())
    model.generation_config = unpacked.generation_config
    return model, named_as(config, AutoTokenizer.from_pretrained(file.parent, **given))


def named_as(config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """The tokenizer, its special tokens those of the configuration.

    transformers 5.17 takes SmolLM2's `<|im_start|>` for the end of a text, where the GGUF says `<|im_end|>`.
    """
    for name in ("bos_token", "eos_token", "pad_token", "unk_token"):
        number = getattr(config, f"{name}_id", None)
        if isinstance(number, int) and 0 <= number < len(tokenizer):
            setattr(tokenizer, name, tokenizer.convert_ids_to_tokens(number))
    return tokenizer


def open_vision_encoder(path: str | os.PathLike) -> PreTrainedModel:
    """A CLIP or SigLIP vision encoder, from its own folder or from that of the whole model.

    Raises:
        FileNotFoundError, ValueError: the folder holds none, or not all of one.
    """
    folder = resolve_folder(path)
    model_type = read_json(folder / "config.json").get("model_type")
    if model_type not in VISION_ENCODERS:
        raise ValueError(
            f"vision_model {str(folder)!r} is of type {model_type!r}; allowed: {', '.join(VISION_ENCODERS)}. Give a CLIP or SigLIP "
            "model, such as openai/clip-vit-large-patch14."
        )
    model, report = VISION_ENCODERS[model_type].from_pretrained(folder, dtype="auto", output_loading_info=True)
    _refuse_missing("vision_model", folder, report)
    return model


def template_with_pictures(template: str | None, image_mark: str) -> str | None:
    """A text model's own chat template, before which the parts of each message become one text; None where it has none.

    Args:
        template: of a text model, whose messages hold texts alone.
        image_mark: what is written for a picture.
    """
    if not template:
        return None
    mark = json.dumps(image_mark, ensure_ascii=False)
    return (
        "{%- set joined = namespace(messages=[]) -%}"
        "{%- for message in messages -%}{%- set content = namespace(text='') -%}"
        "{%- if message.content is string -%}{%- set content.text = message.content -%}"
        "{%- elif message.content -%}{%- for item in message.content -%}"
        f"{{%- set content.text = content.text + ({mark} if item.type == 'image' else item.text | default('', true)) -%}}"
        "{%- endfor -%}{%- endif -%}"
        "{%- set joined.messages = joined.messages + [dict(message, content=content.text)] -%}"
        "{%- endfor -%}"
        "{%- set messages = joined.messages -%}"
        f"{template}"
    )


def _refuse_missing(what: str, folder: Any, report: dict[str, Any]) -> None:
    if missing := sorted(report["missing_keys"]):
        raise ValueError(f"{what} {str(folder)!r} lacks {len(missing)} weights, such as {missing[0]}. Copy its files again.")


def flat_names(model: PreTrainedModel) -> dict[str, Any]:
    """A vision encoder's tensors as today's transformers names them, one level flatter than earlier versions."""
    return {name.removeprefix("vision_model."): tensor for name, tensor in model.state_dict().items()}
