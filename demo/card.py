"""What a model says of itself on its card (README.md in its folder), for whoever opens the page.

A card may say it in its front matter:

    multimodal_vcla:
      knows: {en: "Coloured shapes, and nothing else.", zh: ...}
      questions: {en: ["Describe the picture.", "Where is the {colour} {shape}?"], zh: [...]}
      words: {en: {colour: [red, blue], shape: [circle, star]}, zh: ...}
      refusal: {en: "I do not know what", zh: ...}

Where it does not, the first sentence of its text is shown, and questions that fit most models. A question with slots is suggested where
the last answer names what fits them; none is, where the answer holds the refusal.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

MAX_CHARACTERS = 240
MAX_QUESTIONS = 4
MAX_WORDS = 50
"""For a slot."""
QUESTIONS = {
    "en": ("Describe the picture.", "What is in the foreground?", "What text can be read in it?", "What is unusual about it?"),
    "zh": ("请描述图片。", "前景里有什么？", "图片里有什么文字？", "图片里有什么不寻常的地方？"),
}

_FRONT_MATTER = re.compile(r"\A---\s*\n(.*?)\n---\s*(?:\n|\Z)", re.DOTALL)
_SLOT = re.compile(r"{(\w+)}")
_SENTENCE = re.compile(r".+?[.!?。！？](?=\s|$)", re.DOTALL)


@dataclass(frozen=True)
class Card:
    """By language.

    Attributes:
        knows: one line; empty where nobody says it.
        questions: worth asking about a picture.
        words: that may stand in the slots of the questions, by slot.
        refusal: a piece of every answer that says that a picture is not known; empty where nobody tells.
    """

    knows: Mapping[str, str] = field(default_factory=dict)
    questions: Mapping[str, Sequence[str]] = field(default_factory=dict)
    words: Mapping[str, Mapping[str, Sequence[str]]] = field(default_factory=dict)
    refusal: Mapping[str, str] = field(default_factory=dict)

    def suggest(self, language: str, asked: Collection[str], answer: str) -> list[str]:
        """Questions that were not asked yet and fit the last answer."""
        if any(refusal and refusal in answer for refusal in self.refusal.values()):
            return []
        filled = [_fill(question, self.words.get(language, {}), asked, answer) for question in self.questions.get(language, ())]
        return [question for question in filled if question and question not in asked]


def read_card(folder: Path) -> Card:
    """The card of a model folder. What cannot be read says nothing; a model is not worse for it."""
    try:
        text = (folder / "README.md").read_text(encoding="utf-8")
    except (OSError, UnicodeError):
        text = ""
    front, body = _split(text)
    own = front.get("multimodal_vcla")
    own = own if isinstance(own, dict) else {}
    knows, questions, words, refusal = (own.get(name) for name in ("knows", "questions", "words", "refusal"))
    first = _first_sentence(body)
    return Card(
        {language: _line(knows, language) or first for language in QUESTIONS},
        {language: _questions(questions, language) or QUESTIONS[language] for language in QUESTIONS},
        {language: _words(words, language) for language in QUESTIONS},
        {language: _line(refusal, language) for language in QUESTIONS},
    )


def _fill(question: str, words: Mapping[str, Sequence[str]], asked: Collection[str], answer: str) -> str:
    """A question about what the answer names and nobody asked about; as it is where it has no slots, "" where nothing fits them."""
    names = _SLOT.findall(question)
    if not names or not all(words.get(name) for name in names):
        return "" if names else question
    slots = question[question.index("{") : question.rindex("}") + 1]  # from the first to the last: "{colour} {shape}"
    pattern = "".join(
        re.escape(piece) if index % 2 == 0 else f"(?:{'|'.join(map(re.escape, words[piece]))})"
        for index, piece in enumerate(_SLOT.split(slots))  # every other one is the name of a slot
    )
    named = [found.lower() for found in re.findall(pattern, answer, re.IGNORECASE)]
    new = next((each for each in named if not any(each in question.lower() for question in asked)), "")
    return new and question.replace(slots, new)


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


def _words(words: object, language: str) -> dict[str, list[str]]:
    value = words.get(language) if isinstance(words, dict) else None
    slots = value.items() if isinstance(value, dict) else ()
    return {
        str(slot): [_short(each) for each in listed if isinstance(each, str)][:MAX_WORDS]
        for slot, listed in slots
        if isinstance(listed, list)
    }


def _short(text: str) -> str:
    return text if len(text) <= MAX_CHARACTERS else text[: MAX_CHARACTERS - 1] + "…"
