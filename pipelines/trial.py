"""Whether a model folder that looks whole would answer: its parts are tried without its weights.

The language model is made on the meta device and compared with what its files hold; tokenizer, generation settings, chat template and
image processor are opened and used once on a small picture. What fails is a sentence for the doctor. Needs PyTorch.
"""

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from PIL import Image
from transformers import GenerationConfig

from .chat_template import apply_chat_template, check_chat_template
from .checkpoints.offsets import StoredTensor
from .checkpoints.stored_tensors import stored_tensors
from .checkpoints.structure import language_model, model_config, read_config
from .json_files import read_json
from .registry import check_generation, load_prompt_side
from .tokenization import has_tokenizer, load_tokenizer

MAX_SIDE_PX = 4096
"""Of what an image processor makes; published ones stay below 2,000."""


def faults(folder: Path, found: str | None) -> Iterator[str]:
    """What keeps a folder from answering, a sentence each.

    Args:
        folder: with weights and, of a known family, an image processor; nothing that its names tell is missing.
        found: its family; None for a language model by itself.
    """
    trials: list[Callable[[], object]] = [lambda: _try_generation(folder)]
    if found is None or (folder / "vision" / "config.json").is_file():
        trials += [lambda: _try_language_model(folder), lambda: _try_tokenizer(folder)]
    if found is not None:
        trials.append(lambda: _try_processor(folder, found))
    for trial in trials:
        try:
            trial()
        except Exception as error:  # odd values lead the libraries to any exception
            told = " ".join(str(error).split())[:400]
            yield told if isinstance(error, OSError | ValueError) else f"{str(folder)!r}: {type(error).__name__}: {told}"


def _try_language_model(folder: Path) -> None:
    values = read_config(folder)
    if values.get("quantization_config"):  # stored otherwise than the model is made
        return
    tensors: dict[str, StoredTensor] = stored_tensors(folder)
    found = language_model(values, tensors, folder)
    config, rows = model_config(values, folder).get_text_config(), tensors[found.embedding].shape[0]
    if config.vocab_size != rows:
        raise ValueError(
            f"{str(folder / 'config.json')!r} says vocab_size {config.vocab_size}, but its weights have {rows} token embeddings. Copy "
            "the file again."
        )
    for name in ("max_position_embeddings", "rms_norm_eps", "layer_norm_eps"):
        value = getattr(config, name, 1)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 2**31:
            raise ValueError(
                f"{str(folder / 'config.json')!r} says {name} {value!r}; it is a number above 0. Copy the file again."
            )


def _try_tokenizer(folder: Path) -> None:
    if not has_tokenizer(folder):  # told by the names of the files
        return
    if not load_tokenizer(folder)("What is this?")["input_ids"]:
        raise ValueError(f"The tokenizer of {str(folder)!r} makes no tokens of a text. Copy its files again.")


def _try_generation(folder: Path) -> None:
    if read_json(folder / "generation_config.json"):
        check_generation(GenerationConfig.from_pretrained(folder), folder)


def _try_processor(folder: Path, found: str) -> None:
    for place in (folder, folder / "vision"):
        for name in ("preprocessor_config.json", "processor_config.json"):
            if side := next((side for side in _sides(read_json(place / name)) if not 0 < side <= MAX_SIDE_PX), None):
                raise ValueError(
                    f"{str(place / name)!r} makes pictures of {side} pixels a side; a model takes 1 to {MAX_SIDE_PX}. Copy the file again."
                )
    family = importlib.import_module(f".{found}", __package__)
    if hasattr(family, "check_vision_files"):
        family.check_vision_files(folder)
    if found == "native":
        processor = importlib.import_module(".native.processing", __package__).load_processor(folder)
        check_chat_template(processor, repr(str(folder)))
    elif hasattr(family, "load_prompt_side") and family.detect_layout(folder) in ("webui", "transformers"):
        processor = load_prompt_side(folder).processor
    else:  # its `missing_parts` has opened everything
        return
    asked = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is this?"}]}]
    text = apply_chat_template(processor, asked, add_generation_prompt=True, tokenize=False)
    if "What is this?" not in text:
        raise ValueError(f"The chat template of {str(folder)!r} leaves out what is asked. Copy chat_template.jinja again.")
    pixels = processor.image_processor([Image.new("RGB", (48, 32), "red")], return_tensors="pt")["pixel_values"]
    if not all(part.isfinite().all() for part in (pixels if isinstance(pixels, list) else [pixels])):
        raise ValueError(
            f"The image processor of {str(folder)!r} makes values that are not finite. Copy preprocessor_config.json again."
        )


def _sides(settings: Any) -> Iterator[int]:
    """The sides, in pixels, that an image processor's settings name."""
    for name, value in settings.items():
        if name in ("height", "width", "shortest_edge", "longest_edge") and isinstance(value, int):
            if name != "longest_edge":  # of some families a number of pixels, not a side
                yield value
        elif isinstance(value, dict):
            yield from _sides(value)
