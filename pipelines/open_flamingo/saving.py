"""Writing OpenFlamingo's layouts, tensor by tensor. `loading.py` reads them, and says what they are."""

import copy
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, get_args

import torch

from ..composite.tensors import MAX_SHARD_BYTES, new_folder, write_safetensors
from .checkpoint import Checkpoint
from .layouts import EMBEDDINGS, PARTS, to_checkpoint
from .loading import read_checkpoint
from .modeling_open_flamingo import OpenFlamingoForConditionalGeneration
from .processing_open_flamingo import END_OF_CHUNK, NUM_NEW_TOKENS, OpenFlamingoProcessor

Layout = Literal["webui", "transformers", "original"]
(LANGUAGE,) = PARTS["language"]
(ENCODER,) = PARTS["vision"]


def convert(
    path: str | os.PathLike,
    output_dir: str | os.PathLike,
    layout: Layout,
    *,
    text_model: str | os.PathLike | None = None,
    vision_model: str | os.PathLike | None = None,
    lora_model: str | os.PathLike | None = None,
    dtype: torch.dtype | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    force: bool = False,
) -> None:
    """A model in any layout into another, a LoRA merged; what `python -m training merge` and `convert` call. See `load_model`."""
    checkpoint = read_checkpoint(path, text_model, vision_model, lora_model)
    write(
        checkpoint, output_dir, layout, dtype or checkpoint.tensors[f"{LANGUAGE}lm_head.weight"].dtype, max_shard_bytes, force
    )


def save_model(
    model: OpenFlamingoForConditionalGeneration,
    processor: OpenFlamingoProcessor,
    folder: str | os.PathLike,
    layout: Layout = "webui",
    force: bool = True,
) -> Path:
    """Save a whole model that is loaded, in the dtypes its weights have.

    Raises:
        ValueError: the language model is quantised or holds LoRA layers, or the layout is unknown.
        FileExistsError: the folder holds something else than a model, or a model and `force` is not given.
    """
    if getattr(model.language_model, "is_quantized", False):
        raise ValueError("The language model is quantised: load it in 16 or 32 bits before saving.")
    if lora := [name for name, _ in model.named_parameters() if ".lora_" in name]:
        raise ValueError(f"The model holds {len(lora)} LoRA tensors, the first: {lora[:3]}. Merge them before saving.")
    parts = processor.tokenizer, processor.image_processor, model.generation_config, processor.chat_template
    write(Checkpoint(model.config, model.state_dict(), *parts), folder, layout, force=force)
    return Path(folder)


def write(
    checkpoint: Checkpoint,
    target: str | os.PathLike,
    layout: Layout = "webui",
    dtype: torch.dtype | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    force: bool = False,
) -> None:
    """Write a model; the folder appears whole or not at all.

    Args:
        checkpoint: the model.
        target: a folder that does not exist yet, or with `force` one that holds a model.
        layout: see `loading.py`.
        dtype: of the written weights; as stored when absent.
        max_shard_bytes: of a weight file.

    Raises:
        FileExistsError: the target holds something.
        ValueError: the layout is unknown, or a value is not finite.
    """
    if layout not in get_args(Layout):
        raise ValueError(f"Unknown layout {layout!r}. Available: {', '.join(get_args(Layout))}.")
    with new_folder(Path(target).expanduser(), force) as folder:
        if layout == "original":
            _write_original(checkpoint, folder, dtype, max_shard_bytes)
        else:
            _write_own(checkpoint, folder, layout, dtype, max_shard_bytes)
        for weights in folder.rglob("*.safetensors"):
            weights.chmod(0o644)  # safetensors lets the owner alone read, but a web UI may run as somebody else
        read_checkpoint(folder)  # before it gets its name: every tensor in its place, whatever wrote it


def _write_own(checkpoint: Checkpoint, folder: Path, layout: Layout, dtype: torch.dtype | None, max_shard_bytes: int) -> None:
    config = copy.deepcopy(checkpoint.config)
    config.dtype = config.text_config.dtype = dtype or checkpoint.tensors[f"{LANGUAGE}lm_head.weight"].dtype
    if layout == "webui":
        vision = folder / "vision"
        vision.mkdir()
        rest = ((name, tensor) for name, tensor in checkpoint.merged(dtype) if not name.startswith(LANGUAGE))
        write_safetensors(rest, vision, max_shard_bytes)
        config.architectures = ["OpenFlamingoVisionModel"]
        config.save_pretrained(vision)
        checkpoint.image_processor.save_pretrained(vision)
        write_safetensors(_without(LANGUAGE, checkpoint.merged(dtype)), folder, max_shard_bytes)
        config.text_config.architectures = ["LlamaForCausalLM"]
        config.text_config.save_pretrained(folder)
    else:
        write_safetensors(checkpoint.merged(dtype), folder, max_shard_bytes)
        config.architectures = ["OpenFlamingoForConditionalGeneration"]
        config.save_pretrained(folder)
        checkpoint.image_processor.save_pretrained(folder)
    _write_text_side(checkpoint, folder)


def _write_original(checkpoint: Checkpoint, folder: Path, dtype: torch.dtype | None, max_shard_bytes: int) -> None:
    """`checkpoint.pt`, with LLaMA as it was before it got new tokens in `llama/` and CLIP in `clip/`."""
    num_tokens = checkpoint.tokenizer.convert_tokens_to_ids(END_OF_CHUNK)  # the first of the new ones
    if num_further := checkpoint.config.text_config.vocab_size - num_tokens - NUM_NEW_TOKENS:
        raise ValueError(
            f"An adapter brought {num_further} tokens of its own, and checkpoint.pt has no place for their rows of the head. Write it "
            "with --layout webui or transformers."
        )
    stored = {}
    for ours, tensor in checkpoint.merged(dtype):
        if names := to_checkpoint(ours):  # of its own storage: a view would be written with all that it is a part of
            stored |= dict.fromkeys(names, tensor.clone())
    torch.save(stored, folder / "checkpoint.pt")

    resized = {EMBEDDINGS.removeprefix(LANGUAGE), "lm_head.weight"}
    llama = folder / "llama"
    llama.mkdir()
    language = _without(LANGUAGE, checkpoint.merged(dtype))
    write_safetensors(
        ((name, tensor[:num_tokens] if name in resized else tensor) for name, tensor in language), llama, max_shard_bytes
    )
    text_config = copy.deepcopy(checkpoint.config.text_config)
    text_config.vocab_size = num_tokens
    text_config.architectures = ["LlamaForCausalLM"]
    text_config.dtype = dtype or checkpoint.tensors[f"{LANGUAGE}lm_head.weight"].dtype
    text_config.save_pretrained(llama)
    _write_text_side(checkpoint, llama)

    clip = folder / "clip"
    clip.mkdir()
    encoder = ((f"vision_model.{name}", tensor) for name, tensor in _without(ENCODER, checkpoint.merged(dtype)))
    write_safetensors(encoder, clip, max_shard_bytes)
    checkpoint.config.vision_config.save_pretrained(clip)
    checkpoint.image_processor.save_pretrained(clip)


def _without(prefix: str, tensors: Iterable[tuple[str, torch.Tensor]]) -> Iterable[tuple[str, torch.Tensor]]:
    """Those of a part, without its prefix."""
    return ((name.removeprefix(prefix), tensor) for name, tensor in tensors if name.startswith(prefix))


def _write_text_side(checkpoint: Checkpoint, folder: Path) -> None:
    processor = OpenFlamingoProcessor(checkpoint.image_processor, checkpoint.tokenizer, checkpoint.chat_template)
    processor.tokenizer.save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(processor.chat_template, encoding="utf-8")
    checkpoint.generation_config.save_pretrained(folder)
    if (checkpoint.source / "tokenizer.model").is_file():  # what the original's code reads
        shutil.copyfile(checkpoint.source / "tokenizer.model", folder / "tokenizer.model")
