"""What a causal language model consists of, as transformers builds it, and whether stored tensors are all of it.

Nothing is loaded: the model is made on the meta device. Files may name weights differently from modules (GPT-NeoX: `embed_out` and
`lm_head`); transformers' own renamings go from the one to the other.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key
from transformers.pytorch_utils import Conv1D

from ..json_files import read_json
from .offsets import StoredTensor

COMPUTED_BUFFERS = (
    ".position_ids",
    "rotary_emb.inv_freq",
    ".attn.bias",
    ".attn.masked_bias",
    ".attention.bias",
    ".attention.masked_bias",
)
"""Ends of names that old checkpoints carry and today's models compute."""

_ADAPTABLE = (torch.nn.Linear, torch.nn.Embedding, torch.nn.Conv2d, Conv1D)


@dataclass(frozen=True)
class LanguageModel:
    """The structure of a causal language model, in the names that its file has for the weights.

    Attributes:
        shapes: of every weight that the model needs.
        embedding: name of the input embedding's weight.
        head: name of the head's weight.
        is_tied: whether the configuration makes the two one matrix.
        conv1d: modules that store (in, out).
        adaptable: modules that LoRA may stand on.
        unused: names of the file that no weight of the model is called.
        names: name in the file to the module's, where they differ.
    """

    shapes: dict[str, tuple[int, ...]]
    embedding: str
    head: str
    is_tied: bool
    conv1d: set[str]
    adaptable: set[str]
    unused: list[str] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)


def read_config(folder: Path) -> dict[str, Any]:
    """A folder's `config.json`.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is no JSON object.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{str(folder)!r} is not a model folder: missing ['config.json'].")
    return read_json(path)


def model_config(values: Mapping[str, Any], source: Path) -> PreTrainedConfig:
    """transformers' configuration of a `config.json`. Code that a folder brings along is never run.

    Raises:
        ValueError: its `model_type` is unknown, or a value cannot be.
    """
    model_type = values.get("model_type")
    if not isinstance(model_type, str) or model_type not in CONFIG_MAPPING:
        raise ValueError(
            f"{str(source)!r} has model_type {model_type!r}, which this version of transformers does not know. Give a causal "
            "language model of transformers."
        )
    try:
        return CONFIG_MAPPING[model_type].from_dict(dict(values))
    except Exception as error:  # configurations check themselves, with exceptions of their own
        raise ValueError(
            f"{str(source / 'config.json')!r} has a value that cannot be: {' '.join(str(error).split())[:300]}"
        ) from error


def language_model(
    config: Mapping[str, Any] | PreTrainedConfig, tensors: Mapping[str, StoredTensor], source: Path
) -> LanguageModel:
    """The structure of a language model, once every weight of it is found among the stored tensors, in its own shape.

    The number of tokens is not compared: released folders state a stale one, and adapters let it grow.

    Args:
        config: the language model's.
        tensors: name in its files to tensor.
        source: for errors.

    Raises:
        ValueError: weights are missing or have another shape; or the configuration cannot be built.
    """
    config = config if isinstance(config, PreTrainedConfig) else model_config(config, source)
    model = empty_model(config, len(tensors), source)
    names = _file_names(model, tensors)
    found = _structure(model, names, tensors)
    rows = {found.embedding, found.head}
    missing = [name for name in found.shapes if name not in tensors and not (name == found.head and found.is_tied)]
    wrong = [
        f"{name} {tensors[name].shape}, by config.json {shape}"
        for name, shape in found.shapes.items()
        if name in tensors and tensors[name].shape[name in rows :] != shape[name in rows :]
    ]
    if missing or wrong:
        raise ValueError(
            f"{str(source)!r} is not whole, or its config.json is another model's: {len(missing)} of {len(found.shapes)} tensors "
            f"missing {missing[:3]}, {len(wrong)} of another shape {wrong[:2]}. Copy its files again."
        )
    return found


def empty_model(config: PreTrainedConfig, num_tensors: int, source: Path) -> PreTrainedModel:
    """A causal language model without weights.

    Raises:
        ValueError: it has more layers than there are tensors, or cannot be built.
    """
    text_config = config.get_text_config()
    layers = getattr(text_config, "num_hidden_layers", 0)
    if not isinstance(layers, int) or layers > num_tensors:
        raise ValueError(
            f"{str(source)!r}: config.json says {layers!r} layers, but there are {num_tensors} tensors. It is another model's."
        )
    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except Exception as error:  # sizes that do not fit each other fail anywhere
        raise ValueError(
            f"{str(source)!r}: its config.json makes no causal language model: {' '.join(str(error).split())[:300]}"
        ) from error


def _file_names(model: PreTrainedModel, tensors: Mapping[str, StoredTensor]) -> dict[str, str | None]:
    """Name in the file to the model's name; None where transformers makes something else of several (experts)."""
    conversions = get_model_conversion_mapping(model)
    renamings = [each for each in conversions if isinstance(each, WeightRenaming)]
    converters = [each for each in conversions if isinstance(each, WeightConverter)]
    state = model.state_dict()
    found: dict[str, str | None] = {}
    for name in tensors:
        renamed, converted = rename_source_key(name, renamings, converters, model.base_model_prefix, state)
        found[name] = None if converted is not None else renamed
    return found


def _structure(model: PreTrainedModel, names: Mapping[str, str | None], tensors: Mapping[str, StoredTensor]) -> LanguageModel:
    back = {renamed: name for name, renamed in names.items() if renamed is not None}
    state = model.state_dict()
    if not all(name in state for name in back) and any(name in state for name in tensors):
        back |= {name: name for name in tensors if name in state and name not in back}

    def of_file(name: str) -> str:
        return back.get(name, name)

    modules = {id(module): name for name, module in model.named_modules()}
    embedding = f"{modules[id(model.get_input_embeddings())]}.weight"
    head = f"{modules[id(model.get_output_embeddings())]}.weight"
    is_tied = bool(model.config.get_text_config().tie_word_embeddings)
    is_converted = None in names.values()
    optional = list(model._keys_to_ignore_on_load_missing or ())
    shapes = {
        of_file(name): tuple(tensor.shape)
        for name, tensor in state.items()
        if not (is_converted and name not in back) and not any(re.search(pattern, name) for pattern in optional)
    }
    known = {*shapes, *(name for name, renamed in names.items() if renamed is None or renamed in state)}
    unused = [name for name in tensors if name not in known and not name.endswith(COMPUTED_BUFFERS)]

    def module_names(kinds: tuple[type, ...]) -> set[str]:
        found = [name for name, module in model.named_modules() if isinstance(module, kinds)]
        return {of_file(f"{name}.weight").removesuffix(".weight") for name in found}

    differing = {
        name.removesuffix(".weight"): renamed.removesuffix(".weight") for renamed, name in back.items() if renamed != name
    }
    return LanguageModel(
        shapes, of_file(embedding), of_file(head), is_tied, module_names((Conv1D,)), module_names(_ADAPTABLE), unused, differing
    )
