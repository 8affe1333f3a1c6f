"""OpenFlamingo as it was published: `checkpoint.pt`, and the LLaMA and the CLIP that it was trained on, which lie elsewhere."""

import os
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, GenerationConfig

from ..checkpoints.stored_tensors import read_header
from ..composite.checkpoint import read_text_model
from ..hub import resolve_folder
from ..json_files import read_json
from ..weights import load_tensors
from .checkpoint import Checkpoint, Tensors
from .configuration_open_flamingo import OpenFlamingoConfig
from .layouts import EMBEDDINGS, from_checkpoint, from_clip, from_lora, from_open_clip
from .processing_open_flamingo import IMAGE_TOKEN, NUM_NEW_TOKENS, load_image_processor, load_tokenizer


def read_original(file: Path, text_model: str | os.PathLike | None, vision_model: str | os.PathLike | None) -> Checkpoint:
    """`checkpoint.pt`, LLaMA and CLIP."""
    text_folder = _beside(file, text_model, "llama", "text_model", "the LLaMA")
    vision_path = _beside(file, vision_model, "clip", "vision_model", "the CLIP ViT-L/14")
    tensors = _read_checkpoint_pt(file)
    read_text_model(text_folder)
    text_config = AutoConfig.from_pretrained(text_folder, trust_remote_code=False)
    language = load_tensors(text_folder)
    _extend_vocabulary(tensors, language, text_config, file, text_folder)
    tensors |= {
        f"language_model.{name}": tensor for name, tensor in language.items() if not name.endswith("rotary_emb.inv_freq")
    }
    vision_config, vision = read_clip(vision_path)
    tokenizer = load_tokenizer(text_folder)
    image_token_id = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    if len(tokenizer) > text_config.vocab_size:
        raise ValueError(
            f"The tokenizer of {str(text_folder)!r} has {len(tokenizer)} tokens with OpenFlamingo's, but {file.name} has "
            f"{text_config.vocab_size} embeddings: it was made with another tokenizer. Give the LLaMA it was trained on."
        )
    config = _config_of(
        tensors, file, text_config=text_config.to_dict(), vision_config=vision_config, image_token_id=image_token_id
    )
    generation = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        # Their rows of the head are in no published file, the original makes them up at random: they are never an answer.
        suppress_tokens=list(range(text_config.vocab_size - NUM_NEW_TOKENS, text_config.vocab_size)),
    )
    image_processor = load_image_processor(vision_path, config.vision_config.image_size)
    return Checkpoint(config, tensors | vision, tokenizer, image_processor, generation, source=text_folder)


def _beside(file: Path, given: str | os.PathLike | None, name: str, argument: str, what: str) -> Path:
    path = file.with_name(name) if given is None else Path(given).expanduser()
    if path.is_dir() or (path.is_file() and argument == "vision_model"):
        return path
    if given is not None:
        return resolve_folder(given)
    raise ValueError(
        f"{str(file)!r} is a part of OpenFlamingo: it also needs {what} it was trained on. Give {argument} (--{argument}), or put it "
        f"beside it in '{name}/'."
    )


def named_tensors(file: Path) -> Tensors:
    """The tensors of a PyTorch checkpoint, left on disk; nothing of it is run.

    Raises:
        ValueError: it holds no named tensors.
    """
    if not (found := read_header(file)):
        raise ValueError(f"{str(file)!r} holds no named tensors: it is no checkpoint of OpenFlamingo or Multimodal-GPT.")
    return {name: tensor.map() for name, tensor in found.items()}


def is_published(path: Path) -> bool:
    """Whether a file is OpenFlamingo's or Multimodal-GPT's, or a folder holds `checkpoint.pt`."""
    file = path / "checkpoint.pt" if path.is_dir() else path
    try:
        if not file.is_file():
            return False
        names = [name.removeprefix("module.") for name in read_header(file)]
    except ValueError:
        return False
    return any(name.startswith(("perceiver.", "lang_encoder.")) for name in names)


def _read_checkpoint_pt(file: Path) -> Tensors:
    stored = named_tensors(file)
    tensors: Tensors = {}
    for name, tensor in stored.items():
        ours = from_checkpoint(name)
        if ours is None:
            continue
        twin = tensors.setdefault(ours, tensor)
        if twin.data_ptr() != tensor.data_ptr() and not torch.equal(twin, tensor):
            raise ValueError(f"{str(file)!r} holds {ours!r} twice, with different values. Copy the file again.")
    if "perceiver.latents" not in tensors or EMBEDDINGS not in tensors:
        lora = any(from_lora(name) for name in stored)
        what = "a LoRA: give it as lora_model" if lora else "another model, or OpenFlamingo v2, which is none of LLaMA"
        raise ValueError(f"{str(file)!r} is no checkpoint of OpenFlamingo v1 but {what}. Its first names: {[*stored][:3]}.")
    return tensors


def _extend_vocabulary(tensors: Tensors, language: Tensors, text_config: Any, file: Path, text_folder: Path) -> None:
    """Give the language model the rows of the new tokens, after a look whether it is the one that was trained with."""
    embeddings = tensors.pop(EMBEDDINGS)
    own, head = language.get("model.embed_tokens.weight"), language.get("lm_head.weight")
    if own is None or head is None:
        raise ValueError(
            f"{str(text_folder)!r} is no LLaMA: its first tensors are {[*language][:3]}. Give the LLaMA of {file.name}."
        )
    if own.shape[1] != embeddings.shape[1] or own.shape[0] > embeddings.shape[0]:
        raise ValueError(
            f"{str(file)!r} was trained on a language model with {embeddings.shape[0]} x {embeddings.shape[1]} embeddings, new tokens "
            f"included, but that of {str(text_folder)!r} has {own.shape[0]} x {own.shape[1]}. Give the LLaMA it was trained on."
        )
    same, other = embeddings[: len(own)].float(), own.float()
    differing = int(((same - other).abs() > 2**-7 * other.abs() + 1e-6).any(-1).sum())
    if differing > len(own) // 100:
        raise ValueError(
            f"{differing} of {len(own)} token embeddings of {str(text_folder)!r} are not those that {str(file)!r} was trained with: "
            "it is another model of the same size (a Vicuna, say). Give the LLaMA it was trained on."
        )
    language["model.embed_tokens.weight"] = embeddings
    language["lm_head.weight"] = torch.cat([head, head.new_zeros(len(embeddings) - len(head), head.shape[1])])
    text_config.vocab_size = len(embeddings)


def _config_of(tensors: Tensors, file: Path, **fields: Any) -> OpenFlamingoConfig:
    """The sizes of perceiver and gated layers, from their tensors."""
    layers = sorted({int(name.split(".")[1]) for name in tensors if name.startswith("gated_cross_attn_layers.")})
    num_blocks = len({name.split(".")[2] for name in tensors if name.startswith("perceiver.layers.")})
    try:
        first = f"gated_cross_attn_layers.{layers[0]}"
        config = OpenFlamingoConfig(
            perceiver_config={
                "num_latents": tensors["perceiver.latents"].shape[0],
                "hidden_size": tensors["perceiver.latents"].shape[1],
                "num_hidden_layers": num_blocks,
                "head_dim": tensors["perceiver.layers.0.0.to_q.weight"].shape[0] // 8,
                "intermediate_size": tensors["perceiver.layers.0.1.1.weight"].shape[0],
            },
            cross_attn_every_n_layers=layers[0] + 1,
            cross_attn_head_dim=tensors[f"{first}.attn.to_q.weight"].shape[0] // 8,
            cross_attn_intermediate_size=tensors[f"{first}.ff.1.weight"].shape[0],
            **fields,
        )
    except (KeyError, IndexError) as error:
        raise ValueError(
            f"{str(file)!r} is a half checkpoint of OpenFlamingo: {error} is missing. Copy the file again."
        ) from error
    if config.gated_layers != layers:
        raise ValueError(
            f"{str(file)!r} has gated layers before the decoder layers {layers}, but a language model of "
            f"{config.text_config.num_hidden_layers} layers has them before {config.gated_layers}: they belong to another one."
        )
    return config


def read_clip(path: Path) -> tuple[dict[str, Any], Tensors]:
    """A CLIP vision encoder: its configuration, its weights.

    Args:
        path: a folder of transformers' CLIP, or a file of open_clip with, perhaps, its configuration in a `.json` of the same name.

    Raises:
        ValueError: there is no vision encoder of CLIP in it.
    """
    if path.is_dir():
        values = read_json(path / "config.json")
        config = values.get("vision_config", values) | {"model_type": "clip_vision_model"}
        named = ((from_clip(name), tensor) for name, tensor in load_tensors(path).items())
        tensors = {name: tensor for name, tensor in named if name is not None}
    else:
        stored = named_tensors(path)
        tensors = {}
        for name, tensor in stored.items():
            tensors |= from_open_clip(name, tensor)
        config = _open_clip_config(path, tensors) if tensors else {}
    if not tensors:
        raise ValueError(
            f"{str(path)!r} holds no vision encoder of CLIP. Give the CLIP ViT-L/14 that OpenFlamingo was trained on."
        )
    return config, tensors


def _open_clip_config(file: Path, tensors: Tensors) -> dict[str, Any]:
    settings = read_json(file.with_suffix(".json"))
    width, _, patch_px, _ = tensors["vision_model.embeddings.patch_embedding.weight"].shape
    num_patches = len(tensors["vision_model.embeddings.position_embedding.weight"]) - 1
    return {
        "model_type": "clip_vision_model",
        "hidden_size": width,
        "intermediate_size": tensors["vision_model.encoder.layers.0.mlp.fc1.weight"].shape[0],
        "num_hidden_layers": sum(name.endswith(".mlp.fc1.weight") for name in tensors),
        "num_attention_heads": width // settings.get("vision_cfg", {}).get("head_width", 64),
        "patch_size": patch_px,
        "image_size": patch_px * round(num_patches**0.5),
        "hidden_act": "quick_gelu" if settings.get("quick_gelu", True) else "gelu",
    }
