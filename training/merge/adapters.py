"""A LoRA adapter as it lies on disk: which module each tensor belongs to, and at what scale.

Read are PEFT's folders (safetensors or pickle) and the VisualCLA release, with or without the adapter's name in the keys. What
cannot be folded into weights exactly is refused here, in one place.
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.checkpoints.stored_tensors import StoredTensor, stored_tensors
from pipelines.json_files import read_json
from pipelines.visualcla.adapter import model_key

COMPUTED_BUFFERS = (".position_ids", "rotary_emb.inv_freq")
"""Ends of names that old checkpoints carry and today's models compute."""

COMPOSITE_PARTS = ("vision_model.", "visual_resampler.", "image_projection_layer.", "text_model.")

_LORA_KEY = re.compile(
    r"(?P<module>.+)\.(?P<part>lora_(?:embedding_)?[AB]|lora_magnitude_vector)(?:\.(?!weight$|bias$)[^.]+)?(?:\.weight)?"
)
_BASE_CHANGING_INITS = ("pissa", "olora", "corda", "loftq", "lora_ga")
_REFUSED_OPTIONS = {
    "layer_replication": "it repeats layers of its base",
    "use_qalora": "QALoRA belongs to one quantised base",
    "alora_invocation_tokens": "an activated LoRA is on for a part of the text only",
    "trainable_token_indices": "single trained token rows are not supported; train embed_tokens as a module to save",
    "target_parameters": "LoRA on bare parameters is not supported",
    "lora_bias": "LoRA with a bias of its own is not supported",
}


@dataclass(frozen=True)
class LoraModule:
    """The LoRA of one module.

    Attributes:
        parts: "lora_A", "lora_B" (or "lora_embedding_A", "lora_embedding_B"), and with DoRA "lora_magnitude_vector".
        scale: what `B @ A` is multiplied by.
    """

    parts: dict[str, StoredTensor]
    scale: float


@dataclass(frozen=True)
class Adapter:
    """An adapter's tensors under the composite model's names.

    Attributes:
        folder: where it lies.
        config: its `adapter_config.json`.
        lora: module name to LoRA.
        whole: tensor name to a tensor that replaces the base's.
        has_eyes: it was made for a whole VisualCLA model, not for a language model alone.
    """

    folder: Path
    config: dict[str, Any]
    lora: dict[str, LoraModule]
    whole: dict[str, StoredTensor]
    has_eyes: bool


def read_adapter(folder: Path) -> Adapter:
    """Read an adapter's configuration and where its tensors lie.

    Raises:
        FileNotFoundError: the folder holds no adapter.
        ValueError: it is no LoRA, cannot be merged exactly, or its tensors and its configuration do not fit.
    """
    path = folder / "adapter_config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{str(folder)!r} is not an adapter: missing ['adapter_config.json'].")
    config = read_json(path)
    _refuse_what_cannot_be_merged(folder, config)

    # `original_module` is PEFT's untrained copy of a module that was saved whole.
    stored = {
        key: tensor
        for key, tensor in stored_tensors(folder).items()
        if not key.endswith(COMPUTED_BUFFERS) and ".original_module." not in key
    }
    names = {key: model_key(key).replace(".base_layer.", ".") for key in stored}
    has_eyes = any(name.startswith(COMPOSITE_PARTS) for name in names.values())
    names = {key: name if name.startswith(COMPOSITE_PARTS) else f"text_model.{name}" for key, name in names.items()}
    modules: dict[str, dict[str, StoredTensor]] = {}
    peft_names: dict[str, str] = {}
    whole: dict[str, StoredTensor] = {}
    for key, tensor in stored.items():
        if match := _LORA_KEY.fullmatch(names[key]):
            modules.setdefault(match["module"], {})[match["part"]] = tensor
            peft_names[match["module"]] = key.removeprefix("base_model.model.").partition(".lora_")[0]
        elif ".lora_" in names[key]:
            raise ValueError(f"The adapter {str(folder)!r} holds {key!r}, a kind of LoRA tensor that cannot be merged.")
        else:
            whole[names[key]] = tensor
    lora = {module: LoraModule(parts, _scale(folder, config, peft_names[module], parts)) for module, parts in modules.items()}
    return Adapter(folder, config, lora, whole, has_eyes)


def _refuse_what_cannot_be_merged(folder: Path, config: dict[str, Any]) -> None:
    kind = config.get("peft_type", "LORA")
    if kind != "LORA":
        raise ValueError(f"The adapter {str(folder)!r} has peft_type {kind!r}; only 'LORA' can be merged.")
    for option, reason in _REFUSED_OPTIONS.items():
        if config.get(option):
            raise ValueError(f"The adapter {str(folder)!r} has {option} {config[option]!r}: {reason}.")
    init = str(config.get("init_lora_weights", "")).lower()
    if init.startswith(_BASE_CHANGING_INITS):
        raise ValueError(
            f"The adapter {str(folder)!r} was started with init_lora_weights {init!r}, which changes the base's weights. Save it "
            "with path_initial_model_for_weight_conversion (PEFT), which makes it an ordinary LoRA."
        )


def _scale(folder: Path, config: dict[str, Any], module: str, parts: dict[str, StoredTensor]) -> float:
    pair = ("lora_embedding_A", "lora_embedding_B") if "lora_embedding_A" in parts else ("lora_A", "lora_B")
    if missing := [part for part in pair if part not in parts]:
        raise ValueError(f"The adapter {str(folder)!r} has no {missing} for {module}. Is the file whole?")
    a, b = (parts[part].shape for part in pair)
    rank = int(_by_pattern(config.get("rank_pattern"), module, config.get("r", a[0])))
    if len(a) < 2 or len(b) < 2 or not rank == a[0] == b[1]:
        raise ValueError(
            f"The adapter {str(folder)!r}: {module} has {pair[0]} {a} and {pair[1]} {b}, but its configuration says rank {rank}."
        )
    alpha = float(_by_pattern(config.get("alpha_pattern"), module, config.get("lora_alpha", rank)))
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _by_pattern(patterns: dict[str, Any] | None, module: str, default: Any) -> Any:
    """The value of the first pattern that fits the end of a module's name, as PEFT chooses it."""
    for pattern, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return default
