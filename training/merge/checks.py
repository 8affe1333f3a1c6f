"""Is the base that is given the one that an adapter was trained on? By what the adapter recorded, and by its tokenizer."""

import hashlib
import os
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from pipelines.checkpoints.adapters import Adapter
from pipelines.checkpoints.merging import Merging

from .parts import read_language_model

SIGNATURE_BYTES = 2**16

VISION_CONFIG_FIELDS = (
    "model_type",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "image_size",
    "patch_size",
    "hidden_act",
)
TEXT_CONFIG_FIELDS = (
    "model_type",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
)


def check_base_name(adapter: Adapter, given: Path, family: Merging) -> None:
    """Compare the recorded name of the base with the language model that is given.

    Raises:
        ValueError: they are different models; names both.
    """
    recorded = adapter.config.get("base_model_name_or_path")
    if recorded and not _may_be_same(recorded, given, family):
        raise ValueError(
            f"The adapter {str(adapter.folder)!r} was trained on {recorded!r}, not on {str(given)!r}. Give that model as "
            "text_model; if both are the same model, correct base_model_name_or_path in a copy of the adapter."
        )


def check_recorded(
    what: str, recorded: dict[str, Any], recorded_in: Path, given: dict[str, Any], given_in: Path, fields: tuple[str, ...]
) -> None:
    """Compare the base that an adapter says it was trained on with the one that is given.

    Raises:
        ValueError: a field differs; names both folders and both values.
    """
    for field in fields:
        if None not in (recorded.get(field), given.get(field)) and recorded[field] != given[field]:
            raise ValueError(
                f"{str(given_in)!r} is not the {what} that {str(recorded_in)!r} was trained on: {field} is {given[field]!r}, "
                f"recorded is {recorded[field]!r}."
            )


def check_tokenizer_goes_on(old: PreTrainedTokenizerBase, old_in: Path, new: PreTrainedTokenizerBase, new_in: Path) -> None:
    """A later adapter's tokenizer holds the tokens so far under the same ids, and may add some.

    Raises:
        ValueError: it does not.
    """
    old_tokens, new_tokens = (tokenizer.convert_ids_to_tokens(list(range(len(tokenizer)))) for tokenizer in (old, new))
    if len(new_tokens) < len(old_tokens):
        raise ValueError(
            f"The tokenizer of {str(new_in)!r} has {len(new_tokens)} tokens, that of {str(old_in)!r} before it "
            f"{len(old_tokens)}: a vocabulary does not shrink. Are the adapters in the order they were trained in?"
        )
    for index, (before, now) in enumerate(zip(old_tokens, new_tokens, strict=False)):
        if before != now:
            raise ValueError(
                f"The tokenizer of {str(new_in)!r} does not go on from that of {str(old_in)!r}: token {index} is {now!r}, it was "
                f"{before!r}. Was the adapter trained on another language model?"
            )


def _may_be_same(recorded: str, given: Path, family: Merging) -> bool:
    """Whether a recorded base may be the given folder. Names can be compared only where both sides have one of a kind."""
    folder = Path(recorded).expanduser()
    if folder.is_dir():
        return folder.samefile(given) or _signature(folder, family) == _signature(given, family)
    cached = next((part for part in given.resolve().parts if part.startswith("models--")), None)
    if cached is None or recorded.count("/") != 1 or recorded.startswith((".", os.sep)):
        return True
    return cached.removeprefix("models--").replace("--", "/").lower() == recorded.lower()


def _signature(folder: Path, family: Merging) -> dict[str, Any]:
    """Names, shapes and the first bytes of all tensors of a language model."""
    signature = {}
    for name, tensor in read_language_model(folder, family).tensors.items():
        with open(tensor.file, "rb") as handle:
            handle.seek(tensor.offset)
            content = handle.read(min(tensor.num_bytes, SIGNATURE_BYTES))
        signature[name] = (tensor.shape, tensor.dtype, hashlib.sha256(content).hexdigest())
    return signature
