"""LoRA adapters of language models in every form they were published in, merged while the weights are read.

Whole PEFT state dicts or LoRA keys alone, with and without the adapter's name in the keys (`.default.`), with and without
`base_model.model.`, with and without an `adapter_config.json`.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from ..checkpoints import adapters
from ..checkpoints.adapters import LEFT_BESIDE, without_peft
from ..json_files import read_json
from .tensors import stored_tensors

_LORA = re.compile(r"^(?P<module>.+)\.lora_(?P<side>[AB])(?:\.[^.]+)?\.weight$")
_LANGUAGE_PREFIXES = ("language_model.model.", "model.language_model.", "llama_model.model.", "language_model.", "model.")
_OF_A_WHOLE_MODEL = ("model.language_model.", "model.vision_model.", "model.vision_tower.", "model.multi_modal_projector.")
_HEADS = ("language_model.lm_head.", "llama_model.lm_head.", "lm_head.")


@dataclass(frozen=True)
class Adapter:
    """An adapter's tensors.

    Attributes:
        pairs: (A, B) by the language model's module, such as "model.layers.0.self_attn.q_proj"; A is (r, in), B is (out, r).
        scaling: alpha / r.
        rest: what else is in the file, by its name without PEFT's prefix; a whole state dict brings its base along.
        source: for errors.
    """

    pairs: dict[str, tuple[torch.Tensor, torch.Tensor]]
    scaling: float
    rest: dict[str, torch.Tensor]
    source: str

    def merge(self, language: Mapping[str, torch.Tensor]) -> Iterator[tuple[str, torch.Tensor]]:
        """The language model's tensors with the adapter added in fp32, one at a time, in their own dtype.

        Raises:
            ValueError: a module is not in the language model, or has another shape.
        """
        if lost := [module for module in self.pairs if f"{module}.weight" not in language]:
            raise ValueError(
                f"{self.source}: {len(lost)} of {len(self.pairs)} modules are not in the language model: {lost[:3]}."
            )
        for name, weight in language.items():
            pair = self.pairs.get(name.removesuffix(".weight"))
            if pair is not None:
                a, b = pair
                if (b.shape[0], a.shape[1]) != tuple(weight.shape) or a.shape[0] != b.shape[1]:
                    raise ValueError(
                        f"{self.source}: {name} is {tuple(weight.shape)}, but the adapter is for {(b.shape[0], a.shape[1])}: it "
                        "belongs to another language model."
                    )
                weight = (weight.float() + self.scaling * (b.float() @ a.float())).to(weight.dtype)
            yield name, weight


def language_name(name: str) -> str | None:
    """A tensor's name in a causal language model of its own; None when it belongs to another part."""
    for prefix in _HEADS:
        if name.startswith(prefix):
            return f"lm_head.{name.removeprefix(prefix)}"
    for prefix in _LANGUAGE_PREFIXES:
        if name.startswith(prefix) and name.removeprefix(prefix).startswith(("layers.", "embed_tokens.", "norm.")):
            return f"model.{name.removeprefix(prefix)}"
    return None


def read_adapter(path: Path, default_alpha: float) -> Adapter:
    """An adapter file, or a folder that holds one.

    Args:
        path: `pytorch_model.bin`, `adapter_model.bin`, any other name, or their folder.
        default_alpha: lora_alpha where no `adapter_config.json` says it.

    Raises:
        ValueError: there is no LoRA in it, a half of a pair is missing, or it adapts another part than the language model.
    """
    source = repr(str(path))
    tensors = {name.removeprefix("base_model.model."): tensor for name, tensor in stored_tensors(path).items()}
    halves: dict[str, dict[str, torch.Tensor]] = {}
    rest = {}
    for name, tensor in tensors.items():
        if match := _LORA.match(name):
            halves.setdefault(match["module"], {})[match["side"]] = tensor
        else:
            rest[name.replace(".base_layer.", ".")] = tensor
    if not halves:
        raise ValueError(
            f"{source} holds no LoRA: none of its {len(tensors)} tensors is named '*.lora_A.*'. Give the adapter's file."
        )
    pairs = {}
    for module, sides in halves.items():
        known = language_name(f"{module}.weight")
        if known is None:
            raise ValueError(
                f"{source} adapts {module!r}, which is no part of the language model; only that one can be merged."
            )
        if len(sides) != 2:
            raise ValueError(f"{source} is half an adapter: {module} has lora_{next(iter(sides))} only. Copy the file again.")
        pairs[known.removesuffix(".weight")] = (sides["A"], sides["B"])
    rank = next(iter(pairs.values()))[0].shape[0]
    config = read_json((path if path.is_dir() else path.parent) / "adapter_config.json")
    if unknown := [key for key in ("use_dora", "use_rslora", "rank_pattern", "alpha_pattern") if config.get(key)]:
        raise ValueError(f"{source} uses {unknown}, which is not merged here. Merge it: python -m training merge --help")
    return Adapter(pairs, config.get("lora_alpha", default_alpha) / config.get("r", rank), rest, source)


@dataclass(frozen=True)
class WholeAdapter:
    """An adapter over a whole model, as `python -m training train` and PEFT write it.

    Attributes:
        pairs: (A, B) by the name of the weight in the model; B has the scale in it.
        whole: tensors that take the model's place, by their names in it.
        source: for errors.
    """

    pairs: dict[str, tuple[torch.Tensor, torch.Tensor]]
    whole: dict[str, torch.Tensor]
    source: str

    def over(self, pairs: Mapping[str, tuple[torch.Tensor, torch.Tensor]]) -> Adapter:
        """A share of its LoRA, by the names of the weights that it is for."""
        return Adapter({name.removesuffix(".weight"): pair for name, pair in pairs.items()}, 1.0, {}, self.source)


def whole_model_adapter(folder: Path) -> WholeAdapter | None:
    """The adapter of a folder, where it was made over a whole model; None for one of a language model alone.

    Raises:
        ValueError: it cannot be merged exactly.
    """
    if not (folder / "adapter_config.json").is_file() or (folder / LEFT_BESIDE).is_file():
        return None
    if not any(without_peft(name).startswith(_OF_A_WHOLE_MODEL) for name in stored_tensors(folder)):
        return None
    adapter, source = adapters.read_adapter(folder), repr(str(folder))
    pairs = {}
    for module, lora in adapter.lora.items():
        if set(lora.parts) != {"lora_A", "lora_B"}:
            raise ValueError(f"{source} has {sorted(lora.parts)} for {module}; only lora_A and lora_B can be merged here.")
        a, b = (lora.parts[side].map() for side in ("lora_A", "lora_B"))
        pairs[f"{module}.weight"] = (a, b.float() * lora.scale)
    return WholeAdapter(pairs, {name: tensor.map() for name, tensor in adapter.whole.items()}, source)
