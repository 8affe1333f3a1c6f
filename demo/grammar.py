"""The language of the world: how questions are worded, and the one right answer to each, in English and Chinese.

Questions have a few wordings here and many in wordings.py, answers exactly one. A question that has no single right answer ("Where is the circle?"
with two circles) is answered with None by `answer` and is never asked. Small talk and facts are in small_talk.py.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from .scenes import Scene, Thing

LANGUAGES = ("en", "zh")

CHINESE = {
    "red": "红色", "orange": "橙色", "yellow": "黄色", "green": "绿色",
    "blue": "蓝色", "purple": "紫色", "pink": "粉色", "black": "黑色",
    "circle": "圆形", "square": "正方形", "triangle": "三角形", "ring": "圆环", "cross": "十字", "star": "星形",
    "top left": "左上角", "top": "上方", "top right": "右上角", "left": "左边", "centre": "中间", "right": "右边",
    "bottom left": "左下角", "bottom": "下方", "bottom right": "右下角", "thing": "东西",
}  # fmt: skip
NUMBERS = {
    "en": ("none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    "zh": ("零", "一", "二", "三", "四", "五", "六", "七", "八", "九", "十"),
}
ORDINALS = {"en": ("first", "second", "third", "fourth"), "zh": ("第一张", "第二张", "第三张", "第四张")}
MAX_PICTURES = len(ORDINALS["en"])

# {inside}, {of} and {picture} say which picture is meant, {thing}, {a_thing} and {things} what is asked for,
# {pictures} how many pictures there are.
WORDINGS = {
    "en": {
        "describe": ("Describe {picture}.", "What is in {picture}?",
                     "What do you see{inside}?", "What does {picture} show?"),
        "what": ("What is at the {place}{of}?", "What was at the {place}{of}?", "What do you see at the {place}{of}?"),
        "where": ("Where is the {thing}{inside}?", "Where do you see the {thing}{inside}?",
                  "Find the {thing}{inside}."),
        "colour": ("What colour is the {thing}{inside}?", "Which colour is the {thing}{inside}?"),
        "shape": ("What shape is the {thing}{inside}?", "Which shape is the {thing}{inside}?"),
        "count": ("How many {things} are there{inside}?", "How many {things} do you see{inside}?",
                  "Count the {things}{inside}."),
        "is_there": ("Is there {a_thing}{inside}?", "Do you see {a_thing}{inside}?", "Does {picture} show {a_thing}?"),
        "which": ("Which picture shows the {thing}?", "Which picture has {a_thing}?",
                  "In which picture is the {thing}?"),
        "both": ("Do {pictures} show {a_thing}?", "Is there {a_thing} in {pictures}?",
                 "Do you see {a_thing} in {pictures}?"),
        "compare": ("What is different between {pictures}?", "What is the difference between {pictures}?"),
        "pictures": ("How many pictures are there?",),
    },
    "zh": {
        "describe": ("请描述{picture}。", "{picture}里有什么？", "你在{picture}里看到什么？"),
        "what": ("{inside}{place}是什么？", "{inside}{place}有什么？", "{inside}{place}是什么东西？"),
        "where": ("{inside}{thing}在哪里？", "{inside}{thing}在什么地方？", "{inside}哪里有{thing}？"),
        "colour": ("{inside}{thing}是什么颜色？", "{inside}{thing}是哪种颜色？"),
        "shape": ("{inside}{thing}是什么形状？", "{inside}{thing}是哪种形状？"),
        "count": ("{inside}有几个{things}？", "{inside}有多少个{things}？", "{inside}一共有几个{things}？"),
        "is_there": ("{inside}有{thing}吗？", "{inside}有没有{thing}？", "{picture}里看得到{thing}吗？"),
        "which": ("哪张图片里有{thing}？", "{thing}在哪张图片里？", "哪一张图片有{thing}？"),
        "both": ("{pictures}里都有{thing}吗？", "{pictures}都有{thing}吗？"),
        "compare": ("{pictures}有什么不同？", "{pictures}有什么区别？"),
        "pictures": ("有几张图片？",),
    },
}  # fmt: skip
# An answer names what was asked for before it says what is known of it: so a small model has to find only what it has just
# said. {answer} is the answer about a picture that was named.
PHRASES = {
    "en": {
        "picture": "the picture", "nth picture": "the {ordinal} picture", "in": " in {picture}", "of": " of {picture}",
        "2 pictures": "both pictures", "3 pictures": "all pictures", "4 pictures": "all pictures", "about nth": "In the {ordinal} picture, {answer}",
        "empty": "The picture is empty.", "blind": "I see no picture.",
        "foreign": "I do not know what {picture} shows. I only know drawings of coloured shapes: circle, square, triangle, ring, cross, star.",
        "each": "{Ordinal} picture: {listed}.", "between": " ", "is empty": "empty", "unknown": "something I do not know",
        "pictures": "Pictures: {number}.",
        "absent": "The {thing} is not there.", "nowhere": "not there",
        "colour": "The {thing} is {colour}.", "shape": "The {thing} is {a_shape}.", "count": "{things}: {number}.",
        "which": "the {ordinal} picture", "none": "none of them",
        "is_there": "{a_thing}? {yes}.", "both": "{a_thing} in {pictures}? {yes}.", "yes": "Yes", "no": "No",
        "listed": "{name}: {value}", "nothing": "nothing", "comma": "; ", "stop": ".",
    },
    "zh": {
        "picture": "图片", "nth picture": "{ordinal}图片", "in": "{picture}里", "of": "{picture}里",
        "2 pictures": "两张图片", "3 pictures": "三张图片", "4 pictures": "四张图片", "about nth": "{ordinal}图片里，{answer}",
        "empty": "图片是空的。", "blind": "我没有看到图片。",
        "foreign": "我看不懂{picture}。我只认识彩色图形的图画：圆形、正方形、三角形、圆环、十字、星形。",
        "each": "{Ordinal}图片：{listed}。", "between": "", "is empty": "空的", "unknown": "我不认识的东西",
        "pictures": "图片有{number}张。",
        "absent": "{thing}不在图片里。", "nowhere": "不在图片里",
        "colour": "{thing}是{colour}。", "shape": "{thing}是{a_shape}。", "count": "{things}有{number}。",
        "which": "{ordinal}图片", "none": "都不在",
        "is_there": "{a_thing}？{yes}。", "both": "{pictures}里的{a_thing}？{yes}。", "yes": "有", "no": "没有",
        "listed": "{name}：{value}", "nothing": "什么也没有", "comma": "；", "stop": "。",
    },
}  # fmt: skip
AMERICAN = {"colour": "color", "centre": "center"}

ACROSS = ("which", "both", "compare", "pictures")
"""Kinds of questions about all pictures together."""
_ABOUT_A_THING = ("where", "colour", "shape", "is_there")


@dataclass(frozen=True)
class Question:
    """What is asked, apart from its wording.

    Args:
        kind: a key of `WORDINGS`.
        colour, shape, place: what the thing asked for looks like and where it is; None leaves it open.
        picture: index of the picture that is meant; None is the picture shown last, and is not named in the wording.
    """

    kind: str
    colour: str | None = None
    shape: str | None = None
    place: str | None = None
    picture: int | None = None

    def find(self, scene: Scene) -> list[Thing]:
        """The things of this scene that fit the colour, shape and place asked for."""
        return [
            thing
            for thing in scene.things
            if self.colour in (None, thing.colour) and self.shape in (None, thing.shape) and self.place in (None, thing.place)
        ]

    def is_absent(self, scene: Scene) -> bool:
        """Whether the question is about a thing that this one picture does not show."""
        return self.kind in _ABOUT_A_THING and not self.find(scene)


def word(english: str, language: str) -> str:
    """The name of a colour, shape or place in this language."""
    return english if language == "en" else CHINESE[english]


def noun(colour: str | None, shape: str | None, place: str | None, language: str, is_many: bool = False) -> str:
    """'red circle', 'thing at the top left'; '红色圆形', '左上角的东西'."""
    if language == "zh":
        described = (f"{CHINESE[place]}的" if place else "") + (CHINESE[colour] if colour else "")
        return described + ("的" if colour and not shape else "") + CHINESE[shape or "thing"]
    name = shape or "thing"
    if is_many:
        name += "es" if name.endswith("s") else "s"
    return (f"{colour} " if colour else "") + name + (f" at the {place}" if place else "")


def ask(question: Question, language: str, rng: random.Random, pictures: int = 1) -> str:
    """Word a question; `pictures` is how many pictures the conversation has (for 'both', 'all')."""
    return loosen(fill(rng.choice(WORDINGS[language][question.kind]), question, language, rng, pictures), rng)


def fill(sentence: str, question: Question, language: str, rng: random.Random, pictures: int = 1) -> str:
    """A sentence of `WORDINGS` with its slots filled in; a picture that need not be named is named now and then."""
    phrases, picture = PHRASES[language], _picture(question, language)
    is_named = question.picture is not None or rng.random() < 0.3
    return sentence.format(
        **_names(question, language),
        place=word(question.place, language) if question.place else "",
        picture=picture,
        pictures=phrases[f"{max(pictures, 2)} pictures"],
        inside=phrases["in"].format(picture=picture) if is_named else "",
        of=phrases["of"].format(picture=picture) if is_named else "",
    )


def loosen(text: str, rng: random.Random) -> str:
    """A question as people type it: now and then in American spelling, in lower case, without the mark at its end."""
    if rng.random() < 0.2:
        for british, american in AMERICAN.items():
            text = text.replace(british, american)
    return text.lower().rstrip(".?!。？！") if rng.random() < 0.15 else text


def answer(question: Question, scenes: Sequence[Scene], language: str) -> str | None:
    """The one right answer, or None where the question has none.

    Args:
        scenes: all pictures of the conversation so far, in order.
    """
    phrases = PHRASES[language]
    if not scenes:
        return phrases["blind"]
    shown = scenes[-1 if question.picture is None else question.picture]
    if question.kind in ACROSS:
        said = _answer_across(question, scenes, language)
    elif shown.foreign:
        return phrases["foreign"].format(picture=_picture(question, language))
    else:
        said = _answer_about(question, shown, language)
        if said and question.picture is not None:
            said = phrases["about nth"].format(ordinal=ORDINALS[language][question.picture], answer=said[0].lower() + said[1:])
    return said and capital(said)


def listed(scene: Scene, language: str) -> str:
    """The things of a scene in reading order: 'top left: red circle; centre: blue star'; '' for an empty one."""
    items = (
        pair(word(thing.place, language), noun(thing.colour, thing.shape, None, language), language) for thing in scene.things
    )
    return PHRASES[language]["comma"].join(items)


def pair(name: str, value: str, language: str) -> str:
    """What is asked for, then what is known of it: 'top left: red circle'."""
    return PHRASES[language]["listed"].format(name=name, value=value)


def _answer_about(question: Question, scene: Scene, language: str) -> str | None:
    phrases, names = PHRASES[language], _names(question, language)
    found = question.find(scene)
    if question.kind == "describe":
        return listed(scene, language) + phrases["stop"] if scene.things else phrases["empty"]
    if question.kind == "count":
        return phrases["count"].format(number=_number(len(found), language), **names)
    if question.kind == "is_there":
        return phrases["is_there"].format(yes=phrases["yes" if found else "no"], **names)
    if question.kind == "what":
        thing = noun(found[0].colour, found[0].shape, None, language) if found else phrases["nothing"]
        return pair(word(question.place, language), thing, language) + phrases["stop"]
    if len(found) > 1 or (question.place and not found):
        return None
    if question.kind == "where":
        place = word(found[0].place, language) if found else phrases["nowhere"]
        return pair(names["thing"], place, language) + phrases["stop"]
    if not found:
        return phrases["absent"].format(**names)
    values = {
        "colour": word(found[0].colour, language),
        "a_shape": _with_article(word(found[0].shape, language), language),
    }
    return phrases[question.kind].format(**values, **names)


def _answer_across(question: Question, scenes: Sequence[Scene], language: str) -> str | None:
    phrases, names = PHRASES[language], _names(question, language)
    if question.kind == "pictures":
        return phrases["pictures"].format(number=_number(len(scenes), language).removesuffix("个"))
    if question.kind == "compare":
        return _answer_each(scenes, language) if len(scenes) > 1 else None
    showing = [index for index, scene in enumerate(scenes) if question.find(scene)]
    if len(scenes) < 2:
        return None
    if question.kind == "both":
        yes = phrases["yes" if len(showing) == len(scenes) else "no"]
        return phrases["both"].format(pictures=phrases[f"{len(scenes)} pictures"], yes=yes, **names)
    if len(showing) > 1:
        return None
    picture = phrases["which"].format(ordinal=ORDINALS[language][showing[0]]) if showing else phrases["none"]
    return pair(names["thing"], picture, language) + phrases["stop"]


def _answer_each(scenes: Sequence[Scene], language: str) -> str:
    """What each of several pictures shows."""
    phrases, said = PHRASES[language], []
    for ordinal, scene in zip(ORDINALS[language], scenes, strict=False):
        shown = phrases["unknown"] if scene.foreign else listed(scene, language) or phrases["is empty"]
        said.append(phrases["each"].format(Ordinal=capital(ordinal), listed=shown))
    return phrases["between"].join(said)


def is_refusal(text: str) -> bool:
    """Whether an answer says that a picture is not of the world."""
    return any(text.startswith(PHRASES[language]["foreign"].split("{")[0]) for language in LANGUAGES)


def _picture(question: Question, language: str) -> str:
    """'the picture', or 'the second picture' where the question names one."""
    phrases = PHRASES[language]
    if question.picture is None:
        return phrases["picture"]
    return phrases["nth picture"].format(ordinal=ORDINALS[language][question.picture])


def _names(question: Question, language: str) -> dict[str, str]:
    """What is asked for, as questions and answers name it."""
    thing = noun(question.colour, question.shape, question.place, language)
    things = noun(question.colour, question.shape, question.place, language, is_many=True)
    return {"thing": thing, "a_thing": _with_article(thing, language), "things": things}


def _number(number: int, language: str) -> str:
    if language == "zh":
        return ("两" if number == 2 else NUMBERS["zh"][number]) + "个"
    return NUMBERS[language][number]


def _with_article(name: str, language: str) -> str:
    """Chinese has none."""
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}" if language == "en" else name


def capital(text: str) -> str:
    return text[0].upper() + text[1:]
