"""What a task is: questions about pictures, and how an answer is judged."""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from pipelines.generation import Message, message

from ..figures import Figure, mean

YES, NO, OTHER = "yes", "no", "other"

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")


@dataclass(frozen=True)
class Question:
    """One question of a task.

    Attributes:
        id: names it within its task.
        messages: the conversation up to the question; its image items stand for `images`.
        images: files, or pictures that are open already.
        right: right answers; empty where a person or a judge has to say.
        options: answers to choose from; may be empty.
        labels: what scores are broken down by, such as {"language": "en", "ability": "a,c"}; several values by commas.
        expects: "yes" or "no" where that is the question.
        pair: questions of one pair or group count together, such as both questions of MME on a picture.
    """

    id: str
    messages: Sequence[Message]
    images: Sequence[Path | Image.Image]
    right: Sequence[str] = ()
    options: Sequence[str] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    expects: str | None = None
    pair: str = ""

    @property
    def text(self) -> str:
        """The words of the last question."""
        return words(self.messages[-1])


def words(message: Message) -> str:
    """The text of a message."""
    content = message["content"]
    return content if isinstance(content, str) else "".join(item.get("text", "") for item in content)


@dataclass(frozen=True)
class Verdict:
    """What an answer is worth.

    Attributes:
        score: 0..1; None where a person or a judge has to say.
        said: what was understood: "yes", "no", "other", an option's letter, a normalised answer.
    """

    score: float | None = None
    said: str = ""


class Task(ABC):
    """A set of questions with its way of scoring; one small file each.

    Attributes:
        name: on the command line.
        title: on the page.
        about: one line for --help: what it is and which file it takes.
        source: where data and scorer come from.
        files: patterns of the file names under which the data is published; `all` finds them.
        max_new_tokens: longest answer.
        by_options: answers are chosen by the likelihood of the options unless the user says otherwise.
    """

    name: str
    title: str
    about: str
    source: str
    files: Sequence[str] = ()
    max_new_tokens: int = 32
    by_options: bool = False

    @abstractmethod
    def read(self, path: Path, images: "ImageFolder") -> list[Question]:
        """The questions of a data file.

        Raises:
            FileNotFoundError, ValueError: it is not there, or is no such file; one line with the place.
        """

    def judge(self, question: Question, answer: str) -> Verdict:
        """What an answer is worth; here a person or a judge has to say."""
        return Verdict()

    def figures(self, questions: Sequence[Question], answers: Sequence[str], verdicts: Sequence[Verdict]) -> dict[str, Figure]:
        """The figures of the task, the first one being the one to compare models by. Nothing where nobody can score."""
        scores = [verdict.score for verdict in verdicts if verdict.score is not None]
        return {"accuracy": mean(scores)} if scores else {}


class ImageFolder:
    """Finds pictures by the names that data files give them: as a path, by name, or by stem under another ending.

    Args:
        folder: where they are.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._stems: dict[str, Path] | None = None

    def find(self, name: Any) -> Path:
        """The file of a picture; a path that does not exist where there is none (who needs the picture says so)."""
        path = self.folder / str(name)
        if path.is_file() or Path(str(name)).is_absolute() or ".." in Path(str(name)).parts:
            return path if path.is_file() and path.resolve().is_relative_to(self.folder.resolve()) else self.folder / path.name
        if self._stems is None:
            found = sorted(self.folder.rglob("*")) if self.folder.is_dir() else []
            self._stems = {file.stem: file for file in reversed(found) if file.suffix.lower() in SUFFIXES}
        return self._stems.get(str(name), self._stems.get(Path(str(name)).stem, path))


def ask(text: str, num_images: int = 1) -> list[Message]:
    """A conversation of one question."""
    return [message("user", text, num_images)]


def text_of(record: Mapping[str, Any], place: str, *keys: str) -> str:
    """The text under the first of the keys that a record has.

    Raises:
        ValueError: it has none of them, or no text there.
    """
    for key in keys:
        if key in record:
            value = record[key]
            if isinstance(value, (str, int)) and not isinstance(value, bool) and str(value).strip():
                return str(value)
            raise ValueError(f"{place}: {key!r} is {value!r}, but has to be a text.")
    raise ValueError(f"{place}: there is none of {', '.join(map(repr, keys))}; the record has {sorted(record)}.")


def records_of(path: Path, key: str | None = None) -> list[tuple[str, dict[str, Any]]]:
    """(place, record) of a JSON lines, JSON or Parquet file; `key` names the list inside a JSON object.

    Raises:
        FileNotFoundError, ValueError: it cannot be read, or a record is no object.
    """
    from training.data.files import open_records

    records = open_records(path, key)
    found = []
    for index, record in enumerate(records):
        if not isinstance(record, dict):
            raise ValueError(f"{records.place(index)}: a record is an object, but this is {str(record)[:60]!r}.")
        found.append((records.place(index), record))
    if not found:
        raise ValueError(f"{str(path)!r} holds no questions.")
    return found


_ENGLISH = re.compile(r"\b(yes|no)\b", re.IGNORECASE)
_CHINESE = re.compile(r"(?:^|[\s，,。.！!？?：:])(没有|不是|不对|否|有|是的|是|对)(?=$|[\s，,。.！!的])")


def yes_or_no(text: str) -> str:
    """ "yes", "no" or "other", by the first such word of an English or Chinese answer."""
    found = [match for match in (_ENGLISH.search(text), _CHINESE.search(text)) if match]
    if not found:
        return OTHER
    word = min(found, key=lambda match: match.start(1)).group(1).lower()
    return NO if word in ("no", "没有", "不是", "不对", "否") else YES


_ANSWERS = re.compile(r"(?:^|[.?!,:;]\s*)(yes|no)(?=\s*(?:[.,!;:]|$))", re.IGNORECASE)


def expects(right: str) -> str | None:
    """What a right answer answers, where it is a yes or a no by itself ("A red thing? No."); None where it is no such answer, such
    as "I see no picture." """
    match = _ANSWERS.search(right) or _CHINESE.search(right)
    return yes_or_no(match.group(1)) if match else None
