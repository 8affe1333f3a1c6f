"""What the model looks at while it answers: two attention maps of its own, multiplied, laid over each picture.

The language model says how much the tokens of the answer attend to each of a picture's embeddings; the family says where in the
picture each embedding was read. Attention is what the model used, not why it said what it said.

Legend: L embeddings of a picture, n x n places in it, T tokens of the prompt, A tokens of the answer, Dt embedding width.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from PIL import Image, ImageChops
from transformers import PreTrainedModel

from pipelines.embedder import evaluating
from pipelines.generation import ChatModel

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
def looks(chat: ChatModel, seen: Seen) -> list[Look] | None:
    """What an answer looked at, one `Look` per picture in its context; None where the model's family cannot tell.

    Runs the prompt and the answer through the model once more. Nobody else may use the model meanwhile: its attention
    implementation is switched for the second part.
    """
    spans = seen.prepared.image_spans
    if not spans or not seen.answer_ids:
        return []
    images = [span.image.open() for span in spans]
    readings = chat.pipeline.readings(images)
    embeds = seen.prepared.prompt.inputs.get("inputs_embeds")
    if readings is None or embeds is None:
        return None
    attention = _attention_of_answer(chat.model, embeds, seen.answer_ids)
    placeholders = seen.prepared.input_ids[0] == chat.pipeline.placeholder_token_id
    weights = [attention[span.start : span.end][placeholders[span.start : span.end]] for span in spans]  # (L,) each
    total = sum(float(weight.sum()) for weight in weights)
    found = []
    for number, image, reading, weight in zip(seen.numbers, images, readings, weights, strict=True):
        heat = torch.einsum("l,lxy->xy", weight, reading.where.to(weight))
        found.append(Look(number, float(weight.sum()) / total, heat / heat.sum(), reading.box, image))
    return found


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


def _attention_of_answer(model: PreTrainedModel, embeds: torch.Tensor, answer_ids: list[int]) -> torch.Tensor:
    """(T,): how much each token of the prompt was attended to when the answer was written; mean over layers and heads.

    Args:
        embeds: (1, T, Dt) of the prompt.
        answer_ids: A ids. Each was chosen at the position before it, so the last prompt token counts and the last id does not.
    """
    ids = torch.tensor([answer_ids[:-1]], dtype=torch.long, device=embeds.device)
    tail = torch.cat([embeds[:, -1:], model.get_input_embeddings()(ids)], dim=1)  # (1, A, Dt)
    decoder = model.get_decoder()
    with evaluating(decoder):
        cache = decoder(inputs_embeds=embeds[:, :-1], use_cache=True).past_key_values
        with _eager(decoder):
            layers = decoder(inputs_embeds=tail, past_key_values=cache, output_attentions=True).attentions
    means = [layer.float().mean((0, 1, 2))[: embeds.shape[1]].to(embeds.device) for layer in layers]
    return torch.stack(means).mean(0)


@contextmanager
def _eager(decoder: PreTrainedModel) -> Iterator[None]:
    """The attention implementation that can tell its weights."""
    usual = decoder.config._attn_implementation
    decoder.set_attn_implementation("eager")
    try:
        yield
    finally:
        decoder.set_attn_implementation(usual)
