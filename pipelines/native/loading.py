"""Whole image-text-to-text models from their folders: full precision, 8 or 4 bits, with an adapter."""

import os
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForImageTextToText, BitsAndBytesConfig, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from ..json_files import read_json
from .processing import TEMPLATES, load_processor

REFUSED = {
    "blip": "it writes captions and does not chat",
    "blip-2": "it continues one text about one picture and does not chat",
    "chameleon": "its processor takes no chat template",
    "diffusion_gemma": "it writes whole stretches by diffusion, not one token after another",
    "evolla": "it is about proteins",
    "fuyu": "it answers about one picture, and its processor takes no chat template",
    "git": "it writes captions and does not chat",
    "got_ocr2": "it reads one document and does not chat",
    "idefics": "its processor takes no chat template",
    "idefics2": "its processor writes pictures that stand side by side into one another",
    "instructblip": "it answers one question about one picture and does not chat",
    "kosmos-2": "it describes one picture and does not chat",
    "kosmos-2.5": "it reads one document and does not chat",
    "mistral4": "it takes no pictures",
    "perception_lm": "its processor takes several pictures only where all have as many parts",
    "shieldgemma2": "it judges pictures and writes no text",
    "pi0": "it steers robots and writes no text",
    "pp_formulanet": "it reads formulas and does not chat",
    "pp_chart2table": "it reads charts and does not chat",
    "qwen2_5_omni_thinker": "it is a part of a model that hears and sees videos",
    "qwen3_omni_moe_thinker": "it is a part of a model that hears and sees videos",
    "instructblipvideo": "it takes videos only",
    "vision-encoder-decoder": "it is an encoder-decoder and does not chat",
}
"""`model_type` of models that are no chat models about pictures, to the reason."""

_OUTSIDE = (
    "vision",
    "visual",
    "image",
    "multi_modal_projector",
    "connector",
    "mm_projector",
    "aligner",
    "embed_vision",
    "resampler",
)


def refusal(config: PreTrainedConfig) -> str | None:
    """Why a model cannot be chatted with about pictures; None when it can.

    Args:
        config: of an image-text-to-text model of transformers.
    """
    if reason := REFUSED.get(config.model_type):
        return reason
    if getattr(config, "is_encoder_decoder", False):
        return "it is an encoder-decoder, whose prompt and answer do not stand in one text"
    return None


def load_config(folder: Path) -> PreTrainedConfig:
    """The configuration of a folder's model.

    Raises:
        ValueError: the model is refused, with the reason.
    """
    stored = read_json(folder / "config.json")
    if stored.get("model_type") not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        raise ValueError(f"{str(folder)!r} is no image-text-to-text model of transformers ({stored.get('model_type')!r}).")
    reason = REFUSED.get(stored["model_type"])
    if reason is None:
        try:
            config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        except Exception as error:  # configurations check themselves, with exceptions of their own
            told = " ".join(str(error).split())[:300]
            raise ValueError(f"{str(folder / 'config.json')!r} has a value that cannot be: {told}") from error
        reason = refusal(config)
    if reason is not None:
        raise ValueError(f"{str(folder)!r} ({stored['model_type']}) is not taken: {reason}.")
    return config


def load_model(
    folder: str | os.PathLike,
    *,
    text_model: str | os.PathLike | None = None,
    vision_model: str | os.PathLike | None = None,
    lora_model: str | os.PathLike | None = None,
    dtype: torch.dtype | str | None = "auto",
    device_map: Any = None,
    load_in_8bit: bool = False,
    load_in_4bit: bool = False,
    quantization_config: Any = None,
    **kwargs: Any,
) -> tuple[PreTrainedModel, Any]:
    """A whole model with its processor, in evaluation mode. Code of a folder is never run.

    Args:
        folder: as the model was published for transformers.
        text_model: not taken, the folder is whole; likewise `vision_model`.
        lora_model: an adapter of PEFT; the model is then a `PeftModel`.
        dtype: of the weights; as stored when "auto".
        device_map: as in transformers.
        load_in_8bit: quantise the language model through bitsandbytes.
        load_in_4bit: likewise, with 4 bits.
        quantization_config: instead of the two.
        kwargs: for `from_pretrained`.

    Raises:
        FileNotFoundError, ValueError: files are missing, or the model is refused; the message says why.
    """
    if text_model is not None or vision_model is not None:
        raise ValueError(f"{os.fspath(folder)!r} is a whole model; leave text_model and vision_model out.")
    folder = Path(folder)
    load_config(folder)
    processor = load_processor(folder)
    quantization = quantization_config
    if quantization is None and (load_in_8bit or load_in_4bit):
        kind = {"load_in_4bit": True, "bnb_4bit_compute_dtype": torch.float16, "bnb_4bit_quant_type": "nf4"}
        quantization = BitsAndBytesConfig(**(kind if load_in_4bit else {"load_in_8bit": True}))
    given = {"device_map": device_map, "quantization_config": quantization, "dtype": dtype, **kwargs}
    model = WholeModel.from_pretrained(folder, **{key: value for key, value in given.items() if value is not None})
    if lora_model is not None:
        model = with_adapter(model, lora_model)
    return model.eval(), processor


class WholeModel:
    """`AutoModelForImageTextToText` for folders, whose vision part stays as it is when the rest is quantised."""

    @staticmethod
    def from_pretrained(folder: str | os.PathLike, **kwargs: Any) -> PreTrainedModel:
        """The model of a folder; refuses weights that are missing or of another shape.

        Raises:
            ValueError: not all weights are in the folder, as its configuration has them.
        """
        quantization = kwargs.get("quantization_config")
        if isinstance(quantization, BitsAndBytesConfig) and not quantization.llm_int8_skip_modules:
            quantization.llm_int8_skip_modules = unquantised(AutoConfig.from_pretrained(folder, trust_remote_code=False))
        if kwargs.pop("force_safetensors", False):
            kwargs["use_safetensors"] = True
        kwargs["trust_remote_code"] = False
        model, report = AutoModelForImageTextToText.from_pretrained(
            folder, output_loading_info=True, ignore_mismatched_sizes=True, **kwargs
        )
        if missing := sorted(report["missing_keys"]):
            shown = ", ".join(missing[:3])
            raise ValueError(f"{os.fspath(folder)!r} lacks {len(missing)} weights, such as {shown}. Copy the folder again.")
        if other := sorted(report["mismatched_keys"]):
            name, stored, wanted = other[0]
            raise ValueError(
                f"{os.fspath(folder)!r} has {len(other)} weights of another shape than its config.json, such as {name}: {tuple(stored)}, "
                f"by config.json {tuple(wanted)}. Copy the folder again."
            )
        return model

    @staticmethod
    def from_config(config: PreTrainedConfig, **kwargs: Any) -> PreTrainedModel:
        return AutoModelForImageTextToText.from_config(config, **kwargs)


def unquantised(config: PreTrainedConfig) -> list[str]:
    """Names of the modules that keep their precision: all that is not the language model, and the head."""
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    holder = model.base_model
    prefix = "" if holder is model else f"{model.base_model_prefix}."
    names = [name for name, _ in holder.named_children()]
    return [*(f"{prefix}{name}" for name in names if any(part in name for part in _OUTSIDE)), "lm_head"]


def model_class(folder: str | os.PathLike) -> type[WholeModel]:
    """What loads a folder's whole model in place of `AutoModelForCausalLM`.

    Raises:
        ValueError: the model is refused.
    """
    load_config(Path(folder))
    return WholeModel


def with_adapter(model: PreTrainedModel, folder: str | os.PathLike) -> Any:
    """A `PeftModel` around the model.

    Raises:
        ValueError: weights of the adapter belong to modules that the model has not.
    """
    from peft import PeftModel, get_peft_model_state_dict
    from peft.utils import load_peft_weights

    adapted = PeftModel.from_pretrained(model, folder)
    held = set(load_peft_weights(str(folder), device="cpu"))
    if lost := sorted(held - set(get_peft_model_state_dict(adapted))):
        raise ValueError(
            f"{os.fspath(folder)!r}: {len(lost)} of {len(held)} weights belong to no module of the model, such as {lost[0]}. It was "
            "made for another model."
        )
    return adapted


def missing_parts(folder: Path) -> list[str]:
    """What a folder lacks to be chatted with, or why it cannot be, a sentence each."""
    config = read_json(folder / "config.json")
    if reason := REFUSED.get(config.get("model_type")):
        return [f"{config['model_type']} is not taken: {reason}."]
    wanted = {
        "weights: copy *.safetensors again": ("*.safetensors", "pytorch_model*.bin"),
        "a tokenizer: copy tokenizer.json again": ("tokenizer.json", "tokenizer.model", "vocab.json"),
        "'preprocessor_config.json': copy it again": ("preprocessor_config.json", "processor_config.json"),
    }
    missing = [what for what, patterns in wanted.items() if not any(next(folder.glob(each), None) for each in patterns)]
    templates = any((folder / f"chat_template.{ending}").is_file() for ending in ("jinja", "json"))
    settings = [folder / f"{name}_config.json" for name in ("tokenizer", "processor")]
    if (
        config["model_type"] not in TEMPLATES
        and not templates
        and not any("chat_template" in read_json(file) for file in settings if file.is_file())
    ):
        missing.append("a chat template, so it was not made to chat: put a chat_template.jinja beside config.json")
    return [f"{sentence} ({str(folder)!r})." for sentence in missing]
