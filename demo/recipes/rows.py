"""What the demo model is taught, where it differs from the world's own rows: attributes for the eyes, lessons in an order, the wide
world (drawings of any shape, foreign pictures, free wordings, four pictures, other chat modes), terse answers.

A row is a function of the seed and its number alone: several workers make them together (`start`, `step`).
"""

import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from demo import world
from demo.chat_modes import MODES, in_mode
from demo.conversations import (
    ABOUT_NONE,
    ABOUT_SEVERAL,
    Conversation,
    Turn,
    any_about,
    any_kind,
    ask_across,
    converse,
)
from demo.grammar import PHRASES, Question, answer, ask, capital, pair, word
from demo.scenes import Scene, make_foreign, make_palette, make_scene
from demo.wordings import ask_freely


@dataclass(frozen=True)
class Course:
    """What is taught how often.

    Attributes:
        is_any_shape: drawings from tall to wide, else near squares.
        foreign: the share of pictures that are none of the world.
        other_modes: the share of rows as the web UI's other chat modes write them.
        num_pictures: of a talk, with the weight of each number.
        asks: words a question.
        about_all: the share of questions about several pictures that compare or count them.
    """

    is_any_shape: bool
    foreign: float
    other_modes: float
    num_pictures: dict[int, int]
    asks: Callable[..., str]
    about_all: float


SQUARE = Course(False, 0, 0, {0: 1, 1: 9, 2: 7, 3: 5}, ask, 0)
WIDE = Course(True, 0.15, 0.12, {0: 1, 1: 9, 2: 6, 3: 4, 4: 4}, ask_freely, 0.12)
# In which order the lessons take in colours and shapes (easily told apart ones first), and after how many rows two more.
LESSON_COLOURS = ["red", "blue", "green", "black", "yellow", "pink", "orange", "purple"]
LESSON_SHAPES = ["circle", "star", "square", "cross", "triangle", "ring"]
ROWS_PER_PALETTE = 10_000
WHERE_IS_EACH = {
    "en": {"colour": "Where is each colour?", "shape": "Where is each shape?"},
    "zh": {"colour": "颜色在哪里？", "shape": "形状在哪里？"},
}


def attribute_rows(seed: int, start: int = 0, step: int = 1) -> Iterator[dict]:
    """Endless rows of one picture and what is where: place, colour and shape, for each of the nine places.

    The place is the same in every row. To tell it nevertheless, a query has to carry along which place it speaks of, and
    the language model can find it by that.
    """
    for count in itertools.count(start, step):
        rng = random.Random(f"attributes/{seed}/{count}")
        scene = make_scene(rng, "train")
        targets = [[place, colour, shape] for place, (colour, shape) in enumerate(world.attributes(scene))]
        yield {"images": [world.drawn(scene, rng)], "targets": targets}


def wide_caption_rows(seed: int, start: int = 0, step: int = 1) -> Iterator[dict]:
    """Endless rows of one picture of the wide world and its description, or that it is a foreign one."""
    for count in itertools.count(start, step):
        rng = random.Random(f"captions/{seed}/{count}")
        question, language = Question("describe"), rng.choice(world.LANGUAGES)
        scene = _any_picture(WIDE, rng)
        turn = Turn(WIDE.asks(question, language, rng), answer(question, [scene], language), (scene,))
        yield world.row(Conversation("describe", language, (turn,)), rng, is_any_shape=WIDE.is_any_shape)


def lesson_rows(seed: int, start: int = 0, step: int = 1) -> Iterator[dict]:
    """Endless rows for stage 2: rows as the world mixes them, and talks, whose pictures have few colours and shapes at first.

    With all colours and shapes from the start, thousands of steps pass in which the model knows what a picture holds, but
    does not find a thing by its looks. With two of each it learns to look within 300 steps, and takes in the others soon.
    """
    return _lessons(SQUARE, seed, itertools.count(start, step))


def complete_lesson_rows(seed: int, start: int = 0, step: int = 1) -> Iterator[dict]:
    """The same with all colours and shapes from the start: for a model that has learned to look."""
    return _lessons(SQUARE, seed, itertools.count(start, step), num_colours=len(LESSON_COLOURS))


def lesson_text_rows(seed: int, start: int = 0, step: int = 1) -> Iterator[dict]:
    """The same with pictures told in words, as in `world.text_rows`: for the language model, before it has eyes."""
    return _lessons(SQUARE, seed, itertools.count(start, step), in_words=True)


def wide_lesson_rows(seed: int, start: int = 0, step: int = 1) -> Iterator[dict]:
    """Rows of the wide world, with all colours and shapes from the start."""
    return _lessons(WIDE, seed, itertools.count(start, step), num_colours=len(LESSON_COLOURS))


def _lessons(course: Course, seed: int, counts: Iterator[int], in_words: bool = False, num_colours: int = 2) -> Iterator[dict]:
    for count in counts:
        rng = random.Random(f"lessons/{seed}/{count}")
        size = num_colours + 2 * (count // ROWS_PER_PALETTE)
        is_complete = size >= len(LESSON_COLOURS)
        if rng.random() < (0.35 if is_complete else 0.2):
            conversation = world.any_conversation(rng, "train")
        else:
            conversation = _talk(course, rng, None if is_complete else (LESSON_COLOURS[:size], LESSON_SHAPES[:size]))
        row = world.row(conversation.imagined(rng) if in_words else conversation, rng, is_any_shape=course.is_any_shape)
        yield in_mode(rng.choice(MODES), row, rng) if rng.random() < course.other_modes else row


def _any_picture(course: Course, rng: random.Random, palette: tuple[list[str], list[str]] | None = None) -> Scene:
    return make_foreign(rng, "train") if rng.random() < course.foreign else make_scene(rng, "train", palette)


def _talk(course: Course, rng: random.Random, palette: tuple[list[str], list[str]] | None) -> Conversation:
    """Six questions about pictures that are shown, or told in words, all at the beginning or some of them later.

    So a picture that was encoded once teaches several answers. Now and then there is none, or a foreign one.
    """
    language = rng.choice(world.LANGUAGES)
    num_pictures = rng.choices(tuple(course.num_pictures), weights=tuple(course.num_pictures.values()))[0]
    if palette is None and rng.random() < 0.3:
        palette = make_palette(rng)
    shown = tuple(_any_picture(course, rng, palette) for _ in range(num_pictures))
    comes_at = [0]  # the turn of each picture: that of the one before, or one or two later
    for _ in shown[1:]:
        comes_at.append(comes_at[-1] + rng.choice((0, 0, 1, 2)))
    turns: list[Turn] = []
    asked = set()
    num_seen = 0
    while len(turns) < 6:
        so_far = shown[: sum(turn <= len(turns) for turn in comes_at)]
        if so_far:
            is_last_alone = comes_at.count(comes_at[len(so_far) - 1]) == 1
            turn = _ask(course, so_far, is_last_alone, asked, language, rng)
            turns.append(replace(turn, shown=so_far[num_seen:]))
            num_seen = len(so_far)
        else:
            turns += _without_pictures(course, language, rng)
    return Conversation("talk", language, tuple(turns))


def _without_pictures(course: Course, language: str, rng: random.Random) -> tuple[Turn, ...]:
    kind = rng.choice(ABOUT_NONE)
    if kind != "blind" or rng.random() < 0.3:
        return converse(kind, language, rng, "train").turns
    question = any_about(make_scene(rng, "train"), rng)
    return (Turn(course.asks(question, language, rng), answer(question, (), language)),)


def _ask(course: Course, so_far: tuple[Scene, ...], is_last_alone: bool, asked: set, language: str, rng: random.Random) -> Turn:
    """A question about the picture shown last, if it was shown alone, or about any; mostly one that was not yet asked."""
    while True:
        about_last = len(so_far) == 1 or (is_last_alone and rng.random() < 0.4)
        if about_last and so_far[-1].things and rng.random() < 0.2:
            turn = _listing(rng.choice(("colour", "shape")), so_far[-1], language)
        else:
            if about_last:
                question = Question("pictures") if rng.random() < course.about_all / 4 else any_about(so_far[-1], rng)
            elif rng.random() < course.about_all:
                question = Question(rng.choice(("compare", "compare", "compare", "pictures")))
            else:
                question = ask_across(any_kind(ABOUT_SEVERAL, rng), so_far, rng)
            if question is None:
                continue
            turn = Turn(course.asks(question, language, rng, len(so_far)), answer(question, so_far, language))
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


def terse_rows(seed: int, start: int = 0, step: int = 1) -> Iterator[dict]:
    """The world's conversations with answers in lower case and without the mark at their end: what an adapter can change."""
    for row in wide_lesson_rows(seed, start, step):
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
