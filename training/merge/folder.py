"""The three layouts a whole model is written in: which tensor goes into which file, and the small files beside them.

| layout         | folder                                                                                               |
| -------------- | ---------------------------------------------------------------------------------------------------- |
| `webui`        | a language model at the root, the eyes in `vision/`: what the web UI's loaders open                   |
| `transformers` | one composite checkpoint: what transformers' Auto classes open                                        |
| `original`     | `text_encoder/`, `vision_encoder/`, `pytorch_model.bin`: what the original VisualCLA code opens       |

How they are read is in `pipelines.visualcla.checkpoint`.
"""

import json
import tempfile
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import CONFIG_MAPPING

from pipelines.json_files import read_json
from pipelines.visualcla import VisualCLAConfig, load_tokenizer
from pipelines.visualcla.configuration_visualcla import AUTO_MAP, AUTO_MODULE, AUTO_SOURCE
from pipelines.visualcla.processing_visualcla import CHAT_TEMPLATE, load_image_processor, plain_template
from pipelines.visualcla.tokenization_visualcla import IMAGE_TOKEN

from .original_tokenizer import original_tokenizer_files
from .products import MergePlan, Product
from .shards import Shard, index_of, pack

Layout = Literal["webui", "transformers", "original"]
LAYOUTS: tuple[str, ...] = ("webui", "transformers", "original")

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
)

_AS_IT_IS = ("PreTrainedTokenizerFast", "TokenizersBackend")
"""Classes that open `tokenizer.json` by its own rule; transformers builds others anew (`LlamaTokenizer`) and leaves it out."""

_TEXT_FIELDS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "hidden_act",
    "max_position_embeddings",
    "initializer_range",
    "rms_norm_eps",
    "use_cache",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
)
_VISION_FIELDS = (
    "hidden_size",
    "intermediate_size",
    "projection_dim",
    "num_hidden_layers",
    "num_attention_heads",
    "num_channels",
    "image_size",
    "patch_size",
    "hidden_act",
    "layer_norm_eps",
    "attention_dropout",
    "initializer_range",
    "initializer_factor",
)


def plan_shards(plan: MergePlan, layout: Layout, max_shard_bytes: int, links: bool = False) -> list[Shard]:
    """Which weight files a model becomes.

    Args:
        plan: the model.
        layout: of the folder.
        max_shard_bytes: of tensors per file.
        links: link files of the inputs where they can stand as they are.

    Raises:
        ValueError: the model cannot be written in this layout.
    """
    text = {name.removeprefix("text_model."): p for name, p in plan.products.items() if name.startswith("text_model.")}
    eyes = {name: product for name, product in plan.products.items() if not name.startswith("text_model.")}
    if plan.eyes_config is None and layout != "webui":
        raise ValueError(
            f"Layout {layout!r} is for models with eyes, and nothing brings any: give --vision_model and an adapter."
        )
    if layout == "webui":
        return pack(text, "", ".safetensors", max_shard_bytes, links) + (
            pack(eyes, "vision", ".safetensors", max_shard_bytes, links) if eyes else []
        )
    if layout == "transformers":
        return pack(plan.products, "", ".safetensors", max_shard_bytes, links)
    _check_original(plan)
    suffix = ".safetensors" if links else ".bin"
    encoder = {name: product for name, product in eyes.items() if name.startswith("vision_model.")}
    rest = {name: product for name, product in eyes.items() if name not in encoder}
    return [
        *pack(text | _text_buffers(plan, text), "text_encoder", suffix, max_shard_bytes, links),
        *pack(encoder | _vision_buffers(plan), "vision_encoder", suffix, max_shard_bytes, links),
        *pack(rest, "", ".bin", max_shard_bytes),
    ]


def small_files(plan: MergePlan, layout: Layout, shards: list[Shard]) -> dict[str, bytes]:
    """Everything but weights and model card: path below the folder to content.

    Raises:
        FileNotFoundError: an image processor's settings are missing.
        ValueError: the model cannot be written in this layout.
    """
    files = index_of(shards)
    tokenizer = _tokenizer_files(plan)
    visualcla = None if plan.eyes_config is None else _visualcla_config(plan, layout)
    if layout == "webui":
        files |= {"config.json": _json(plan.text_config), "generation_config.json": _generation_config(plan), **tokenizer}
        if visualcla is not None:
            files["vision/config.json"] = _json(visualcla)
            files["vision/preprocessor_config.json"] = _preprocessor(plan)
        return files
    files |= {"config.json": _json(visualcla), "preprocessor_config.json": _preprocessor(plan)}
    if layout == "transformers":
        files["config.json"] = _json(visualcla | {"auto_map": AUTO_MAP})
        files[f"{AUTO_MODULE}.py"] = AUTO_SOURCE.encode()
        return files | {"generation_config.json": _generation_config(plan)} | tokenizer
    text_config = _explicit(plan.text_config, _TEXT_FIELDS) | {
        "architectures": ["LlamaForCausalLM"],
        "tie_word_embeddings": False,
    }
    vision_config = _explicit(visualcla["vision_config"], _VISION_FIELDS) | {"architectures": ["CLIPVisionModel"]}
    dtype = {"torch_dtype": visualcla["torch_dtype"]}
    visualcla |= {"text_config": text_config | dtype, "vision_config": vision_config | dtype}
    files["config.json"] = _json(visualcla)
    return files | {
        "text_encoder/config.json": _json(visualcla["text_config"]),
        "text_encoder/generation_config.json": _generation_config(plan),
        "vision_encoder/config.json": _json(visualcla["vision_config"]),
        **original_tokenizer_files(plan.tokenizer_folder),
    }


def _visualcla_config(plan: MergePlan, layout: Layout) -> dict[str, Any]:
    token_id = load_tokenizer(plan.tokenizer_folder).convert_tokens_to_ids(IMAGE_TOKEN)
    dtype = str(next(iter(plan.products.values())).dtype).removeprefix("torch.")
    architectures = {"webui": ["VisualCLAVisionModel"], "transformers": ["VisualCLAForConditionalGeneration"]}.get(layout)
    config = {
        "architectures": architectures or ["VisualCLAModel"],
        "model_type": "visualcla",
        "image_token_id": token_id,
        **plan.eyes_config,
        "text_config": plan.text_config,
        "dtype": dtype,
    }
    if layout == "original":
        resampler = VisualCLAConfig.from_dict(config).visual_resampler_config
        names = [name for name in type(resampler).__annotations__ if hasattr(resampler, name)]
        config["visual_resampler_config"] = {name: getattr(resampler, name) for name in names}
        config |= {"use_visual_resampler": True, "torch_dtype": config.pop("dtype"), "vocab_size": plan.vocab_size}
    return config


def _explicit(values: dict[str, Any], fields: tuple[str, ...]) -> dict[str, Any]:
    """A part's configuration with its defaults written out, in the fields that transformers 4.30 knows."""
    config = CONFIG_MAPPING[values["model_type"]].from_dict(values)
    return {"model_type": values["model_type"]} | {name: getattr(config, name) for name in fields if hasattr(config, name)}


def _preprocessor(plan: MergePlan) -> bytes:
    folder = plan.preprocessor_folder
    for candidate in (folder, folder / "vision"):
        if (candidate / "preprocessor_config.json").is_file():
            return (candidate / "preprocessor_config.json").read_bytes()
    return load_image_processor(folder).to_json_string().encode()


def _generation_config(plan: MergePlan) -> bytes:
    for folder in (plan.text.files_folder / "text_encoder", plan.text.files_folder):
        if (folder / "generation_config.json").is_file():
            return (folder / "generation_config.json").read_bytes()
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    return _json({name: plan.text_config[name] for name in names if plan.text_config.get(name) is not None})


def _tokenizer_files(plan: MergePlan) -> dict[str, bytes]:
    """The tokenizer as it is where it is right, rebuilt where there is only sentencepiece's model; with the chat template."""
    folder = plan.tokenizer_folder
    if (folder / "tokenizer.json").is_file():
        files = {name: (folder / name).read_bytes() for name in TOKENIZER_FILES if (folder / name).is_file()}
        settings = read_json(folder / "tokenizer_config.json")
        if settings and settings.get("tokenizer_class") not in _AS_IT_IS:
            settings.pop("auto_map", None)
            files["tokenizer_config.json"] = _json(settings | {"tokenizer_class": _AS_IT_IS[0]})
    else:
        with tempfile.TemporaryDirectory() as scratch:
            load_tokenizer(folder).save_pretrained(scratch)
            files = {path.name: path.read_bytes() for path in sorted(Path(scratch).iterdir()) if path.is_file()}
        files["tokenizer.model"] = (folder / "tokenizer.model").read_bytes()
    template = folder / "chat_template.jinja"
    text = template.read_text(encoding="utf-8") if template.is_file() else ""
    if text and (plan.eyes_config is None or IMAGE_TOKEN in text):  # a base's own template has no place for pictures
        files["chat_template.jinja"] = plain_template(text).encode()
    elif plan.eyes_config is not None:
        files["chat_template.jinja"] = plain_template(CHAT_TEMPLATE).encode()
    return files


def _check_original(plan: MergePlan) -> None:
    """The original code knows LLaMA 1 and CLIP's vision encoder."""
    text, vision = plan.text_config, plan.eyes_config["vision_config"]
    heads = text.get("num_attention_heads")
    rope = text.get("rope_parameters") or {"rope_theta": text.get("rope_theta", 10000.0)}
    for is_wrong, what in (
        (text.get("model_type") != "llama", f"language model {text.get('model_type')!r}"),
        (vision.get("model_type") != "clip_vision_model", f"vision encoder {vision.get('model_type')!r}"),
        (not plan.eyes_config.get("use_visual_resampler", True), "a model without resampler"),
        (text.get("num_key_value_heads", heads) != heads, "grouped key and value heads"),
        (text.get("head_dim") not in (None, text.get("hidden_size", 0) // (heads or 1)), "a head_dim of its own"),
        (text.get("attention_bias") or text.get("mlp_bias"), "LLaMA with biases"),
        (text.get("rope_scaling") or rope.get("rope_type", "default") != "default", "scaled rotary embeddings"),
        (float(rope.get("rope_theta", 10000.0)) != 10000.0, f"rope_theta {rope.get('rope_theta')}"),
    ):
        if is_wrong:
            raise ValueError(
                f"Layout 'original' cannot hold {what}: the original VisualCLA code opens LLaMA 1 with CLIP only. Give --layout "
                "webui or transformers."
            )


def _text_buffers(plan: MergePlan, text: dict[str, Product]) -> dict[str, Product]:
    """What transformers 4.30 keeps in its files and later ones compute; and a head of its own where it is tied."""
    config = plan.text_config
    width = config["hidden_size"] // config["num_attention_heads"]
    inv_freq = 1.0 / (10000.0 ** (torch.arange(0, width, 2).float() / width))
    buffers = {
        f"model.layers.{layer}.self_attn.rotary_emb.inv_freq": Product(inv_freq, torch.float32)
        for layer in range(config["num_hidden_layers"])
    }
    if "lm_head.weight" not in text:
        buffers["lm_head.weight"] = text["model.embed_tokens.weight"]
    return buffers


def _vision_buffers(plan: MergePlan) -> dict[str, Product]:
    positions = plan.products["vision_model.embeddings.position_embedding.weight"].shape[0]
    return {"vision_model.embeddings.position_ids": Product(torch.arange(positions).unsqueeze(0), torch.int64)}


def _json(values: dict[str, Any]) -> bytes:
    return (json.dumps(values, indent=2, ensure_ascii=False) + "\n").encode()
