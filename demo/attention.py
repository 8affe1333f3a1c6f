"""What the model looks at while it answers: two attention maps of its own, multiplied.

The language model says how much each token of the answer attends to each of a picture's embeddings; the family says where in the
picture each embedding was read. Attention is what the model used, not why it said what it said.

Legend: L embeddings of a picture, n x n places in it, T tokens of the prompt, A tokens of the answer, W words of it, Dt embedding
width.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from pipelines.base import ImagePart
from pipelines.embedder import evaluating
from pipelines.generation import ChatModel

from .session import Seen

MAX_WORDS = 200


@dataclass(frozen=True)
class Look:
    """How an answer used one picture.

    Attributes:
        number: which picture of the chat.
        share: this picture's part, 0..1, of all the attention that the answer pays to pictures.
        heat: (n, n), non-negative, sums to 1: where in the picture, from its top left.
        by_word: (W, n, n), non-negative: the same for each word; all pictures and places of a word sum to 1.
        box: left, top, right, bottom, each 0..1: the part of the picture that the model is shown at all.
        image: the picture.
    """

    number: int
    share: float
    heat: torch.Tensor
    by_word: torch.Tensor
    box: tuple[float, float, float, float]
    image: ImagePart


@dataclass(frozen=True)
class Looks:
    """How an answer used the pictures in its context.

    Attributes:
        pictures: one `Look` each.
        words: W of the answer, the first `MAX_WORDS`, with the blanks around them: together the beginning of the answer.
    """

    pictures: list[Look]
    words: list[str]


@torch.no_grad()
def looks(chat: ChatModel, seen: Seen) -> Looks | None:
    """What an answer looked at; None where the model's family cannot tell.

    Runs the prompt and the answer through the model once more. Nobody else may use the model meanwhile: its attention
    implementation is switched for the second part.
    """
    if chat.pipeline is None:  # it runs elsewhere
        return None
    spans = seen.prepared.image_spans
    if not spans or not seen.answer_ids:
        return Looks([], [])
    readings = chat.pipeline.readings([span.image.open() for span in spans])
    embeds = seen.prepared.prompt.inputs.get("inputs_embeds")
    if readings is None or embeds is None:
        return None
    attention = _attention_of_answer(chat.model, embeds, seen.answer_ids)  # (A, T)
    words = _words(chat, seen.answer_ids)
    by_word = torch.stack([attention[tokens].mean(0) for _, tokens in words] or [attention.mean(0)])  # (W, T)
    placeholders = seen.prepared.input_ids[0] == chat.pipeline.placeholder_token_id
    places = [torch.arange(span.start, span.end)[placeholders[span.start : span.end].cpu()] for span in spans]  # (L,) each
    total = attention.mean(0)[torch.cat(places)].sum()
    totals = by_word[:, torch.cat(places)].sum(1)[:, None, None]
    found = []
    for number, span, reading, place in zip(seen.numbers, spans, readings, places, strict=True):
        where, weight = reading.where.to(attention), attention.mean(0)[place]
        heat = torch.einsum("l,lxy->xy", weight, where)
        heat_by_word = torch.einsum("wl,lxy->wxy", by_word[:, place], where) / totals
        found.append(Look(number, float(weight.sum() / total), heat / heat.sum(), heat_by_word, reading.box, span.image))
    return Looks(found, [text for text, _ in words])


def _words(chat: ChatModel, answer_ids: list[int]) -> list[tuple[str, slice]]:
    """Words of an answer with the tokens that write them. In scripts without blanks each character counts as one."""
    words: list[tuple[str, slice]] = []
    before, first = "", 0
    for end in range(1, len(answer_ids) + 1):
        text = chat.decode(answer_ids[:end])
        piece = text[len(before) :]
        if not piece or not text.startswith(before):  # a character that is not whole, or a mark that is not shown
            continue
        is_inside = words and not (
            piece[0].isspace() or before[-1:].isspace() or _stands_alone(piece[0]) or _stands_alone(before[-1])
        )
        if is_inside:
            words[-1] = (words[-1][0] + piece, slice(words[-1][1].start, end))
        elif len(words) == MAX_WORDS:
            break
        else:
            words.append((piece, slice(first, end)))
        before, first = text, end
    return words


def _stands_alone(character: str) -> bool:
    """Chinese, Japanese and Korean characters, without their punctuation."""
    return "\u3040" <= character <= "\u9fff" or "\uac00" <= character <= "\ud7af"


def _attention_of_answer(model: PreTrainedModel, embeds: torch.Tensor, answer_ids: list[int]) -> torch.Tensor:
    """(A, T): how much each token of the prompt was attended to when each of the answer was written; mean over layers and heads.

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
    means = [layer.float().mean((0, 1))[:, : embeds.shape[1]].to(embeds.device) for layer in layers]
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
