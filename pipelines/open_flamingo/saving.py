"""Writing OpenFlamingo's layouts. `loading.py` reads them, and says what they are."""

import copy
import os
import shutil
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save_file

from ..visualcla.saving import replace_folder
from .layouts import EMBEDDINGS, to_checkpoint
from .loading import language_tensors, load_model, vision_tensors
from .modeling_open_flamingo import OpenFlamingoForConditionalGeneration
from .processing_open_flamingo import END_OF_CHUNK, OpenFlamingoProcessor

Layout = Literal["webui", "transformers", "original"]


def save_model(
    model: OpenFlamingoForConditionalGeneration,
    processor: OpenFlamingoProcessor,
    folder: str | os.PathLike,
    layout: Layout = "webui",
) -> Path:
    """Save a whole model, in the dtypes its weights have.

    The folder appears complete or not at all: it is written under a temporary name beside it, then renamed. A folder that was
    there before is replaced.

    Raises:
        ValueError: the language model is quantised or holds LoRA layers, or the layout is unknown.
    """
    writers = {"webui": _write_webui, "transformers": _write_transformers, "original": _write_original}
    if layout not in writers:
        raise ValueError(f"Unknown layout {layout!r}. Available: {', '.join(writers)}.")
    if getattr(model.language_model, "is_quantized", False):
        raise ValueError("The language model is quantised: load it in 16 or 32 bits before saving.")
    if lora := [name for name, _ in model.named_parameters() if ".lora_" in name]:
        raise ValueError(f"The model holds {len(lora)} LoRA tensors, the first: {lora[:3]}. Merge them before saving.")
    folder = Path(folder)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    writers[layout](model, processor, partial)
    replace_folder(partial, folder)
    return folder


def convert(
    path: str | os.PathLike,
    output_dir: str | os.PathLike,
    layout: Layout,
    *,
    dtype: torch.dtype | None = None,
    max_shard_bytes: int | None = None,
    force: bool = False,
    **bases: str | os.PathLike | None,
) -> None:
    """What `python -m training merge` and `convert` call: see `pipelines.registry.converter`.

    Args:
        path: see `loading.load_model`.
        output_dir: where the folder goes.
        layout: of the folder.
        dtype: of the written weights; as stored when absent.
        max_shard_bytes: not used: the weights of a layout are one file each.
        force: replace what is in `output_dir`.
        bases: `text_model`, `vision_model`, `lora_model`.

    Raises:
        FileExistsError: `output_dir` holds something, and `force` is not given.
    """
    output_dir = Path(output_dir)
    if not force and output_dir.exists() and (not output_dir.is_dir() or any(output_dir.iterdir())):
        raise FileExistsError(f"{str(output_dir)!r} exists already. Choose another --output_dir, or give --force.")
    model, processor = load_model(path, dtype="auto" if dtype is None else dtype, **bases)
    save_model(model, processor, output_dir, layout)


def _write_webui(model: OpenFlamingoForConditionalGeneration, processor: OpenFlamingoProcessor, folder: Path) -> None:
    model.language_model.save_pretrained(folder)
    _write_text_side(processor, folder)
    vision = folder / "vision"
    vision.mkdir()
    tensors = {name: tensor.contiguous() for name, tensor in vision_tensors(model.state_dict()).items()}
    save_file(tensors, vision / "model.safetensors", metadata={"format": "pt"})
    config = copy.deepcopy(model.config)
    config.architectures = ["OpenFlamingoVisionModel"]
    config.dtype = model.perceiver.latents.dtype
    config.save_pretrained(vision)
    processor.image_processor.save_pretrained(vision)


def _write_transformers(model: OpenFlamingoForConditionalGeneration, processor: OpenFlamingoProcessor, folder: Path) -> None:
    model.save_pretrained(folder)
    _write_text_side(processor, folder)
    processor.image_processor.save_pretrained(folder)


def _write_original(model: OpenFlamingoForConditionalGeneration, processor: OpenFlamingoProcessor, folder: Path) -> None:
    """`checkpoint.pt`, with LLaMA as it was before it got new tokens in `llama/` and CLIP in `clip/`."""
    tensors = model.state_dict()
    torch.save({theirs: tensors[ours] for ours in tensors for theirs in to_checkpoint(ours)}, folder / "checkpoint.pt")

    num_tokens = processor.tokenizer.convert_tokens_to_ids(END_OF_CHUNK)  # the first of the new ones
    language = language_tensors(tensors)
    for name in (EMBEDDINGS.removeprefix("language_model."), "lm_head.weight"):
        language[name] = language[name][:num_tokens].contiguous()
    config = copy.deepcopy(model.language_model.config)
    config.vocab_size = num_tokens
    llama = folder / "llama"
    llama.mkdir()
    save_file(
        {name: tensor.contiguous() for name, tensor in language.items()}, llama / "model.safetensors", metadata={"format": "pt"}
    )
    config.save_pretrained(llama)
    _write_text_side(processor, llama)

    clip = folder / "clip"
    clip.mkdir()
    encoder = {f"vision_model.{name}": tensor.contiguous() for name, tensor in model.vision_model.state_dict().items()}
    save_file(encoder, clip / "model.safetensors", metadata={"format": "pt"})
    model.vision_model.config.save_pretrained(clip)
    processor.image_processor.save_pretrained(clip)


def _write_text_side(processor: OpenFlamingoProcessor, folder: Path) -> None:
    processor.tokenizer.save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(processor.chat_template, encoding="utf-8")
