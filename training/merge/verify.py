"""`merge --verify`: does the merged folder say what base and adapters say?

The reference is made by other means than the merge: transformers loads the bases, PEFT folds the adapters in, in fp32, and the
weights are rounded to the folder's dtype. Whole models are loaded in fp32, one after the other.
"""

from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from pipelines.chat_template import apply_chat_template
from pipelines.checkpoints.adapters import Adapter
from pipelines.checkpoints.merging import Merging
from pipelines.registry import load_model
from pipelines.tokenization import load_tokenizer
from pipelines.weights import tensor_headers

from .products import MergePlan

QUESTION = "What is this? 这是什么？"
MIN_TOLERANCE = 1e-4
"""What the order of additions may change in fp32, relative to the largest logit."""


def verify(folder: Path, plan: MergePlan, vision_model: Path | None) -> str:
    """Compare a merged folder with its base and adapters on a text, and where it has a vision model on a text with an image.

    Args:
        folder: the merged model.
        plan: what it was made by.
        vision_model: as given to the merge.

    Returns:
        What was compared, and by how much it differs, for the user.

    Raises:
        ValueError: the logits differ by more than rounding explains.
    """
    family, dtype, has_vision = plan.family, plan.model.dtype, plan.has_vision
    merged = _load(folder, family, has_vision)
    inputs = {"text": _probe(merged, folder, None)}
    if has_vision:
        side_px = merged.config.vision_config.image_size
        inputs["text and image"] = _probe(merged, folder, Image.radial_gradient("L").resize((side_px, side_px)))
    found = {probe: merged(**values).logits for probe, values in inputs.items()}
    del merged
    adapters = [family.read_adapter(path) for role, path in plan.inputs if role == "adapter"]
    reference = _reference(family, plan.text.folder, vision_model, adapters, dtype)
    return _compare(folder, found, {probe: reference(**values).logits for probe, values in inputs.items()}, dtype)


def verify_converted(folder: Path, source: Path, **given: Path | None) -> str:
    """The same for a family that writes its layouts itself: the written folder against its inputs, opened together in fp32 and rounded
    to the folder's dtype.

    Args:
        folder: the merged model.
        source: what was merged.
        given: `text_model`, `vision_model`, `lora_model`.
    """
    stored = next(tensor.dtype for tensor in tensor_headers(folder).values() if tensor.dtype.is_floating_point)
    merged, processor = load_model(folder, dtype=torch.float32)
    inputs = {"text": _inputs(processor, None), "text and image": _inputs(processor, Image.radial_gradient("L"))}
    with torch.no_grad():
        found = {probe: merged(**values).logits for probe, values in inputs.items()}
        del merged
        reference, _ = load_model(source, dtype=torch.float32, **{key: path for key, path in given.items() if path is not None})
        _round(reference, stored)
        expected = {probe: reference(**values).logits for probe, values in inputs.items()}
    return _compare(folder, found, expected, stored)


def _compare(folder: Path, found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], dtype: torch.dtype) -> str:
    tolerance = max(4 * torch.finfo(dtype).eps, MIN_TOLERANCE)
    reports = []
    for probe, logits in expected.items():
        difference = ((found[probe] - logits).abs().max() / logits.abs().max()).item()
        reports.append(f"{probe} {difference:.1e}")
        if not difference <= tolerance:
            raise ValueError(
                f"{str(folder)!r} does not say what base and adapters say: on {probe} its logits differ by {difference:.1e} of the "
                f"largest, rounding explains {tolerance:.1e}. Do not use it; please report the two configurations."
            )
    return f"Verified: largest difference of logits, relative: {', '.join(reports)} (allowed {tolerance:.1e})"


def _inputs(processor: Any, image: Image.Image | None) -> dict[str, torch.Tensor]:
    content = [{"type": "image"}] * (image is not None) + [{"type": "text", "text": QUESTION}]
    text = apply_chat_template(processor, [{"role": "user", "content": content}], add_generation_prompt=True)
    return dict(processor(images=None if image is None else [image.convert("RGB")], text=text, return_tensors="pt"))


def _load(folder: Path, family: Merging, has_vision: bool) -> PreTrainedModel:
    if has_vision:
        return family.load(folder, {}, torch.float32).requires_grad_(False)
    return (
        AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, trust_remote_code=False).requires_grad_(False).eval()
    )


def _probe(model: PreTrainedModel, folder: Path, image: Image.Image | None) -> dict[str, torch.Tensor]:
    if getattr(model, "processor", None) is None:  # a language model alone
        return dict(load_tokenizer(folder)(QUESTION, return_tensors="pt", return_token_type_ids=False))
    return _inputs(model.processor, image)


def _reference(
    family: Merging, text_model: Path, vision_model: Path | None, adapters: list[Adapter], dtype: torch.dtype
) -> PreTrainedModel:
    releases = [adapter for adapter in adapters if adapter.is_whole]
    if releases and vision_model is not None:
        bases = {"text_model": text_model, "vision_model": vision_model}
        model = family.load(releases[-1].folder, bases, torch.float32)
    else:
        model = _load(text_model, family, has_vision=bool(releases))
    for adapter in adapters:
        _round(model, dtype)
        language_model = getattr(model, "text_model", model)
        rows = [tensor.shape[0] for name, tensor in adapter.whole.items() if name.endswith("embed_tokens.weight")]
        if rows and rows[0] > language_model.get_input_embeddings().weight.shape[0]:
            model.resize_token_embeddings(rows[0], mean_resizing=False)
        family.apply_adapter(model if adapter.is_whole else language_model, adapter.folder)
        _fold(model)
    _round(model, dtype)
    return model.requires_grad_(False).eval()


@torch.no_grad()
def _round(model: nn.Module, dtype: torch.dtype) -> None:
    for parameter in model.parameters():
        parameter.copy_(parameter.to(dtype))


def _fold(model: nn.Module) -> None:
    """Let PEFT add its layers to the weights, and take them away."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, module in list(model.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge()
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, module.get_base_layer())
