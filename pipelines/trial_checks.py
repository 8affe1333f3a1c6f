"""What can be said of the parts of a model folder without its weights: each check raises a ValueError that says what does not fit.

Parts are opened in `trial.py`.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import PreTrainedTokenizerBase

from .chat_template import apply_chat_template
from .generation import message
from .json_files import read_json

MAX_SIDE_PX = 4096
"""Of what an image processor makes; published ones stay below 2,000."""

IMAGE_TOKENS = re.compile(r"(image|img|media|patch)\w*_(id|index)$")
"""Keys of a configuration that name tokens of a picture."""

PHOTO_PX = (640, 480)
ASKED = "What is this? \u8fd9\u662f\u4ec0\u4e48\uff1f"


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, config: Any, rows: int, folder: Path) -> None:
    """Whether a tokenizer is the model's, as far as that can be told.

    Args:
        tokenizer: any.
        config: the language model's.
        rows: how many token embeddings it has.
        folder: whose files the two are of.

    Raises:
        ValueError: it makes no tokens or such as the model does not have, or does not know those that end an answer.
    """
    ids = tokenizer(ASKED)["input_ids"]
    if not ids:
        raise ValueError(f"The tokenizer of {str(folder)!r} makes no tokens of a text. Copy its files again.")
    ids += [token for token in (tokenizer.bos_token_id, tokenizer.eos_token_id) if token is not None]
    if not max(ids) < rows:
        raise ValueError(
            f"The tokenizer of {str(folder)!r} makes the token {max(ids)}, but the model has {rows} embeddings. Use the tokenizer that "
            "belongs to it."
        )
    stored = read_json(folder / "generation_config.json").get("eos_token_id", getattr(config, "eos_token_id", None))
    ends = {token for token in (stored if isinstance(stored, list) else [stored]) if token is not None}
    if not ends and tokenizer.eos_token_id is None:
        raise ValueError(
            f"Nothing ends an answer of {str(folder)!r}: neither its tokenizer nor its model names an EOS token. Copy "
            "tokenizer_config.json and config.json again."
        )
    if ends and ends.isdisjoint({*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}):
        raise ValueError(
            f"The model of {str(folder)!r} ends an answer with the tokens {sorted(ends, key=str)}, none of which is a special one of its "
            "tokenizer. Copy config.json and the tokenizer's files again."
        )


def check_context(pipeline: Any, tokenizer: PreTrainedTokenizerBase, config: Any, rows: int, folder: Path) -> None:
    """Whether a picture can be written into a prompt.

    Raises:
        ValueError: its tokens are none of the model's, or more than its context.
    """
    (ids,) = pipeline.image_ids([PHOTO_PX], tokenizer)
    if other := next((token for token in ids if not 0 <= token < rows), None):
        raise ValueError(
            f"{str(folder)!r} writes a picture as token {other}, but its model has {rows} embeddings. Copy the folder again."
        )
    if len(ids) >= (length := getattr(config, "max_position_embeddings", None) or len(ids) + 1):
        raise ValueError(
            f"{str(folder / 'config.json')!r} says max_position_embeddings {length}, but a picture alone takes {len(ids)}. Copy the file again."
        )


def check_sides(folder: Path) -> None:
    """Whether pictures come out of the image processor in sizes that a model takes.

    Raises:
        ValueError: a side is none, or very long.
    """
    for place in (folder, folder / "vision"):
        for name in ("preprocessor_config.json", "processor_config.json"):
            if side := next((side for side in _sides(read_json(place / name)) if not 0 < side <= MAX_SIDE_PX), None):
                raise ValueError(
                    f"{str(place / name)!r} makes pictures of {side} pixels a side; a model takes 1 to {MAX_SIDE_PX}. Copy the file again."
                )


def check_template(pipeline: Any, processor: Any, folder: Path) -> None:
    """Whether the chat template writes two turns with a picture each.

    Raises:
        ValueError: a question or a picture is left out.
    """
    turns = [message("user", "What is this?", 1), message("assistant", "A star."), message("user", "And this?", 1)]
    text = apply_chat_template(processor, turns, add_generation_prompt=True, tokenize=False)
    if not ("What is this?" in text and "And this?" in text):
        raise ValueError(f"The chat template of {str(folder)!r} leaves out what is asked. Copy chat_template.jinja again.")
    if text.count(pipeline.image_mark) != 2:
        raise ValueError(
            f"The chat template of {str(folder)!r} does not write {pipeline.image_mark!r} for each picture. Copy chat_template.jinja again."
        )


def check_image_tokens(pipeline: Any, config: dict[str, Any], folder: Path) -> None:
    """Whether the processor writes a picture with a token that the configuration knows as one.

    Raises:
        ValueError: it writes others only.
    """
    known = {value for key, value in config.items() if IMAGE_TOKENS.search(key) and isinstance(value, int)}
    (ids,) = pipeline.image_ids([PHOTO_PX], pipeline.processor.tokenizer)
    if known and not known & set(ids):
        raise ValueError(
            f"{str(folder / 'config.json')!r} says that {sorted(known)} stand for a picture, but the processor writes "
            f"{max(set(ids), key=ids.count)}. Copy config.json and the tokenizer's files again."
        )


def check_pixels(processor: Any, folder: Path) -> None:
    """Whether what the image processor makes of a picture are numbers.

    Raises:
        ValueError: some are inf or NaN.
    """
    made = processor.image_processor([Image.new("RGB", (48, 32), "red")], return_tensors="pt").values()
    tensors = [
        each for value in made for each in (value if isinstance(value, list) else [value]) if isinstance(each, torch.Tensor)
    ]
    if not all(tensor.isfinite().all() for tensor in tensors):
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
