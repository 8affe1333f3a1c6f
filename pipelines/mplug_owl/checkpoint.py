"""mPLUG-Owl's published files: the hub folder, LRV-Instruction V2's adapter, and writing the hub folder again."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch

from ..composite.checkpoint import Family, Output, write_json
from ..composite.lora import with_adapter
from ..composite.parts import Parts
from ..composite.tensors import stored_tensors, write_pickles
from ..json_files import read_json
from .configuration_mplug_owl import MplugOwlConfig
from .layouts import LANGUAGE, is_published, vision_from_published, vision_to_published
from .modeling_mplug_owl import MplugOwlForConditionalGeneration, MplugOwlVisionModel
from .processing_mplug_owl import MplugOwlProcessor

PUBLISHED_TYPE = "mplug-owl"
LRV_ALPHA = 32
"""lora_alpha of LRV-Instruction V2 and of the original's training; no file of theirs says it."""

SAMPLING = {"do_sample": True, "top_k": 3, "top_p": 0.9, "temperature": 1.0, "no_repeat_ngram_size": 2, "max_new_tokens": 512}
"""The demo server's settings."""


def read_original(
    path: Path,
    text_model: str | os.PathLike | None = None,
    vision_model: str | os.PathLike | None = None,
    with_language: bool = True,
) -> Parts:
    """A published folder (`model_type` "mplug-owl", any number of shards), or a trainer's state dict beside its `config.json`.

    Args:
        path: the folder, or a weight file in it.
        text_model: not used: the folder holds its language model.
        vision_model: likewise.

    Raises:
        FileNotFoundError, ValueError: it is something else, or not whole.
    """
    if text_model is not None or vision_model is not None:
        raise ValueError(
            "An mPLUG-Owl folder holds its language model and its vision model: leave text_model and vision_model out."
        )
    folder = path if path.is_dir() else path.parent
    values = read_json(folder / "config.json")
    if values.get("model_type") != PUBLISHED_TYPE:
        raise ValueError(
            f"{str(folder)!r} is no mPLUG-Owl checkpoint: its config.json says model_type {values.get('model_type')!r}, not "
            f"{PUBLISHED_TYPE!r}. Give the folder of mplug-owl-llama-7b, -ft or -pt."
        )
    if values.get("text_config", {}).get("model_type", "llama") != "llama":
        raise ValueError(
            f"{str(folder)!r} stands on {values['text_config']['model_type']!r}; only its LLaMA checkpoints are read."
        )
    tensors = {name.removeprefix("base_model.model."): tensor for name, tensor in stored_tensors(path).items()}
    if not is_published(tensors):
        raise ValueError(
            f"{str(path)!r} holds no mPLUG-Owl model: there is no 'query_tokens' or no fused attention among its {len(tensors)} "
            "tensors. (Checkpoints of the branch v0 are incompatible with it, as their authors say.)"
        )
    config = MplugOwlConfig.from_published(values)
    _widths_of(config, tensors)
    vision = vision_from_published(tensors, config.vision_config.num_attention_heads)
    language = {n.removeprefix(LANGUAGE): t for n, t in tensors.items() if n.startswith(LANGUAGE)} if with_language else None
    return Parts(config, vision, language, folder, repr(str(folder)))


def _widths_of(config: MplugOwlConfig, tensors: dict[str, torch.Tensor]) -> None:
    """Sizes that configurations state wrongly, counted on the weights."""
    feed_forward = tensors.get("abstractor.encoder.layers.0.crossattention.output.mlp.w1.weight")
    if feed_forward is not None:
        config.abstractor_config.intermediate_size = feed_forward.shape[0]
    config.abstractor_config.num_query_tokens = tensors["query_tokens"].shape[1]
    embeddings = tensors.get(f"{LANGUAGE}model.embed_tokens.weight")
    if embeddings is not None:
        config.text_config.vocab_size = embeddings.shape[0]


def apply_adapter(parts: Parts, path: Path) -> Parts:
    """LRV-Instruction V2 or another LoRA; a whole state dict brings the base it was trained on."""
    folder = path if path.is_dir() else path.parent
    parts.config.prompt_style = read_json(folder / "config.json").get("prompt_style", "lrv")
    num_heads = parts.config.vision_config.num_attention_heads
    return with_adapter(parts, path, MplugOwlVisionModel, LRV_ALPHA, lambda tensors: vision_from_published(tensors, num_heads))


def write_original(parts: Parts, out: Output) -> None:
    """The published layout: one set of `.bin` files with their index, the original's configuration, tokenizer, preprocessor."""
    config = parts.config
    vision = vision_to_published(parts.vision, config.vision_config.num_attention_heads)

    def tensors():
        yield from vision.items()
        for name, tensor in parts.language_tensors():
            yield f"{LANGUAGE}{name}", tensor

    folder = out.folder
    write_pickles(out.checked(tensors(), parts.source), folder, out.max_shard_bytes)
    write_json(folder / "config.json", published_config(config))
    write_json(folder / "preprocessor_config.json", PREPROCESSOR | _sizes(config.vision_config.image_size))
    copy_tokenizer(parts.tokenizer_folder, folder)


def published_config(config: MplugOwlConfig) -> dict[str, Any]:
    """The `config.json` that the original's code reads."""
    text, vision, abstractor = config.text_config, config.vision_config, config.abstractor_config
    shared = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "initializer_range")
    return {
        "architectures": ["MplugOwlForConditionalGeneration"],
        "model_type": PUBLISHED_TYPE,
        "num_query_tokens": abstractor.num_query_tokens,
        "tie_word_embeddings": False,
        "use_decoder_only_language_model": True,
        "text_config": {
            "model_type": "llama",
            **{
                key: getattr(text, key)
                for key in (*shared, "vocab_size", "rms_norm_eps", "max_position_embeddings", "hidden_act")
            },
            "bos_token_id": text.bos_token_id,
            "eos_token_id": text.eos_token_id,
            "tie_word_embeddings": text.tie_word_embeddings,
        },
        "vision_config": {
            "model_type": "mplug_owl_vision_model",
            **{key: getattr(vision, key) for key in shared},
            **{key: getattr(vision, key) for key in ("image_size", "patch_size", "layer_norm_eps", "hidden_act")},
        },
        "visual_abstractor_config": {
            "model_type": "mplug_owl_visual_abstract",
            "encoder_hidden_size": vision.hidden_size,
            **{key: getattr(abstractor, key) for key in (*shared, "layer_norm_eps", "attention_probs_dropout_prob")},
        },
    }


PREPROCESSOR = {
    "do_center_crop": True,
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "image_processor_type": "MplugOwlImageProcessor",
    "resample": 3,
    "rescale_factor": 1 / 255,
}


def _sizes(side_px: int) -> dict[str, Any]:
    return {"size": {"shortest_edge": side_px}, "crop_size": {"height": side_px, "width": side_px}}


def copy_tokenizer(source: Path, target: Path) -> None:
    """A tokenizer's files as they are, without a chat template that was written into them."""
    for name in ("tokenizer.model", "tokenizer.json", "special_tokens_map.json", "added_tokens.json", "generation_config.json"):
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
    settings = read_json(source / "tokenizer_config.json")
    settings.pop("chat_template", None)
    (target / "tokenizer_config.json").write_text(json.dumps(settings, indent=2), encoding="utf-8")


FAMILY = Family(
    name="mplug_owl",
    model_class=MplugOwlForConditionalGeneration,
    vision_class=MplugOwlVisionModel,
    processor_class=MplugOwlProcessor,
    read_original=read_original,
    write_original=write_original,
    apply_adapter=apply_adapter,
)
