"""Asks a task's questions, batch by batch; what was answered once is kept, so that a run that was stopped goes on."""

import hashlib
import json
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from .models import Answerer, Recorded, key_of
from .tasks.base import Question, Task
from .tasks.choice import with_letters
from .tasks.owleval import language_of

MAX_NAMED = 3


class AnswerBook:
    """Answers by a key of the model, the question and the settings: JSON lines, one added as soon as it is there.

    Half a line that a killed run left is dropped.
    """

    def __init__(self, path: Path):
        self.path = path
        self._answers: dict[str, str] = {}
        self._lock = threading.Lock()
        if path.exists():
            lines = path.read_bytes().split(b"\n")
            if lines.pop():  # no line break behind it
                partial = path.with_name(f".{path.name}.partial")
                partial.write_bytes(b"".join(line + b"\n" for line in lines))
                os.replace(partial, path)
            for number, line in enumerate(lines, start=1):
                try:
                    entry = json.loads(line)
                    self._answers[entry["key"]] = entry["answer"]
                except (ValueError, KeyError, TypeError) as error:
                    raise ValueError(
                        f"{str(path)!r}, line {number} is no kept answer. Remove the file, or that line."
                    ) from error

    def get(self, key: str) -> str | None:
        return self._answers.get(key)

    def put(self, answers: Mapping[str, str]) -> None:
        with self._lock, self.path.open("a", encoding="utf-8") as file:
            for key, answer in answers.items():
                if self._answers.get(key) != answer:
                    self._answers[key] = answer
                    file.write(json.dumps({"key": key, "answer": answer}, ensure_ascii=False) + "\n")


def check_images(questions: Sequence[Question]) -> None:
    """Raises:
    FileNotFoundError: files of pictures are not there; all are counted, some named.
    """
    missing = sorted(
        {str(image) for question in questions for image in question.images if isinstance(image, Path) and not image.is_file()}
    )
    if missing:
        named = ", ".join(map(repr, missing[:MAX_NAMED])) + (" ..." if len(missing) > MAX_NAMED else "")
        raise FileNotFoundError(f"{len(missing)} pictures are not there: {named}. Give their folder: --images FOLDER")


def ask_all(task: Task, questions: Sequence[Question], who: Answerer, how: str, book: AnswerBook) -> list[str | Exception]:
    """The answers to all questions, in their order; those that could not be given as errors. Progress on stderr.

    Args:
        task: of the questions.
        questions: what to ask.
        who: answers.
        how: "text", or for questions with options "likelihood" or "letter".
        book: where answers are kept.

    Raises:
        FileNotFoundError: a picture is not there.
        ValueError, OSError, MemoryError: see `Answerer`.
    """
    from tqdm import tqdm

    answers: list[str | Exception | None] = [None] * len(questions)
    if isinstance(who, Recorded):
        who.answer(questions, [False] * len(questions), 0, lambda found: _put(answers, found))
        return answers
    check_images(questions)
    asked = [_with_options(question) if how == "letter" else question for question in questions]
    keys = [key_of_question(who, question, how, task.max_new_tokens) for question in asked]
    _put(answers, {number: kept for number, key in enumerate(keys) if (kept := book.get(key)) is not None})
    known = [answer is not None for answer in answers]
    with tqdm(total=len(questions), initial=sum(known), unit="question", desc=f"{task.name}, {who.name}", disable=None) as bar:

        def done(found: Mapping[int, str | Exception]) -> None:
            bar.update(sum(answers[number] is None for number in found))
            _put(answers, found)
            book.put({keys[number]: answer for number, answer in found.items() if isinstance(answer, str)})

        if how == "likelihood":
            who.choose(asked, known, done)
        else:
            who.answer(asked, known, task.max_new_tokens, done)
    return answers


def key_of_question(who: Answerer, question: Question, how: str, max_new_tokens: int) -> str:
    """64 hex digits: the same for the same model, question and settings."""
    images = [key_of(image) for image in question.images]
    content = [who.fingerprint, how, max_new_tokens, list(question.messages), images, list(question.options)]
    return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def _with_options(question: Question) -> Question:
    content = question.messages[-1]["content"]
    items = [] if isinstance(content, str) else [item for item in content if item["type"] == "image"]
    text = with_letters(question, language_of(question.text))
    last = {**question.messages[-1], "content": [*items, {"type": "text", "text": text}]}
    return replace(question, messages=[*question.messages[:-1], last])


def _put(answers: list, found: Mapping[int, str | Exception]) -> None:
    for number, answer in found.items():
        answers[number] = answer
