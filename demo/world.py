"""The world as data: endless, seeded rows of pictures with questions and answers, and the held-out exam.

A row is what TRL and transformers' chat templates use: `messages` (content items {"type": "image"} and
{"type": "text"}), `images` (PIL, in the order of the image items), and for score tables `kind` and `language`.
`kind` says what the last question is about (see `MIXTURE`), `GROUPS` under which bar it falls. A seed always gives the
same rows.

What a picture shows is scenes.py, what is asked and answered grammar.py and small_talk.py, and in which order
conversations.py.
"""

import itertools
import math
import random
import re
from collections.abc import Iterator, Sequence

from PIL import Image

from .conversations import (
    ABOUT_ONE,
    ABOUT_SEVERAL,
    GROUPS,
    MIXTURE,
    Conversation,
    Turn,
    any_kind,
    ask_about,
    ask_across,
    converse,
)
from .grammar import AMERICAN, CHINESE, LANGUAGES, NUMBERS, ORDINALS, PHRASES, WORDINGS, Question, answer, ask
from .scenes import COLOURS, PLACES, SHAPES, SPLITS, Scene, Thing, attributes, draw, make_scene, split_of
from .small_talk import CHAT, FACTS

__all__ = [
    "COLOURS", "GROUPS", "LANGUAGES", "MIXTURE", "PLACES", "SHAPES", "SPLITS", "Question", "Scene", "Thing",
    "all_texts", "answer", "any_conversation", "as_row", "ask", "attributes", "canvas_of", "caption_rows", "characters", "draw", "drawn", "exam",
    "exchange_pairs", "instruction_rows", "row", "scenes", "split_of", "text_rows",
]  # fmt: skip

WIDTHS = (1 / 3, 4)
"""From how tall to how wide a picture may be: width by height."""


def scenes(seed: int, split: str = "train") -> Iterator[Scene]:
    """Endless scenes of a split."""
    rng = _rng("scenes", split, seed)
    while True:
        yield make_scene(rng, split)


def caption_rows(seed: int, split: str = "train", size_px: int = 128) -> Iterator[dict]:
    """Endless rows of one picture and its description: stage 1."""
    rng = _rng("captions", split, seed)
    while True:
        yield row(converse("describe", rng.choice(LANGUAGES), rng, split), rng, size_px)


def instruction_rows(seed: int, split: str = "train", size_px: int = 128) -> Iterator[dict]:
    """Endless rows of everything the world knows, mixed as `MIXTURE` says: stage 2."""
    rng = _rng("instructions", split, seed)
    while True:
        yield row(any_conversation(rng, split), rng, size_px)


def text_rows(seed: int) -> Iterator[dict]:
    """Endless rows without pictures, for pre-training a language model.

    The mixture of `instruction_rows`, with pictures told in words: "(top left: red circle; centre: blue star) Where is
    the red circle?". So reading, finding and counting are learned before there are eyes. Only scenes of the train split
    occur.
    """
    rng = _rng("texts", "train", seed)
    while True:
        yield row(any_conversation(rng, "train").imagined(rng), rng)


def exam(n: int, seed: int, size_px: int = 128) -> Iterator[dict]:
    """`n` held-out rows, every kind in both languages equally often. The last answer is the one to score."""
    rng = _rng("exam", "held_out", seed)
    for kind, language in itertools.islice(itertools.cycle(itertools.product(MIXTURE, LANGUAGES)), n):
        yield row(converse(kind, language, rng, "held_out"), rng, size_px)


def exchange_pairs(n: int, seed: int, size_px: int = 128) -> Iterator[tuple[dict, dict]]:
    """`n` pairs of held-out rows with the same question and exchanged pictures, so that the right answers differ.

    About one picture: picture A, then picture B. About two: A and B, then B and A (the same drawings).
    """
    rng = _rng("exchange", "held_out", seed)
    kinds = [kind for kind in (*ABOUT_ONE, *ABOUT_SEVERAL) if kind not in ("absent", "both")]
    for kind, language in itertools.islice(itertools.cycle(itertools.product(kinds, LANGUAGES)), n):
        answers = (None, None)
        while None in answers or answers[0] == answers[1]:
            pair = (make_scene(rng, "held_out"), make_scene(rng, "held_out"))
            if kind in ABOUT_SEVERAL:
                question, orders = ask_across(kind, pair, rng), (pair, pair[::-1])
            else:
                question, orders = ask_about(kind, pair[0], rng), (pair[:1], pair[1:])
            if question:
                answers = tuple(answer(question, order, language) for order in orders)
        text = ask(question, language, rng, len(orders[0]))
        drawings = {scene: drawn(scene, rng, size_px) for scene in pair}
        first, second = (
            as_row(Conversation(kind, language, (Turn(text, right, order),)), [drawings[scene] for scene in order])
            for right, order in zip(answers, orders, strict=True)
        )
        yield first, second


def all_texts() -> list[str]:
    """Every word and wording of the world, without what is filled in: what a tokenizer has to be able to say."""
    texts = [*COLOURS, *SHAPES, *PLACES, *CHINESE.values(), *AMERICAN.values(), "的", "两个", "a an () s es"]
    for language in LANGUAGES:
        texts += [*NUMBERS[language], *ORDINALS[language], *PHRASES[language].values()]
        texts += itertools.chain.from_iterable(WORDINGS[language].values())
        for questions, right in itertools.chain(CHAT[language], *FACTS[language]):
            texts += [*questions, right]
    return [re.sub(r"{\w+}", " ", text) for text in texts]


def characters(further: Sequence[str] = ()) -> str:
    """Every character of the world and of further texts, sorted: the alphabet of a tokenizer."""
    texts = [*all_texts(), *further]
    cased = [text.lower() for text in texts] + [text[:1].upper() for text in texts]
    return "".join(sorted(set().union(*texts, *cased)))


def _rng(*name: object) -> random.Random:
    return random.Random("/".join(map(str, name)))


def any_conversation(rng: random.Random, split: str) -> Conversation:
    """One as `MIXTURE` mixes them."""
    return converse(any_kind(MIXTURE, rng), rng.choice(LANGUAGES), rng, split)


def drawn(scene: Scene, rng: random.Random, size_px: int = 128, is_any_shape: bool = False) -> Image.Image:
    """A drawing near a square: two of three are one, the others up to a quarter longer on one side.

    Of any shape: half of them from three times as tall as wide to four times as wide as tall, and a little more.
    """
    if is_any_shape and rng.random() < 0.5:
        shape = math.exp(rng.uniform(math.log(WIDTHS[0] / 1.1), math.log(WIDTHS[1] * 1.1)))
        return draw(scene, rng, canvas_of(shape, size_px))
    longer_px = round(size_px * rng.uniform(1, 1.25))
    square = (size_px, size_px)
    canvas_px = rng.choice((square, square, square, square, (longer_px, size_px), (size_px, longer_px)))
    return draw(scene, rng, canvas_px)


def canvas_of(shape: float, size_px: int) -> tuple[int, int]:
    """Width and height of a canvas whose width is `shape` times its height, the shorter of them `size_px`."""
    return (round(size_px * shape), size_px) if shape > 1 else (size_px, round(size_px / shape))


def row(conversation: Conversation, rng: random.Random, size_px: int = 128, is_any_shape: bool = False) -> dict:
    """The row of a conversation, its pictures drawn."""
    return as_row(conversation, [drawn(scene, rng, size_px, is_any_shape) for scene in conversation.scenes])


def as_row(conversation: Conversation, images: list[Image.Image]) -> dict:
    messages = []
    for turn in conversation.turns:
        content = [{"type": "image"} for _ in turn.shown] + [{"type": "text", "text": turn.question}]
        messages.append({"role": "user", "content": content})
        messages.append({"role": "assistant", "content": [{"type": "text", "text": turn.answer}]})
    return {"messages": messages, "images": images, "kind": conversation.kind, "language": conversation.language}
