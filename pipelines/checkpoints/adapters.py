"""A LoRA adapter as it lies on disk: which module each tensor belongs to, and at what scale.

The one reader of adapters, for merging and for loading: PEFT's folders (safetensors or pickle), with or without the adapter's name in
the keys. What cannot be folded into weights exactly is refused here, in one place, and so is an adapter that is empty or half there.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..json_files import read_json
from .offsets import StoredTensor
from .stored_tensors import adapter_tensors, stored_tensors
from .structure import COMPUTED_BUFFERS
from .weight_files import adapter_files

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
LEFT_BESIDE = "non_lora_trainables.bin"
"""Where LLaVA's trainer puts the projector that belongs to an adapter."""


@dataclass(frozen=True)
class LoraModule:
    """The LoRA of one module.

    Attributes:
        parts: "lora_A", "lora_B" (or "lora_embedding_A", "lora_embedding_B"), and with DoRA "lora_magnitude_vector".
        rank: r.
        alpha: lora_alpha.
        scale: what `B @ A` is multiplied by.
    """

    parts: dict[str, StoredTensor]
    rank: int
    alpha: float
    scale: float


@dataclass(frozen=True)
class Adapter:
    """An adapter's tensors.

    Attributes:
        folder: where it lies.
        config: its `adapter_config.json`.
        lora: module name to LoRA.
        whole: tensor name to a tensor that replaces the base's.
        is_whole: it was made for a whole vision-language model, not for a language model alone.
    """

    folder: Path
    config: dict[str, Any]
    lora: dict[str, LoraModule]
    whole: dict[str, StoredTensor]
    is_whole: bool

    @property
    def ties(self) -> bool:
        """Whether it keeps tied embeddings and head one matrix."""
        return bool(self.config.get("ensure_weight_tying"))


def read_adapter(
    folder: Path,
    canonical: Callable[[str], str] = str,
    parts: tuple[str, ...] = (),
    text_prefix: str = "",
    defaults: dict[str, Any] | None = None,
    uses_beside: bool = False,
) -> Adapter:
    """Read an adapter's configuration and where its tensors lie.

    Args:
        folder: holds `adapter_config.json` and `adapter_model.safetensors` or `.bin`; a whole model beside them is not looked at. With
            `defaults` also a weight file of any name, or the folder of one.
        canonical: a name in the adapter, without PEFT's own additions, to the family's.
        parts: how canonical names of a whole model begin; a name that begins otherwise is a language model's alone.
        text_prefix: put before names that begin with none of `parts`: they are a language model's.
        defaults: the configuration where there is none, as research code saves adapters; None refuses that.
        uses_beside: whether the caller takes `LEFT_BESIDE` too, which is refused otherwise.

    Raises:
        FileNotFoundError: the folder holds no adapter.
        ValueError: it is no LoRA, cannot be merged exactly, holds nothing, or its tensors and its configuration do not fit.
    """
    home = folder if folder.is_dir() else folder.parent
    path = home / "adapter_config.json"
    if not path.is_file() and defaults is None:
        raise FileNotFoundError(f"{str(folder)!r} is not an adapter: missing ['adapter_config.json'].")
    if (home / LEFT_BESIDE).is_file() and not uses_beside:
        raise ValueError(
            f"{str(folder)!r} is a LoRA of LLaVA: its projector lies beside it, in {LEFT_BESIDE}, and would be lost. Give the folder to "
            "the family 'llava' (--model with --text_model), or merge it with LLaVA's own merge_lora_weights.py first."
        )
    config = read_json(path) if path.is_file() else dict(defaults)
    _refuse_what_cannot_be_merged(folder, config)
    is_named_as_peft_does = defaults is None or (folder.is_dir() and adapter_files(folder))
    found = adapter_tensors(folder) if is_named_as_peft_does else stored_tensors(folder)
    # `original_module` is PEFT's untrained copy of a module that was saved whole.
    stored = {
        key: tensor for key, tensor in found.items() if not key.endswith(COMPUTED_BUFFERS) and ".original_module." not in key
    }
    if not stored:
        raise ValueError(
            f"The adapter {str(folder)!r} is empty: its weight file holds no tensor. It was not saved whole; get it again."
        )
    names = {key: canonical(without_peft(key)) for key in stored}
    is_whole = any(name.startswith(parts) for name in names.values())

    def placed(name: str) -> str:
        return name if name.startswith(parts) else text_prefix + name

    modules: dict[str, dict[str, StoredTensor]] = {}
    peft_names: dict[str, str] = {}
    whole: dict[str, StoredTensor] = {}
    for key, tensor in stored.items():
        if match := _LORA_KEY.fullmatch(names[key]):
            module = placed(match["module"])
            modules.setdefault(module, {})[match["part"]] = tensor
            peft_names[module] = key.removeprefix("base_model.model.").partition(".lora_")[0]
        elif ".lora_" in names[key]:
            raise ValueError(f"The adapter {str(folder)!r} holds {key!r}, a kind of LoRA tensor that cannot be merged.")
        else:
            whole[placed(names[key])] = tensor
    lora = {module: _lora(folder, config, peft_names[module], found) for module, found in modules.items()}
    adapter = Adapter(folder, config, lora, whole, is_whole)
    _check_saved_modules(adapter)
    return adapter


def without_peft(key: str) -> str:
    """A tensor's key in an adapter's file without what PEFT adds to the model's names.

    >>> without_peft("base_model.model.lm_head.modules_to_save.default.weight")
    'lm_head.weight'
    """
    name = key.removeprefix("base_model.model.").replace(".modules_to_save.", ".").replace(".base_layer.", ".")
    return name.replace(".default.", ".")


def check_targets(adapter: Adapter, modules: Iterable[str], namings: Iterable[Callable[[str], str]]) -> None:
    """Every module that the adapter's configuration targets has its LoRA.

    Args:
        adapter: the adapter.
        modules: names of the model's modules that can have one.
        namings: ways to name a module that `target_modules` may be about; the one that fits most of the LoRA there is counts.

    Raises:
        ValueError: LoRA is missing for some.
    """
    from peft.tuners.tuners_utils import check_target_module_exists

    if not adapter.config.get("target_modules") or not adapter.lora or adapter.config["target_modules"] == "all-linear":
        return
    modules, config = list(modules), _lora_config(adapter)
    naming = max(
        namings, key=lambda name: sum(bool(check_target_module_exists(config, name(module))) for module in adapter.lora)
    )
    targets = [module for module in modules if check_target_module_exists(config, naming(module))]
    if missing := [module for module in targets if module not in adapter.lora]:
        raise ValueError(
            f"The adapter {str(adapter.folder)!r} is half an adapter: its configuration targets {len(targets)} modules of this model, and "
            f"{len(missing)} of them have no LoRA tensors, the first: {missing[:3]}. Get the adapter again."
        )


def _lora_config(adapter: Adapter) -> Any:
    """PEFT's configuration, without the fields that only other versions of it know."""
    from peft import LoraConfig

    known = {field.name for field in dataclasses.fields(LoraConfig)}
    try:
        return LoraConfig(**{key: value for key, value in adapter.config.items() if key in known})
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"The adapter_config.json of {str(adapter.folder)!r} is no configuration of a LoRA: {error}"
        ) from error


def _refuse_what_cannot_be_merged(folder: Path, config: dict[str, Any]) -> None:
    kind = config.get("peft_type", "LORA")
    if kind != "LORA":
        raise ValueError(f"The adapter {str(folder)!r} has peft_type {kind!r}; only 'LORA' can be merged or loaded.")
    for option, reason in _REFUSED_OPTIONS.items():
        if config.get(option):
            raise ValueError(f"The adapter {str(folder)!r} has {option} {config[option]!r}: {reason}.")
    init = str(config.get("init_lora_weights", "")).lower()
    if init.startswith(_BASE_CHANGING_INITS):
        raise ValueError(
            f"The adapter {str(folder)!r} was started with init_lora_weights {init!r}, which changes the base's weights. Save it "
            "with path_initial_model_for_weight_conversion (PEFT), which makes it an ordinary LoRA."
        )


def _check_saved_modules(adapter: Adapter) -> None:
    named = adapter.config.get("modules_to_save") or []
    if not isinstance(named, list) or not all(isinstance(name, str) for name in named):
        raise ValueError(f"The adapter {str(adapter.folder)!r} has modules_to_save {named!r}, which is no list of names.")
    saved = {part for name in adapter.whole for part in name.split(".")}
    if not adapter.ties and (missing := [name for name in named if name.split(".")[-1] not in saved]):
        raise ValueError(
            f"The adapter {str(adapter.folder)!r} is half an adapter: its configuration names {missing} as trained whole "
            "(modules_to_save), but its weight file does not hold them. Get the adapter again."
        )


def _lora(folder: Path, config: dict[str, Any], module: str, parts: dict[str, StoredTensor]) -> LoraModule:
    pair = ("lora_embedding_A", "lora_embedding_B") if "lora_embedding_A" in parts else ("lora_A", "lora_B")
    if missing := [part for part in pair if part not in parts]:
        raise ValueError(f"The adapter {str(folder)!r} is half an adapter: it has no {missing} for {module}. Get it again.")
    a, b = (parts[part].shape for part in pair)
    if len(a) < 2 or len(b) < 2:
        raise ValueError(f"The adapter {str(folder)!r}: {module} has {pair[0]} {a} and {pair[1]} {b}, which are no matrices.")
    rank = _number(folder, config, "r", "rank_pattern", module, a[0])
    if not rank == a[0] == b[1] or not rank:
        raise ValueError(
            f"The adapter {str(folder)!r}: {module} has {pair[0]} {a} and {pair[1]} {b}, but its configuration says rank {rank}."
        )
    alpha = _number(folder, config, "lora_alpha", "alpha_pattern", module, rank)
    return LoraModule(parts, int(rank), alpha, alpha / (math.sqrt(rank) if config.get("use_rslora") else rank))


def _number(folder: Path, config: dict[str, Any], name: str, patterns: str, module: str, default: int | float) -> float:
    """A setting of one module: that of the first pattern that fits the end of its name, as PEFT chooses it, or the adapter's own."""
    try:
        fitting = (
            value for pattern, value in (config.get(patterns) or {}).items() if re.match(rf"(.*\.)?({pattern})$", module)
        )
        value = float(next(fitting, config.get(name, default)))
        if not math.isfinite(value):
            raise ValueError(f"{value} is not finite")
    except (ValueError, TypeError, AttributeError, OverflowError, re.error) as error:
        raise ValueError(
            f"The adapter {str(folder)!r}: its configuration has no number for {name} of {module} ({error}). Get the adapter again."
        ) from error
    return value
