"""What of a model learns, and how fast: parts and modules in full, LoRA layers elsewhere."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from peft import LoraConfig, LoraModel
from torch import nn

from pipelines.registry import parts_of

from .config import Recipe

ADAPTER_NAME = "default"
LORA = "LoRA"


@dataclass
class Group:
    """Parameters that learn at one rate.

    Attributes:
        name: as the recipe calls them, or `LORA`.
        rate: learning rate; None takes the run's.
        parameters: by their names.
        modules: what they are, in full: modules, and bare parameters.
    """

    name: str
    rate: float | None = None
    parameters: dict[str, nn.Parameter] = field(default_factory=dict)
    modules: list[str] = field(default_factory=list)

    @property
    def size(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters.values())


def add_lora(model: nn.Module, recipe: Recipe) -> LoraModel | None:
    """Put fresh LoRA layers on the modules that the recipe names; None when it names none.

    Raises:
        ValueError: no module of the model fits one of `lora_target_modules`.
    """
    if not recipe.lora_target_modules:
        return None
    targets = [name for entry in recipe.lora_target_modules for name in _targets(model, entry)]
    config = LoraConfig(
        r=recipe.lora_r,
        lora_alpha=recipe.lora_alpha,
        lora_dropout=recipe.lora_dropout,
        target_modules=sorted(set(targets)),
    )
    lora = LoraModel(model, config, ADAPTER_NAME)
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            parameter.data = parameter.data.float()
    return lora


def _targets(model: nn.Module, entry: str) -> list[str]:
    """The modules that an entry of `lora_target_modules` means."""
    part, has_part, pattern = entry.partition("=")
    prefixes: tuple[str, ...] = ("",)
    if has_part:
        prefixes = _parts(model, part)
    linear = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and any(f"{name}.".startswith(prefix) or prefix == "" for prefix in prefixes)
    ]
    heads = {id(module) for module in (model.get_output_embeddings(),) if module is not None}
    if pattern == "all-linear":
        found = [name for name in linear if id(model.get_submodule(name)) not in heads]
    else:
        expression = re.compile(rf"(.*\.)?({pattern})" if has_part else entry)
        found = [name for name in linear if expression.fullmatch(name)]
    if not found:
        raise ValueError(
            f"No linear layer of the model is a target: lora_target_modules has {entry!r}, the layers are called like "
            f"{(linear or ['(none)'])[-1]!r}."
        )
    return found


def _parts(model: nn.Module, name: str) -> tuple[str, ...]:
    parts = parts_of(model)
    if name not in parts:
        raise ValueError(f"{name!r} is no part of the model; it has {', '.join(map(repr, parts))}.")
    return tuple(parts[name])


def choose_parameters(model: nn.Module, train_parts: list[str]) -> list[Group]:
    """Let LoRA layers and the given parts learn, in float32, and nothing else.

    Args:
        model: a whole model, LoRA layers on it already.
        train_parts: see `Recipe`; where two entries hold a parameter, the narrower one counts.

    Raises:
        ValueError: there is no such part or module, it is quantised, or nothing would learn.
    """
    groups = [Group(LORA)]
    prefixes: list[tuple[str, Group]] = []
    for entry in train_parts:
        name, _, rate = entry.partition("=")
        group = Group(name, float(rate) if rate else None)
        groups.append(group)
        group.modules = list(_modules(model, name))
        prefixes += [(module, group) for module in group.modules]
    prefixes.sort(key=lambda pair: -len(pair[0]))
    for name, parameter in model.named_parameters():
        found = next((group for prefix, group in prefixes if name == prefix or name.startswith(f"{prefix}.")), None)
        if ".lora_" in name:
            found = groups[0]
        elif ".base_layer." in name:  # of a LoRA layer
            found = None
        parameter.requires_grad_(False)
        if found is None:
            continue
        if not parameter.is_floating_point():
            raise ValueError(f"train_parts has {found.name!r}, but {name} is quantised: give it LoRA (lora_target_modules).")
        parameter.data = parameter.data.float()
        parameter.requires_grad_(True)
        found.parameters[name] = parameter
    groups = [group for group in groups if group.parameters]
    if not groups:
        raise ValueError("Nothing would learn: give train_parts or lora_target_modules.")
    return groups


def _modules(model: nn.Module, name: str) -> Iterator[str]:
    """The modules and bare parameters that a name of `train_parts` means."""
    parts = parts_of(model)
    if name in parts:
        places = [prefix.removesuffix(".") for prefix in parts[name]]
    else:
        known = [each for each, _ in (*model.named_modules(), *model.named_parameters())]
        places = [each for each in known if each == name or each.endswith(f".{name}")]
        if not places:
            children = sorted(
                {each.split(".")[-1] for each in known if each.count(".") in (0, 1, 2) and not each[-1:].isdigit()}
            )
            raise ValueError(
                f"train_parts has {name!r}, which is no part or module of this model. Parts: {', '.join(map(repr, parts))}; modules "
                f"such as {', '.join(map(repr, children[:12]))}."
            )
    for place in places:
        try:
            module = model.get_submodule(place)
        except AttributeError:  # a bare parameter
            yield place
            continue
        if isinstance(module, nn.ModuleList | nn.ModuleDict):
            yield from (f"{place}.{child}" for child, _ in module.named_children())
        else:
            yield place


def learning_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """What learns, by its names."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def memory_bytes(model: nn.Module) -> int:
    """Weights, gradients and AdamW's two moments; what a batch takes besides depends on its rows."""
    weights = sum(parameter.nbytes for parameter in model.parameters())
    learning = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return weights + learning * (torch.float32.itemsize * 3)
