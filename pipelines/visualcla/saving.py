"""Writing a model folder: the language model at the root, the eyes in `vision/`. `checkpoint.py` reads it."""

import os
import shutil
from pathlib import Path

from safetensors.torch import save_file

from ..tokenization import plain_template
from .layouts import VISION_PARTS
from .modeling_visualcla import VisualCLAForConditionalGeneration
from .processing_visualcla import VisualCLAProcessor


def save_model_folder(
    model: VisualCLAForConditionalGeneration, processor: VisualCLAProcessor, folder: str | os.PathLike
) -> Path:
    """Save a whole model in layout `webui`, in the dtypes its weights have.

    The folder appears complete or not at all: it is written under a temporary name beside it, then renamed. A folder that
    was there before is replaced.

    Args:
        model: without LoRA layers (merge them first).
        processor: its tokenizer, image processor and chat template.
        folder: where the model goes.

    Returns:
        `folder` as a path.

    Raises:
        ValueError: the model still holds LoRA layers.
    """
    folder = Path(folder)
    if lora := [name for name, _ in model.named_parameters() if ".lora_" in name]:
        raise ValueError(f"The model holds {len(lora)} LoRA tensors, the first: {lora[:3]}. Merge them before saving.")
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    model.text_model.save_pretrained(partial)
    processor.tokenizer.save_pretrained(partial)
    (partial / "chat_template.jinja").write_text(plain_template(processor.chat_template), encoding="utf-8")
    save_eyes(model, processor.image_processor, partial / "vision")
    replace_folder(partial, folder)
    return folder


def save_eyes(model: VisualCLAForConditionalGeneration, image_processor, folder: Path) -> None:
    """Save vision encoder, resampler and projector with their configuration and image processor."""
    folder.mkdir(parents=True)
    stored = {model.stored_name(name): tensor for name, tensor in model.state_dict().items()}
    state = {name: tensor.contiguous() for name, tensor in stored.items() if name.split(".")[0] in VISION_PARTS}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    config = type(model.config).from_dict(model.config.to_dict())
    config.architectures = ["VisualCLAVisionModel"]
    config.dtype = model.image_projection_layer.weight.dtype
    config.save_pretrained(folder)
    image_processor.save_pretrained(folder)


def replace_folder(new: Path, folder: Path) -> None:
    """Rename `new` to `folder`; what was there before goes once the new one stands."""
    for weights in new.rglob("*.safetensors"):
        weights.chmod(0o644)  # safetensors lets the owner alone read, but a web UI may run as somebody else
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
