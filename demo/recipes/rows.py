"""What the demo model is taught, where it differs from the world's own rows: attributes for the eyes, lessons in an order, terse
answers."""

import itertools
import random
from collections.abc import Iterator
from dataclasses import replace

from demo import world
from demo.conversations import (
    ABOUT_NONE,
    ABOUT_ONE,
    ABOUT_SEVERAL,
    Conversation,
    Turn,
    any_kind,
    ask_about,
    ask_across,
    converse,
)
from demo.grammar import PHRASES, capital, pair, word
from demo.scenes import Scene, make_palette, make_scene

# In which order the lessons take in colours and shapes (easily told apart ones first), and after how many rows two more.
LESSON_COLOURS = ["red", "blue", "green", "black", "yellow", "pink", "orange", "purple"]
LESSON_SHAPES = ["circle", "star", "square", "cross", "triangle", "ring"]
ROWS_PER_PALETTE = 10_000
WHERE_IS_EACH = {
    "en": {"colour": "Where is each colour?", "shape": "Where is each shape?"},
    "zh": {"colour": "颜色在哪里？", "shape": "形状在哪里？"},
}


def attribute_rows(seed: int) -> Iterator[dict]:
    """Endless rows of one picture and what is where: place, colour and shape, for each of the nine places.

    The place is the same in every row. To tell it nevertheless, a query has to carry along which place it speaks of, and
    the language model can find it by that.
    """
    for image, scene in world.pictures(seed):
        targets = [[place, colour, shape] for place, (colour, shape) in enumerate(world.attributes(scene))]
        yield {"images": [image], "targets": targets}


def lesson_rows(seed: int) -> Iterator[dict]:
    """Endless rows for stage 2: rows as the world mixes them, and talks, whose pictures have few colours and shapes at first.

    With all colours and shapes from the start, thousands of steps pass in which the model knows what a picture holds, but
    does not find a thing by its looks. With two of each it learns to look within 300 steps, and takes in the others soon.
    """
    return _lessons(seed, world.instruction_rows(seed), in_words=False)


def complete_lesson_rows(seed: int) -> Iterator[dict]:
    """The same with all colours and shapes from the start: for a model that has learned to look."""
    return _lessons(seed, world.instruction_rows(seed), in_words=False, num_colours=len(LESSON_COLOURS))


def lesson_text_rows(seed: int) -> Iterator[dict]:
    """The same with pictures told in words, as in `world.text_rows`: for the language model, before it has eyes."""
    return _lessons(seed, world.text_rows(seed), in_words=True)


def _lessons(seed: int, as_mixed: Iterator[dict], in_words: bool, num_colours: int = 2) -> Iterator[dict]:
    rng = random.Random(f"lessons/{seed}")
    for count in itertools.count():
        size = num_colours + 2 * (count // ROWS_PER_PALETTE)
        is_complete = size >= len(LESSON_COLOURS)
        if rng.random() < (0.4 if is_complete else 0.2):
            yield next(as_mixed)
        else:
            yield _talk(rng, None if is_complete else (LESSON_COLOURS[:size], LESSON_SHAPES[:size]), in_words)


def _talk(rng: random.Random, palette: tuple[list[str], list[str]] | None, in_words: bool) -> dict:
    """Six questions about pictures that are shown, or told in words, all at the beginning or some of them later.

    So a picture that was encoded once teaches several answers. Now and then there is none.
    """
    language = rng.choice(world.LANGUAGES)
    num_pictures = rng.choices((0, 1, 2, 3), weights=(1, 9, 7, 5))[0]
    if palette is None and rng.random() < 0.3:
        palette = make_palette(rng)
    shown = tuple(make_scene(rng, "train", palette) for _ in range(num_pictures))
    comes_at = [0]  # the turn of each picture: that of the one before, or two later
    for _ in shown[1:]:
        comes_at.append(comes_at[-1] + rng.choice((0, 0, 2)))
    turns: list[Turn] = []
    asked = set()
    num_seen = 0
    while len(turns) < 6:
        so_far = shown[: sum(turn <= len(turns) for turn in comes_at)]
        if so_far:
            is_last_alone = comes_at.count(comes_at[len(so_far) - 1]) == 1
            turn = _ask(so_far, is_last_alone, asked, language, rng)
            turns.append(replace(turn, shown=so_far[num_seen:]))
            num_seen = len(so_far)
        else:
            turns += converse(rng.choice(ABOUT_NONE), language, rng, "train").turns
    talk = Conversation("talk", language, tuple(turns))
    return world.row(talk.imagined(rng) if in_words else talk, rng)


def _ask(so_far: tuple[Scene, ...], is_last_alone: bool, asked: set, language: str, rng: random.Random) -> Turn:
    """A question about the picture shown last, if it was shown alone, or about any; mostly one that was not yet asked."""
    while True:
        about_last = len(so_far) == 1 or (is_last_alone and rng.random() < 0.4)
        if about_last and so_far[-1].things and rng.random() < 0.2:
            turn = _listing(rng.choice(("colour", "shape")), so_far[-1], language)
        else:
            kind = any_kind(ABOUT_ONE if about_last else ABOUT_SEVERAL, rng)
            question = ask_about(kind, so_far[-1], rng) if about_last else ask_across(kind, so_far, rng)
            if question is None:
                continue
            turn = Turn(world.ask(question, language, rng, len(so_far)), world.answer(question, so_far, language))
        about = (len(so_far), turn.answer)
        if about not in asked or rng.random() < 0.1:
            asked.add(about)
            return turn


def _listing(field: str, scene: Scene, language: str) -> Turn:
    """Where every colour or every shape is: many things found by their looks in one short answer."""
    places: dict[str, list[str]] = {}
    for thing in scene.things:
        places.setdefault(getattr(thing, field), []).append(word(thing.place, language))
    phrases = PHRASES[language]
    items = [
        pair(word(look, language), ("、" if language == "zh" else ", ").join(places[look]), language)
        for look in (*world.COLOURS, *world.SHAPES)
        if look in places
    ]
    return Turn(WHERE_IS_EACH[language][field], capital(phrases["comma"].join(items) + phrases["stop"]))


def terse_rows(seed: int) -> Iterator[dict]:
    """The world's conversations with answers in lower case and without the mark at their end: what an adapter can change."""
    for row in world.instruction_rows(seed):
        messages = [
            {**message, "content": [{"type": "text", "text": terse(item["text"])} for item in message["content"]]}
            if message["role"] == "assistant"
            else message
            for message in row["messages"]
        ]
        yield {**row, "messages": messages}


def terse(answer: str) -> str:
    """
    >>> terse("A red circle.")
    'a red circle'
    """
    return answer.lower().rstrip(".!。！")
