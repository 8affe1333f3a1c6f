"""Asks a task's questions, batch by batch; what was answered once is kept, so that a run that was stopped goes on."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ..judge import AnswerBook
from .models import Answerer, Recorded, key_of
from .tasks.base import Question, Task
from .tasks.choice import with_letters
from .tasks.owleval import language_of

MAX_NAMED = 3


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
