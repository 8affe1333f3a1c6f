"""What the exam asks beside the world's own kinds: foreign pictures, canvases of every shape, free wordings, four pictures, the
web UI's chat modes. Each is endless on demand, held out, and seeded; the last answer of a row is the one to score."""

import itertools
import math
import random
from collections.abc import Iterator

from PIL import Image

from . import world
from .chat_modes import MODES, in_mode
from .conversations import ABOUT_ONE, ABOUT_SEVERAL, Conversation, Turn, any_about, any_across, ask_about, ask_across
from .foreign import KINDS
from .grammar import ACROSS, LANGUAGES, MAX_PICTURES, Question, answer, ask, fill
from .scenes import Scene, make_palette, make_scene
from .wordings import HELD_OUT, PLACE_OF

Row = dict
SHAPES = (1 / 3, 0.45, 0.6, 1.6, 16 / 9, 2.4, 3.2, 4)
"""Width by height of the canvases that are compared with square ones."""


def foreign_rows(n: int, seed: int, size_px: int = 128) -> Iterator[Row]:
    """Questions of every kind about pictures of kinds that are never taught."""
    rng = random.Random(f"exam/foreign/{seed}")
    for kind, language in itertools.islice(itertools.cycle(itertools.product(KINDS["held_out"], LANGUAGES)), n):
        scene = Scene(foreign=kind)
        question = any_about(scene, rng)
        turn = Turn(ask(question, language, rng), answer(question, [scene], language), (scene,))
        shape = math.exp(rng.uniform(*map(math.log, world.WIDTHS))) if rng.random() < 0.3 else 1
        yield world.as_row(
            Conversation("foreign", language, (turn,)), [world.draw(scene, rng, world.canvas_of(shape, size_px))]
        )


def shape_pairs(n: int, seed: int, size_px: int = 128) -> Iterator[tuple[Row, Row]]:
    """The same question about the same scene on a square canvas and on one of `SHAPES`; every third of those has an alpha channel
    instead of a ground."""
    rng = random.Random(f"exam/shape/{seed}")
    kinds = itertools.cycle(itertools.product(SHAPES, ABOUT_ONE, LANGUAGES))
    for number, (shape, kind, language) in enumerate(itertools.islice(kinds, n)):
        question = None
        while question is None:
            scene = make_scene(rng, "held_out")
            question = ask_about(kind, scene, rng)
        turn = Turn(ask(question, language, rng), answer(question, [scene], language), (scene,))
        conversation = Conversation("shape", language, (turn,))
        square, other = (world.draw(scene, rng, world.canvas_of(each, size_px)) for each in (1, shape))
        other = _without_ground(other) if number % 3 == 0 and scene.background == "white" else other
        yield world.as_row(conversation, [square]), world.as_row(conversation, [other])


def wording_rows(n: int, seed: int, size_px: int = 128) -> Iterator[Row]:
    """Every sentence of `HELD_OUT` as often as the others."""
    rng = random.Random(f"exam/wordings/{seed}")
    sentences = [
        (language, kind, sentence) for language in LANGUAGES for kind, own in HELD_OUT[language].items() for sentence in own
    ]
    for language, kind, sentence in itertools.islice(itertools.cycle(sentences), n):
        question = None
        while question is None:
            shown = tuple(make_scene(rng, "held_out") for _ in range(2 if kind in ACROSS else 1))
            if sentence in PLACE_OF:
                question = Question("what", place=PLACE_OF[sentence])
            elif kind == "compare":
                question = Question(kind)
            else:
                question = ask_across(kind, shown, rng) if kind in ACROSS else ask_about(kind, shown[0], rng)
            if (
                question
                and question.place
                and "{place}" not in sentence
                and "{thing" not in sentence
                and sentence not in PLACE_OF
            ):
                question = None
        turn = Turn(fill(sentence, question, language, rng, len(shown)), answer(question, shown, language), shown)
        yield world.row(Conversation("wording", language, (turn,)), rng, size_px)


def four_picture_rows(n: int, seed: int, size_px: int = 128) -> Iterator[Row]:
    """Three or four pictures, in any order over turns, and a question about one of them or about all."""
    rng = random.Random(f"exam/four/{seed}")
    for kind, language in itertools.islice(itertools.cycle(itertools.product(ABOUT_SEVERAL, LANGUAGES)), n):
        palette = make_palette(rng) if rng.random() < 0.5 else None
        shown = tuple(make_scene(rng, "held_out", palette) for _ in range(rng.choice((3, MAX_PICTURES))))
        ends = sorted({len(shown), *(count for count in range(1, len(shown)) if rng.random() < 0.6)})
        turns, begin = [], 0
        for end in ends:
            so_far, is_last = shown[:end], end == len(shown)
            question = _about_all(kind if is_last else None, so_far, end - begin == 1, rng)
            while question is None:  # none of this kind has one answer here
                question = _about_all(kind if is_last else None, so_far, end - begin == 1, rng)
            turns.append(Turn(ask(question, language, rng, end), answer(question, so_far, language), so_far[begin:]))
            begin = end
        yield world.row(Conversation("four", language, tuple(turns)), rng, size_px)


def chat_mode_rows(n: int, seed: int, size_px: int = 128) -> Iterator[Row]:
    """The held-out exam with pictures, as the web UI's other modes put it."""
    kinds = [kind for kind, group in world.GROUPS.items() if group != "text"]
    rows = (row for row in world.exam(8 * n, seed + 1, size_px) if row["kind"] in kinds)
    for row, mode in zip(itertools.islice(rows, n), itertools.cycle((MODES[0], MODES[0], MODES[1], MODES[1])), strict=False):
        yield in_mode(mode, {**row, "kind": mode})


def _about_all(kind: str | None, so_far: tuple[Scene, ...], is_alone: bool, rng: random.Random) -> Question | None:
    if kind is not None:
        return next((question for _ in range(50) if (question := ask_across(kind, so_far, rng))), any_across(so_far, rng))
    return any_about(so_far[-1], rng) if is_alone else any_across(so_far, rng)


def _without_ground(image: Image.Image) -> Image.Image:
    """The white ground made transparent, black where nobody sees it."""
    image = image.convert("RGBA")
    seen = image.convert("L").point(lambda level: 0 if level == 255 else 255)
    hidden = Image.new("RGBA", image.size, (0, 0, 0, 0))
    hidden.paste(image, mask=seen)
    return hidden
