"""What the model looks at while it answers: two attention maps of its own, multiplied, laid over each picture.

The language model says how much the tokens of the answer attend to each of a picture's Q embeddings; the resampler says
where in the picture each embedding was read. Attention is what the model used, not why it said what it said.

Legend: Q embeddings of a picture, P patches of it (n x n), T tokens of the prompt, A tokens of the answer.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from PIL import Image, ImageChops
from transformers import PreTrainedModel

from pipelines.visualcla.pipeline import VisualCLAPipeline

from .session import Seen

_DARKEST = 0.12


@dataclass(frozen=True)
class Look:
    """How an answer used one picture.

    Attributes:
        number: which picture of the chat.
        share: this picture's part, 0..1, of all the attention that the answer pays to pictures.
        heat: (n, n), non-negative, sums to 1: where in the picture, from its top left.
        box: left, top, right, bottom, each 0..1: the part of the picture that the model is shown at all.
        image: the picture.
    """

    number: int
    share: float
    heat: torch.Tensor
    box: tuple[float, float, float, float]
    image: Image.Image


@torch.no_grad()
def looks(model: PreTrainedModel, seen: Seen) -> list[Look]:
    """What an answer looked at, one `Look` per picture in its context.

    Runs the prompt and the answer through the model once more. Nobody else may use the model meanwhile: its attention
    implementation is switched for the second part.
    """
    images = [part.image for _, part in seen.image_spans]
    if not images or not seen.answer_ids:
        return []
    eyes = VisualCLAPipeline(model, model.processor.image_processor).look(images, output_attentions=True)
    embeds = model.get_input_embeddings()(seen.input_ids)
    for (start, _), features in zip(seen.image_spans, eyes.image_features, strict=True):
        embeds[0, start : start + len(features)] = features.to(embeds)
    attention = _attention_of_answer(model, embeds, seen.answer_ids)
    num_embeds = eyes.image_features.shape[1]
    weights = torch.stack([attention[start : start + num_embeds] for start, _ in seen.image_spans])  # (N, Q)
    shares = weights.sum(1) / weights.sum()
    heats = torch.einsum("nq,nqp->np", weights, _where_read(eyes))
    side = int(heats.shape[1] ** 0.5)
    heats = (heats / heats.sum(1, keepdim=True)).unflatten(1, (side, side))
    return [
        Look(number, float(share), heat, visible_box(image.size, model.processor.image_processor), image)
        for number, share, heat, image in zip(seen.numbers, shares, heats, images, strict=True)
    ]


def overlay(look: Look, max_side_px: int = 512) -> Image.Image:
    """The picture, dark where it was not looked at. The brightest spot of each picture is at full brightness."""
    image = look.image.convert("RGB")
    scale = max_side_px / max(image.size)
    image = image.resize([max(1, round(side * scale)) for side in image.size], Image.Resampling.LANCZOS)
    light = look.heat / look.heat.max()
    light = ((_DARKEST + (1 - _DARKEST) * light) * 255).round().to(torch.uint8)
    left, top, right, bottom = (round(edge * side) for edge, side in zip(look.box, (*image.size, *image.size), strict=True))
    mask = Image.new("L", image.size, 0)
    grid = Image.frombytes("L", (light.shape[1], light.shape[0]), bytes(light.flatten().tolist()))
    size = max(1, right - left), max(1, bottom - top)  # a hair's breadth of a very long picture is still something
    mask.paste(grid.resize(size, Image.Resampling.BILINEAR), (left, top))
    return ImageChops.multiply(image, Image.merge("RGB", (mask, mask, mask)))


def visible_box(size: tuple[int, int], image_processor) -> tuple[float, float, float, float]:
    """The part of a picture that is left after the image processor's centre crop, as shares of its sides."""
    if not (getattr(image_processor, "do_center_crop", False) and "shortest_edge" in dict(image_processor.size)):
        return 0.0, 0.0, 1.0, 1.0
    crop, shortest_edge = dict(image_processor.crop_size), dict(image_processor.size)["shortest_edge"]
    shares = [
        min(1.0, crop[key] * min(size) / (shortest_edge * side)) for key, side in zip(("width", "height"), size, strict=True)
    ]
    x, y = ((1 - share) / 2 for share in shares)
    return x, y, 1 - x, 1 - y


def _where_read(eyes) -> torch.Tensor:
    """(N, Q, P): where in the picture each embedding was read, rows sum to 1; mean over the resampler's layers and heads."""
    num_tokens = eyes.image_tokens.shape[1]
    if eyes.attentions is None:  # no resampler: every embedding is one token of the vision encoder
        where = torch.eye(num_tokens, device=eyes.image_tokens.device).expand(len(eyes.image_tokens), -1, -1)
    else:
        where = torch.stack([layer.float().mean(1) for layer in eyes.attentions]).mean(0)[..., -num_tokens:]
    num_patches = int(num_tokens**0.5) ** 2
    where = where[..., num_tokens - num_patches :]  # CLIP's first token stands for the whole picture
    return where / where.sum(-1, keepdim=True).clamp_min(1e-12)


def _attention_of_answer(model: PreTrainedModel, embeds: torch.Tensor, answer_ids: list[int]) -> torch.Tensor:
    """(T,): how much each token of the prompt was attended to when the answer was written; mean over layers and heads.

    Args:
        embeds: (1, T, Dt) of the prompt.
        answer_ids: A ids. Each was chosen at the position before it, so the last prompt token counts and the last id does not.
    """
    ids = torch.tensor([answer_ids[:-1]], dtype=torch.long, device=embeds.device)
    tail = torch.cat([embeds[:, -1:], model.get_input_embeddings()(ids)], dim=1)  # (1, A, Dt)
    cache = model.text_model(inputs_embeds=embeds[:, :-1], use_cache=True, logits_to_keep=1).past_key_values
    with _eager(model.text_model):
        layers = model.text_model(inputs_embeds=tail, past_key_values=cache, output_attentions=True).attentions
    means = [layer.float().mean((0, 1, 2))[: embeds.shape[1]].to(embeds.device) for layer in layers]
    return torch.stack(means).mean(0)


@contextmanager
def _eager(text_model: PreTrainedModel) -> Iterator[None]:
    """The attention implementation that can tell its weights."""
    usual = text_model.config._attn_implementation
    text_model.set_attn_implementation("eager")
    try:
        yield
    finally:
        text_model.set_attn_implementation(usual)
