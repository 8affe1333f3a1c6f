"""SVT, Street View Text: words on photographs, cut out and read; lmms-eval has no task for them."""

import re
from pathlib import Path
from xml.etree import ElementTree

from ..figures import Figure, mean
from .base import ImageFolder, Question, Task, Verdict, ask, records_of, text_of

PROMPT = "What is written in the picture? Answer with the word alone."


class Svt(Task):
    """SVT's own `test.xml`, each tagged word of which is cut out of its picture, or JSON lines or a JSON list of words that are cut
    out already: {"image", "answer"} (or "word").

    Letter case and punctuation aside, as in all of SVT's published figures; "word accuracy" finds the word among those of the answer
    (a model may say "The word is HOTEL."), "the word alone" takes nothing else.
    """

    name = "svt"
    title = "SVT"
    about = 'words on street signs: SVT\'s test.xml, or rows of {"image", "answer"}; word accuracy'
    source = "Street View Text (Wang, Babenko, Belongie, ICCV 2011), test.xml"
    files = ("*svt*.json", "*svt*.jsonl", "*svt*.xml", "test.xml")
    max_new_tokens = 16

    def read(self, path: Path, images: ImageFolder) -> list[Question]:
        if path.suffix.lower() == ".xml":
            return _of_xml(path, images)
        return [
            Question(
                str(number),
                ask(PROMPT),
                [images.find(text_of(record, place, "image"))],
                (_a_word(text_of(record, place, "answer", "word"), place),),
            )
            for number, (place, record) in enumerate(records_of(path), start=1)
        ]

    def judge(self, question: Question, answer: str) -> Verdict:
        right, said = plain(question.right[0]), [word for word in map(plain, answer.split()) if word]
        return Verdict(float(right in said), " ".join(said))

    def figures(self, questions, answers, verdicts) -> dict[str, Figure]:
        alone = [float(plain(question.right[0]) == plain(answer)) for question, answer in zip(questions, answers, strict=True)]
        return {"word accuracy": mean([verdict.score for verdict in verdicts]), "the word alone": mean(alone)}


def plain(word: str) -> str:
    """Letters and digits, in lower case."""
    return re.sub(r"[\W_]+", "", word).lower()


def _a_word(word: str, place: str) -> str:
    if not plain(word):
        raise ValueError(f"{place}: {word!r} has no letter and no digit.")
    return word


def _of_xml(path: Path, images: ImageFolder) -> list[Question]:
    from pipelines.images import load_image

    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise ValueError(f"{str(path)!r} is no XML that can be read ({error}).") from error
    questions = []
    for image in root.iter("image"):
        name = (image.findtext("imageName") or "").strip()
        file, words = images.find(name), list(image.iter("taggedRectangle"))
        place = f"{path}, image {name!r}"
        if not name or not words:
            raise ValueError(f"{place}: an image of SVT has an imageName and taggedRectangles.")
        picture = load_image(file) if file.is_file() else None
        for number, word in enumerate(words, start=1):
            try:
                x, y, width, height = (int(float(word.get(key, ""))) for key in ("x", "y", "width", "height"))
            except ValueError as error:
                raise ValueError(f"{place}: rectangle {number} has no x, y, width and height that are numbers.") from error
            right = _a_word(word.findtext("tag") or "", place)
            if picture is None:  # counted and named with all others before anything is asked
                questions.append(Question(f"{name}-{number}", ask(PROMPT), [file], (right,)))
                continue
            box = max(x, 0), max(y, 0), min(x + width, picture.width), min(y + height, picture.height)
            if box[0] >= box[2] or box[1] >= box[3]:
                raise ValueError(
                    f"{place}: rectangle {number} lies outside of its picture of {picture.width} x {picture.height}."
                )
            questions.append(Question(f"{name}-{number}", ask(PROMPT), [picture.crop(box)], (right,)))
    if not questions:
        raise ValueError(f"{str(path)!r} holds no images. Give SVT's test.xml.")
    return questions
