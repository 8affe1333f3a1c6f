"""What a model says of itself on its card (README.md in its folder), for whoever opens the page.

A card may say it in its front matter:

    multimodal_vcla:
      knows: {en: "Coloured shapes, and nothing else.", zh: ...}
      questions: {en: ["Describe the picture.", "How many things are there?"], zh: [...]}

Where it does not, the first sentence of its text is shown, and questions that fit most models.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

MAX_CHARACTERS = 240
MAX_QUESTIONS = 4
QUESTIONS = {
    "en": ("Describe the picture.", "What is in the foreground?", "What text can be read in it?", "What is unusual about it?"),
    "zh": ("请描述图片。", "前景里有什么？", "图片里有什么文字？", "图片里有什么不寻常的地方？"),
}

_FRONT_MATTER = re.compile(r"\A---\s*\n(.*?)\n---\s*(?:\n|\Z)", re.DOTALL)
_SENTENCE = re.compile(r".+?[.!?。！？](?=\s|$)", re.DOTALL)


@dataclass(frozen=True)
class Card:
    """By language.

    Attributes:
        knows: one line; empty where nobody says it.
        questions: worth asking about a picture.
    """

    knows: Mapping[str, str] = field(default_factory=dict)
    questions: Mapping[str, Sequence[str]] = field(default_factory=dict)


def read_card(folder: Path) -> Card:
    """The card of a model folder. What cannot be read says nothing; a model is not worse for it."""
    try:
        text = (folder / "README.md").read_text(encoding="utf-8")
    except (OSError, UnicodeError):
        text = ""
    front, body = _split(text)
    own = front.get("multimodal_vcla")
    own = own if isinstance(own, dict) else {}
    knows, questions = own.get("knows"), own.get("questions")
    first = _first_sentence(body)
    return Card(
        {language: _line(knows, language) or first for language in QUESTIONS},
        {language: _questions(questions, language) or QUESTIONS[language] for language in QUESTIONS},
    )


def _split(text: str) -> tuple[dict, str]:
    import yaml

    found = _FRONT_MATTER.match(text)
    if found is None:
        return {}, text
    try:
        front = yaml.safe_load(found.group(1))
    except yaml.YAMLError:
        front = None
    return front if isinstance(front, dict) else {}, text[found.end() :]


def _first_sentence(body: str) -> str:
    for paragraph in re.split(r"\n\s*\n", re.sub(r"<!--.*?-->", "", body, flags=re.DOTALL)):
        plain = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", " ".join(paragraph.split()))
        plain = re.sub(r"[*`]", "", plain)
        if plain and plain[0] not in "#<|-![>" and (sentence := _SENTENCE.match(plain)):
            return _short(sentence.group())
    return ""


def _line(knows: object, language: str) -> str:
    value = knows.get(language) if isinstance(knows, dict) else knows
    return _short(" ".join(value.split())) if isinstance(value, str) else ""


def _questions(questions: object, language: str) -> list[str]:
    value = questions.get(language) if isinstance(questions, dict) else None
    return [_short(each) for each in value if isinstance(each, str)][:MAX_QUESTIONS] if isinstance(value, list) else []


def _short(text: str) -> str:
    return text if len(text) <= MAX_CHARACTERS else text[: MAX_CHARACTERS - 1] + "…"
