"""MiniGPT-4's published files: a Vicuna folder, `eva_vit_g.pth`, `blip2_pretrained_flant5xxl.pth` and a projection; LRV V1's checkpoint.

Files are told by what is in them, not by their names. They lie in one folder, or the language model and the vision files elsewhere.
"""

import dataclasses
import logging
import os
from pathlib import Path
from typing import Any

import torch

from ..composite.checkpoint import Family, Output, read_text_model
from ..composite.lora import with_adapter
from ..composite.parts import Parts
from ..composite.tensors import stored_tensors, write_pickles
from ..mplug_owl.checkpoint import copy_tokenizer
from .configuration_minigpt4 import MiniGPT4Config
from .layouts import ENCODER, kind_of, num_blocks, vision_from_published, vision_to_published
from .modeling_minigpt4 import MiniGPT4ForConditionalGeneration, MiniGPT4VisionModel
from .processing_minigpt4 import MiniGPT4Processor

SAMPLING = {"do_sample": True, "top_p": 0.9, "temperature": 1.0, "max_new_tokens": 300}
"""The demo's settings."""

logger = logging.getLogger(__name__)

LATER_VICUNA_TOKENS = 32000
LORA_ALPHA = 16
"""lora_alpha where no `adapter_config.json` says it."""

FILES = {
    "encoder": "eva_vit_g.pth",
    "qformer": "blip2_pretrained_flant5xxl.pth",
    "projection": "pretrained_minigpt4_7b.pth",
}
_EVA_HEAD_WIDTH, _BERT_HEAD_WIDTH = 88, 64


def is_published(path: Path) -> bool:
    """Whether a file is one of MiniGPT-4's, or a folder holds a projection of it.

    Raises:
        ValueError: the file is broken or could run code. In a folder such files are passed over: they may be anybody's.
    """
    if path.is_file():
        return kind_of(stored_tensors(path)) is not None
    for file in sorted(path.glob("*.pth")):
        try:
            if kind_of(stored_tensors(file)) == "projection":
                return True
        except ValueError:
            continue
    return False


def read_original(
    path: Path,
    text_model: str | os.PathLike | None = None,
    vision_model: str | os.PathLike | None = None,
    with_language: bool = True,
) -> Parts:
    """The published files as they lie.

    Args:
        path: the projection's file (`pretrained_minigpt4_7b.pth`, `checkpoint_0.pth`), or a folder that holds one.
        text_model: folder of Vicuna or LLaMA-2-Chat; `path` when it holds one.
        vision_model: folder with `eva_vit_g.pth` and `blip2_pretrained_flant5xxl.pth`; that of `path` when absent.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is something else, or not whole.
    """
    folder = path if path.is_dir() else path.parent
    found = _published(Path(vision_model).expanduser() if vision_model else folder, path)
    needed = ["encoder", "projection"]
    projection = found.get("projection", (None, {}))[1].get("llama_proj.weight")
    vision_width = found["encoder"][1]["pos_embed"].shape[-1] if "encoder" in found else None
    use_qformer = projection is None or vision_width is None or projection.shape[1] != 4 * vision_width
    needed += ["qformer"] if use_qformer else []
    if missing := [FILES[kind] for kind in needed if kind not in found]:
        there = [file.name for file, _ in found.values()]
        raise FileNotFoundError(
            f"{str(path)!r} is no whole MiniGPT-4: no file in it holds what {' and '.join(missing)} {'do' if len(missing) > 1 else 'does'}"
            f"{f'; found {there}' if there else ''}. Put all published files into one folder, or give --vision_model."
        )
    tensors = {f"{ENCODER}{name}": tensor for name, tensor in found["encoder"][1].items()}
    if use_qformer:
        tensors |= found["qformer"][1]
    else:  # the LLaMA-2 variant never loads one: the norm is as it is made
        tensors |= {"ln_vision.weight": torch.ones(vision_width), "ln_vision.bias": torch.zeros(vision_width)}
    tensors |= found["projection"][1]
    source = repr(str(path))
    text_folder, language, text_config = None, None, {}
    if text_model is not None or (folder / "config.json").is_file():
        text_folder, text_config = read_text_model(text_model or folder)
        language = _language_of(text_folder) if with_language else None
    elif with_language:
        raise FileNotFoundError(
            f"{source} holds no language model. Give Vicuna (for the LLaMA-2 variant: LLaMA-2-Chat) with --text_model, or put its "
            "files beside."
        )
    config = _config_of(tensors, use_qformer, text_config)
    if language is not None:
        _check_partner(config, tensors, text_folder, source)
    depth = config.vision_config.num_hidden_layers
    return Parts(config, vision_from_published(tensors, depth), language, text_folder or folder, source)


def _published(folder: Path, path: Path) -> dict[str, tuple[Path, dict[str, torch.Tensor]]]:
    """(file, tensors) of each kind. Of several projections the one that was named counts; else there must be one only."""
    found: dict[str, tuple[Path, dict[str, torch.Tensor]]] = {}
    candidates = sorted(file for suffix in ("*.pth", "*.pt", "*.safetensors") for file in folder.glob(suffix) if file != path)
    if path.is_dir() and path != folder:
        candidates += sorted(path.glob("*.pth"))
    named = [path] if path.is_file() else []
    for file in [*named, *candidates]:
        tensors = stored_tensors(file)
        kind = kind_of(tensors)
        if kind is None and file in named:
            raise ValueError(
                f"{str(file)!r} is no file of MiniGPT-4: none of its {len(tensors)} tensors is 'llama_proj.weight' "
                f"(it begins with {next(iter(tensors))!r})."
            )
        if kind is None or (kind == "projection" and named and file not in named):
            continue
        if kind in found:
            raise ValueError(
                f"{str(found[kind][0])!r} and {file.name!r} are both a {kind} of MiniGPT-4. Name the one that is meant instead of "
                "the folder, or move the other away."
            )
        found[kind] = (file, tensors)
    return found


def _language_of(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in stored_tensors(folder).items()}


def _config_of(tensors: dict[str, torch.Tensor], use_qformer: bool, text: dict[str, Any]) -> MiniGPT4Config:
    """Sizes counted on the weights. Heads are not in them: 88 wide in EVA-CLIP-g, 64 in BERT; narrow test models have 2 and 4."""
    names = tensors.keys()
    patch = tensors[f"{ENCODER}patch_embed.proj.weight"]
    width = patch.shape[0]
    positions = tensors[f"{ENCODER}pos_embed"].shape[1]
    vision = {
        "hidden_size": width,
        "intermediate_size": tensors[f"{ENCODER}blocks.0.mlp.fc1.weight"].shape[0],
        "num_hidden_layers": num_blocks([name for name in names if name.startswith(ENCODER)]),
        "num_attention_heads": width // _EVA_HEAD_WIDTH if width >= 4 * _EVA_HEAD_WIDTH else 2,
        "patch_size": patch.shape[-1],
        "image_size": round((positions - 1) ** 0.5) * patch.shape[-1],
    }
    qformer = {"encoder_hidden_size": width}
    num_query_tokens = 0
    if use_qformer:
        layers = [name for name in names if name.startswith("Qformer.bert.encoder.layer.")]
        num_query_tokens, hidden = tensors["query_tokens"].shape[1:]
        qformer |= {
            "hidden_size": hidden,
            "intermediate_size": tensors["Qformer.bert.encoder.layer.0.intermediate_query.dense.weight"].shape[0],
            "num_hidden_layers": 1 + max(int(name.split(".")[4]) for name in layers),
            "num_attention_heads": hidden // _BERT_HEAD_WIDTH if hidden >= 4 * _BERT_HEAD_WIDTH else 4,
        }
    text_width = tensors["llama_proj.weight"].shape[0]
    return MiniGPT4Config(
        text_config={**{key: value for key, value in text.items() if key in _TEXT_FIELDS}} or {"hidden_size": text_width},
        vision_config=vision,
        qformer_config=qformer,
        use_qformer=use_qformer,
        num_query_tokens=num_query_tokens,
        prompt_style="v1" if use_qformer else "llama2",
    )


_TEXT_FIELDS = [
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "hidden_act",
    "hidden_size",
    "initializer_range",
    "intermediate_size",
    "max_position_embeddings",
    "num_attention_heads",
    "num_hidden_layers",
    "num_key_value_heads",
    "rms_norm_eps",
    "tie_word_embeddings",
    "vocab_size",
    "rope_theta",
    "rope_scaling",
]


def _check_partner(config: MiniGPT4Config, tensors: dict[str, torch.Tensor], text_folder: Path, source: str) -> None:
    given, expected = tensors["llama_proj.weight"].shape[0], config.text_config.hidden_size
    if given != expected:
        raise ValueError(
            f"{source}: the projection is for a language model of width {given}, but {str(text_folder)!r} has width {expected} "
            "(4096 is a 7B, 5120 a 13B). Give the matching pair."
        )
    if config.use_qformer and config.text_config.vocab_size == LATER_VICUNA_TOKENS:
        logger.warning(
            "%r has %d tokens; Vicuna v0, which MiniGPT-4 was made for, has %d. Later Vicunas were not taught its '###'.",
            str(text_folder),
            LATER_VICUNA_TOKENS,
            LATER_VICUNA_TOKENS + 1,
        )


def apply_adapter(parts: Parts, path: Path) -> Parts:
    """Another projection, such as LRV-Instruction V1's `checkpoint_0.pth`, or a LoRA on the language model.

    Raises:
        ValueError: it is neither.
    """
    tensors = stored_tensors(path)
    if not any(".lora_" in name for name in tensors):
        if "llama_proj.weight" not in tensors:
            raise ValueError(
                f"{str(path)!r} holds neither a projection ('llama_proj.weight') nor a LoRA. Give LRV V1's checkpoint."
            )
        vision = parts.vision | vision_from_published(tensors, parts.config.vision_config.num_hidden_layers)
        width = parts.config.text_config.hidden_size
        if tensors["llama_proj.weight"].shape[0] != width:
            raise ValueError(
                f"{str(path)!r} is for a language model of width {tensors['llama_proj.weight'].shape[0]}, but this one has {width} "
                "(4096 is a 7B, 5120 a 13B). Give the matching pair."
            )
        return dataclasses.replace(parts, vision=vision)
    depth = parts.config.vision_config.num_hidden_layers
    return with_adapter(parts, path, MiniGPT4VisionModel, LORA_ALPHA, lambda published: vision_from_published(published, depth))


def write_original(parts: Parts, out: Output) -> None:
    """The published layout, all in one folder: the language model's, and three `.pth` files under their published names."""
    folder, published = out.folder, dict(out.checked(vision_to_published(parts.vision).items(), parts.source))
    encoder = {n.removeprefix(ENCODER): t.clone() for n, t in published.items() if n.startswith(ENCODER)}
    projection = {n: t.clone() for n, t in published.items() if n.startswith("llama_proj.")}
    rest = {n: t.clone() for n, t in published.items() if not n.startswith((ENCODER, "llama_proj."))}
    write_pickles(out.checked(parts.language_tensors(), parts.source), folder, out.max_shard_bytes)
    text = parts.config.text_config
    text.architectures = ["LlamaForCausalLM"]
    text.save_pretrained(folder)
    torch.save(encoder, folder / FILES["encoder"])
    torch.save({"model": projection}, folder / FILES["projection"])
    if parts.config.use_qformer:
        torch.save({"model": rest}, folder / FILES["qformer"])
    copy_tokenizer(parts.tokenizer_folder, folder)


FAMILY = Family(
    name="minigpt4",
    model_class=MiniGPT4ForConditionalGeneration,
    vision_class=MiniGPT4VisionModel,
    processor_class=MiniGPT4Processor,
    read_original=read_original,
    write_original=write_original,
    apply_adapter=apply_adapter,
)
