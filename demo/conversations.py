"""Conversations about scenes: which questions are asked, in which order, and about which pictures.

Which picture a question means is always clear: one that names no picture means the picture shown last, and is only
asked when that was shown alone; otherwise it says "first", "second" or "third", counted over the whole conversation.
How a question is worded and answered belongs to grammar.py, pictures and rows to world.py.
"""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from .grammar import LANGUAGES, PHRASES, Question, answer, ask, listed, loosen
from .scenes import COLOURS, PLACES, SHAPES, Scene, make_palette, make_scene
from .small_talk import CHAT, FACTS

# The kinds, with the share of each in a mixed training set, in percent.
MIXTURE = {
    # one picture, one question about it
    "describe": 6, "what": 7, "where": 7, "colour": 5, "shape": 5, "count": 9, "is_there": 5,
    # the same, about a thing that is not there
    "absent": 8,
    # one picture, two to five questions
    "turns": 18,
    # two or three pictures in one message: a question about one of them; which one shows ...; do all show ...
    "nth": 7, "which": 6, "both": 4,
    # two or three pictures, one after the other
    "later": 7,
    # no picture: small talk, facts, and questions about a picture that was not given
    "chat": 2, "fact": 3, "blind": 1,
}  # fmt: skip
ABOUT_ONE = ("describe", "what", "where", "colour", "shape", "count", "is_there", "absent")
ABOUT_SEVERAL = ("nth", "which", "both")
ABOUT_NONE = ("chat", "fact", "blind")
GROUPS = dict.fromkeys(MIXTURE, "single") | {"absent": "absent"}
GROUPS |= dict.fromkeys((*ABOUT_SEVERAL, "later"), "several") | dict.fromkeys(ABOUT_NONE, "text")


@dataclass(frozen=True)
class Turn:
    """One question with its answer, and the pictures shown with it."""

    question: str
    answer: str
    shown: tuple[Scene, ...] = ()


@dataclass(frozen=True)
class Conversation:
    """Turns in one language; `kind` says what the last question is about."""

    kind: str
    language: str
    turns: tuple[Turn, ...]

    @property
    def scenes(self) -> list[Scene]:
        """All pictures, in order."""
        return [scene for turn in self.turns for scene in turn.shown]

    def imagined(self, rng: random.Random) -> "Conversation":
        """The same conversation with every picture told in words, in either language, instead of shown."""
        turns = []
        for turn in self.turns:
            told = [f"({_told(scene, rng.choice(LANGUAGES))})" for scene in turn.shown]
            turns.append(Turn(" ".join([*told, turn.question]), turn.answer))
        return replace(self, turns=tuple(turns))


def converse(kind: str, language: str, rng: random.Random, split: str) -> Conversation:
    """A conversation of this kind about scenes of this split."""
    if kind in ABOUT_NONE:
        turns = [_talk(kind, language, rng)]
        if rng.random() < 0.2:
            turns.insert(0, _talk(rng.choice(ABOUT_NONE), language, rng))
    elif kind == "turns":
        turns = _several_turns(language, rng, split)
    elif kind == "later":
        turns = _one_after_the_other(language, rng, split)
    else:
        turns = [_single_turn(kind, language, rng, split)]
    return Conversation(kind, language, tuple(turns))


def any_kind(kinds: Iterable[str], rng: random.Random) -> str:
    """One of these kinds, as often as `MIXTURE` says."""
    kinds = list(kinds)
    return rng.choices(kinds, [MIXTURE[kind] for kind in kinds])[0]


def ask_about(kind: str, scene: Scene, rng: random.Random) -> Question | None:
    """A question of a kind of `ABOUT_ONE` that has one answer for this scene; None where the try failed."""
    is_near_miss = kind == "absent" or (kind == "count" and rng.random() < 0.2)
    colour, shape = _look(scene, rng, is_near_miss)
    place = rng.choice([thing.place for thing in scene.things] or PLACES)
    if kind == "describe":
        return Question(kind)
    if kind == "what":
        return Question(kind, place=place if rng.random() < 0.75 else rng.choice(PLACES))
    asked = rng.choice(("is_there", "is_there", "where", "colour", "shape")) if kind == "absent" else kind
    if asked == "count":
        look = rng.choice(({}, {"colour": colour}, {"shape": shape}))
    elif asked in ("colour", "shape"):
        look = {"shape": shape} if asked == "colour" else {"colour": colour}
        if kind != "absent" and rng.random() < 0.4:
            look = {"place": place}
    else:
        both = {"colour": colour, "shape": shape}
        look = rng.choice((both, both, {"colour": colour}, {"shape": shape}))
    question = Question(asked, **look)
    has_one_answer = answer(question, [scene], "en") is not None
    return question if has_one_answer and question.is_absent(scene) == (kind == "absent") else None


def ask_across(kind: str, shown: Sequence[Scene], rng: random.Random) -> Question | None:
    """A question of a kind of `ABOUT_SEVERAL` that has one answer for these scenes; None where the try failed."""
    picture = rng.randrange(len(shown))
    if kind == "nth":
        return replace(any_about(shown[picture], rng), picture=picture)
    colour, shape = _look(shown[picture], rng, is_near_miss=rng.random() < 0.15)
    question = Question(kind, *rng.choice(((colour, shape), (colour, None), (None, shape))))
    right = answer(question, shown, "en")
    # Few things are on all pictures: most questions with "no" are dropped, so that both answers are about as frequent.
    is_no = kind == "both" and not all(question.find(scene) for scene in shown)
    is_surplus = is_no and rng.random() < 0.7
    return None if right is None or is_surplus else question


def _single_turn(kind: str, language: str, rng: random.Random, split: str) -> Turn:
    """One question, about the one, two or three pictures shown with it."""
    while True:
        if kind in ABOUT_SEVERAL:
            shown = _some_scenes(rng, split)
            question = ask_across(kind, shown, rng)
        else:
            shown = (make_scene(rng, split),)
            question = ask_about(kind, shown[0], rng)
        if question:
            return _turn(question, shown, shown, language, rng)


def _several_turns(language: str, rng: random.Random, split: str) -> list[Turn]:
    """Two to five questions about one picture; now and then something without a picture comes before or between."""
    shown = (make_scene(rng, split),)
    turns = [_turn(any_about(shown[0], rng), shown, shown, language, rng)]
    for _ in range(rng.randint(1, 4)):
        if rng.random() < 0.1:
            turns.append(_talk(rng.choice(("chat", "fact")), language, rng))
        turns.append(_turn(any_about(shown[0], rng), shown, (), language, rng))
    if rng.random() < 0.15:
        turns.insert(0, _talk(rng.choice(ABOUT_NONE), language, rng))
    return turns


def _one_after_the_other(language: str, rng: random.Random, split: str) -> list[Turn]:
    """Each picture comes with a question about itself or about those so far; the last question is about several."""
    shown = _some_scenes(rng, split)
    turns = [_turn(any_about(shown[0], rng), shown[:1], shown[:1], language, rng)]
    for count in range(2, len(shown) + 1):
        so_far = shown[:count]
        question = any_about(so_far[-1], rng) if rng.random() < 0.6 else any_across(so_far, rng)
        turns.append(_turn(question, so_far, so_far[-1:], language, rng))
    turns.append(_turn(any_across(shown, rng), shown, (), language, rng))
    return turns


def _talk(kind: str, language: str, rng: random.Random) -> Turn:
    """Something without a picture: small talk, a fact, or a question about a picture that was not given."""
    if kind == "blind":
        return _turn(any_about(make_scene(rng, "train"), rng), (), (), language, rng)
    questions, right = rng.choice(CHAT[language] if kind == "chat" else rng.choice(FACTS[language]))
    return Turn(loosen(rng.choice(questions), rng), right)


def _turn(question: Question, so_far: Sequence[Scene], shown: tuple[Scene, ...], language: str, rng: random.Random) -> Turn:
    return Turn(ask(question, language, rng, len(so_far)), answer(question, so_far, language), shown)


def _some_scenes(rng: random.Random, split: str) -> tuple[Scene, ...]:
    """Two or three scenes, half of the time of the same few colours and shapes, so that they are easily confused."""
    palette = make_palette(rng) if rng.random() < 0.5 else None
    return tuple(make_scene(rng, split, palette) for _ in range(rng.choice((2, 2, 3))))


def any_about(scene: Scene, rng: random.Random) -> Question:
    """A question of any kind about one picture; a foreign one is asked about as if it showed something of the world."""
    scene = make_scene(rng, "train") if scene.foreign else scene
    question = None
    while question is None:
        question = ask_about(any_kind(ABOUT_ONE, rng), scene, rng)
    return question


def any_across(shown: Sequence[Scene], rng: random.Random) -> Question:
    """A question of any kind about several pictures."""
    question = None
    while question is None:
        question = ask_across(rng.choice(ABOUT_SEVERAL), shown, rng)
    return question


def _told(scene: Scene, language: str) -> str:
    return PHRASES[language]["unknown"] if scene.foreign else listed(scene, language)


def _look(scene: Scene, rng: random.Random, is_near_miss: bool) -> tuple[str, str]:
    """Colour and shape of a thing of the scene; for a near miss one or both of them come from elsewhere."""
    colour, shape = rng.choice(tuple(COLOURS)), rng.choice(SHAPES)
    if not scene.things:
        return colour, shape
    thing, other = rng.choice(scene.things), rng.choice(scene.things)
    if not is_near_miss:
        return thing.colour, thing.shape
    return rng.choice(((thing.colour, shape), (colour, thing.shape), (thing.colour, other.shape), (colour, shape)))
