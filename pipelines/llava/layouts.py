"""Names of LLaVA's tensors: the published ones and those read here, and the way between them. Pure functions of tensors.

Read as: `vision_tower.*` (transformers' flat CLIP) and `multi_modal_projector.linear_{1,2}.*` for the vision model; the language
model's own names (`model.*`, `lm_head.*`).
"""

import re
from collections.abc import Mapping

import torch

Tensors = Mapping[str, torch.Tensor]
_PROJECTOR = re.compile(r"^(?:.*\.)?mm_projector\.(?P<rest>(?:\d+\.)?(?:weight|bias))$")
_TWO_LAYERS = {"0": "linear_1", "2": "linear_2"}


def split_hf(tensors: Tensors) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """(vision model, language model) of a llava-hf folder, of today's and of older names."""
    vision, language = {}, {}
    for name, tensor in tensors.items():
        name = re.sub(r"^model\.(?=(vision_tower|multi_modal_projector|language_model)\.)", "", name)
        if name.startswith("language_model."):
            name = name.removeprefix("language_model.")
            language[name if name.startswith(("model.", "lm_head.")) else f"model.{name}"] = tensor
        elif name.startswith("lm_head."):
            language[name] = tensor
        else:
            vision[name.replace("vision_tower.vision_model.", "vision_tower.")] = tensor
    return vision, language


def join_hf(vision: Tensors, language):
    """(name, tensor) under the names that every transformers version and serving engine reads."""
    for name, tensor in vision.items():
        yield name.replace("vision_tower.", "vision_tower.vision_model.", 1), tensor
    for name, tensor in language:
        yield f"language_model.{name}", tensor


def split_original(tensors: Tensors) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """(projector as stored, vision encoder, the rest) of the original project's tensors."""
    projector, encoder, rest = {}, {}, {}
    for name, tensor in tensors.items():
        if match := _PROJECTOR.match(name):
            projector[match["rest"]] = tensor
        elif ".vision_tower." in f".{name}":
            encoder[f"vision_tower.{name.rpartition('vision_tower.')[2].removeprefix('vision_model.')}"] = tensor
        else:
            rest[name] = tensor
    return projector, encoder, rest


def projector_from_original(stored: Tensors, source: str) -> dict[str, torch.Tensor]:
    """`multi_modal_projector.*` from what stands behind `mm_projector.`.

    The one linear layer of LLaVA 1 becomes the first of two, without an activation between them and with the second one doing
    nothing: the same numbers, in a model that every program with LLaVA in it knows.

    Raises:
        ValueError: it is neither one linear layer nor two.
    """
    if "weight" in stored and set(stored) <= {"weight", "bias"}:
        width = stored["weight"].shape[0]
        second = {"linear_2.weight": torch.eye(width, dtype=stored["weight"].dtype)}
        if "bias" in stored:
            second["linear_2.bias"] = torch.zeros_like(stored["bias"])
        found = {f"linear_1.{kind}": tensor for kind, tensor in stored.items()} | second
    elif {"0.weight", "2.weight"} <= set(stored) <= {"0.weight", "0.bias", "2.weight", "2.bias"}:
        found = {f"{_TWO_LAYERS[name[0]]}{name[1:]}": tensor for name, tensor in stored.items()}
    else:
        raise ValueError(
            f"{source}: the projector holds {sorted(stored)}. Read are one linear layer (LLaVA 1) and two with GELU between them "
            "(mlp2x_gelu, LLaVA 1.5)."
        )
    return {f"multi_modal_projector.{name}": tensor for name, tensor in found.items()}


def projector_to_original(vision: Tensors, is_linear: bool) -> dict[str, torch.Tensor]:
    """The inverse of `projector_from_original`: names behind `mm_projector.`. What was trained into the second layer of a linear
    projector is multiplied into the one that is written."""
    own = {
        name.removeprefix("multi_modal_projector."): t
        for name, t in vision.items()
        if name.startswith("multi_modal_projector.")
    }
    if not is_linear:
        back = {new: old for old, new in _TWO_LAYERS.items()}
        return {f"{back[name.partition('.')[0]]}.{name.partition('.')[2]}": tensor for name, tensor in own.items()}
    first, second = own["linear_1.weight"], own["linear_2.weight"]
    found = {"weight": (second.float() @ first.float()).to(first.dtype)}
    if "linear_1.bias" in own:
        bias = second.float() @ own["linear_1.bias"].float() + own["linear_2.bias"].float()
        found["bias"] = bias.to(first.dtype)
    return found
