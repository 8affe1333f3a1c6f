"""Who answers: a model that is loaded here, one behind an OpenAI-compatible server, or a file of answers that were given before."""

import hashlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from pipelines.base import ImagePart
from pipelines.images import ImageError, image_key, image_size, load_image

from .tasks.base import Question, records_of

if TYPE_CHECKING:
    from pipelines.generation import ChatModel

Done = Callable[[Mapping[int, "str | Exception"]], None]
"""Takes answers by the number of their question as soon as they are there."""

WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".json", ".jinja", ".model")
BLOCK_BYTES, NUM_BLOCKS = 2**16, 256


class Answerer(ABC):
    """Attributes:
    name: what the page calls it.
    fingerprint: the same for the same weights: part of the key under which answers are kept.
    """

    name: str
    fingerprint: str

    @abstractmethod
    def answer(self, questions: Sequence[Question], known: Sequence[bool], max_new_tokens: int, done: Done) -> None:
        """Answer greedily what is not known, handing over answers as they come.

        Raises:
            ValueError, OSError, MemoryError: nothing can be answered.
        """

    def choose(self, questions: Sequence[Question], known: Sequence[bool], done: Done) -> None:
        """Answer with the likeliest option of each question.

        Raises:
            ValueError: this answerer cannot say how likely an option is.
        """
        raise ValueError(f"{self.name} does not say how likely an option is. Ask for letters: --by letter")


class LocalModel(Answerer):
    """A loaded model.

    Args:
        chat: the model.
        name: what the page calls it.
        fingerprint: see `fingerprint_of`.
        batch_size: questions answered at once; those about the same pictures together, as these are computed once then, and those of
            similar length; the same ones in every run.
    """

    def __init__(self, chat: "ChatModel", name: str, fingerprint: str, batch_size: int = 16):
        self.chat, self.name, self.fingerprint, self.batch_size = chat, name, fingerprint, batch_size

    def answer(self, questions, known, max_new_tokens, done) -> None:
        from transformers import GenerationConfig

        config = GenerationConfig(do_sample=False, max_new_tokens=max_new_tokens)
        opened: dict[int, Any] = {}
        lengths: dict[int, int] = {}
        for number, question in enumerate(questions):
            try:
                opened[number] = (question.messages, [part_of(image) for image in question.images])
                lengths[number] = self.chat.embedder.encoder.length(self.chat.render(*opened[number]))
            except (ImageError, ValueError, OSError) as error:
                opened.pop(number, None)
                done({number: error})
        # Batches are those of the whole task, whatever is known already: padding moves the last digits of scores.
        about: dict[tuple[str, ...], list[int]] = {}
        for number in sorted(lengths, key=lambda number: (lengths[number], number)):
            pictures = tuple(image.key for image in opened[number][1])
            about.setdefault(pictures or (str(number),), []).append(number)
        order = [number for numbers in about.values() for number in numbers]
        for start in range(0, len(order), self.batch_size):
            batch = order[start : start + self.batch_size]
            if not all(known[number] for number in batch):
                answers = self.chat.answer_each([opened[number] for number in batch], config)
                done(dict(zip(batch, answers, strict=True)))

    def choose(self, questions, known, done) -> None:
        for number, question in enumerate(questions):
            if known[number]:
                continue
            try:
                images = [part_of(image) for image in question.images]
                likelihoods = self.chat.log_likelihoods(question.messages, images, question.options)
            except (ImageError, ValueError, OSError) as error:
                done({number: error})
                continue
            tokens = [
                max(1, len(self.chat.tokenizer(option, add_special_tokens=False)["input_ids"])) for option in question.options
            ]
            each = [value / count for value, count in zip(likelihoods, tokens, strict=True)]
            done({number: question.options[each.index(max(each))]})


class Recorded(Answerer):
    """Answers of a file: JSON lines or a JSON list with "question_id" (or "id", or the question's text) and the answer under
    "answer", "output", "outout" (so VisualCLA's OwlEval file), "text", "response", "prediction" or "outputs".

    Raises:
        FileNotFoundError, ValueError: it cannot be read, or answers a question twice.
    """

    KEYS = ("answer", "output", "outout", "response", "prediction", "outputs", "text")

    def __init__(self, path: Path, name: str | None = None):
        self.path = path
        self.fingerprint = hashlib.sha256(path.read_bytes()).hexdigest()[:32] if path.is_file() else ""
        records = records_of(path)
        self.name = name or str(records[0][1].get("model_id") or path.stem)
        self._answers: dict[str, tuple[str, str | Exception]] = {}
        for place, record in records:
            key = next((str(record[key]) for key in ("question_id", "id") if key in record), None)
            key = key if key is not None else str(record.get("question", ""))
            answer = next((record[name] for name in self.KEYS if name in record), None)
            if isinstance(answer, list) and len(answer) == 1:
                answer = answer[0]
            if not key or not (isinstance(answer, str) or "error" in record):
                raise ValueError(f'{place}: there is no "question_id", or no answer under one of {", ".join(self.KEYS)}.')
            if key in self._answers:
                raise ValueError(f"{place}: question {key!r} is answered twice.")
            self._answers[key] = (place, answer if isinstance(answer, str) else ValueError(str(record["error"])))

    def answer(self, questions, known, max_new_tokens, done) -> None:
        left = dict(self._answers)
        found, missing = {}, []
        for number, question in enumerate(questions):
            entry = left.pop(question.id, None) or left.pop(question.text, None)
            if entry is None:
                missing.append(question.id)
            else:
                found[number] = entry[1]
        if missing or left:
            raise ValueError(
                f"{str(self.path)!r} does not belong to these questions: {len(missing)} of {len(questions)} have no answer there"
                f"{_some(missing)}, and {len(left)} answers no question{_some(list(left))}."
            )
        done(found)

    choose = Answerer.choose


def _some(names: Sequence[str]) -> str:
    return f" ({', '.join(map(repr, names[:3]))}{' ...' if len(names) > 3 else ''})" if names else ""


def part_of(image: Path | str | bytes | Image.Image) -> ImagePart:
    """A picture as a person sees it, opened when it is needed."""
    if isinstance(image, Image.Image):
        return ImagePart.of(load_image(image, background="white"))
    return ImagePart(key_of(image), image_size(image), lambda: load_image(image, background="white"))


def key_of(image: Path | str | bytes | Image.Image) -> str:
    """32 hex digits by the content of a file.

    Raises:
        FileNotFoundError: there is no such file.
    """
    if isinstance(image, Image.Image):
        return image_key(image)
    if isinstance(image, Path):
        return _key_of_file(image, image.stat().st_mtime_ns)
    return hashlib.sha256(image if isinstance(image, bytes) else image.encode()).hexdigest()[:32]


@cache
def _key_of_file(path: Path, mtime_ns: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:32]


def fingerprint_of(*paths: str | os.PathLike | None, **settings: Any) -> str:
    """Of model folders or files, by their content: small files whole, of large ones blocks that are spread over them.

    Args:
        paths: what the model is loaded from; None is skipped.
        settings: what else decides about answers: dtype, bits, prompt style.
    """
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for path in (Path(path) for path in paths if path is not None):
        files = sorted(file for file in path.rglob("*") if file.suffix in WEIGHTS) if path.is_dir() else [path]
        for file in files:
            size = file.stat().st_size
            digest.update(f"{file.relative_to(path) if path.is_dir() else file.name}:{size}".encode())
            with file.open("rb") as data:
                if size <= BLOCK_BYTES * NUM_BLOCKS:
                    digest.update(data.read())
                    continue
                for block in range(NUM_BLOCKS):
                    data.seek(block * (size - BLOCK_BYTES) // (NUM_BLOCKS - 1))
                    digest.update(data.read(BLOCK_BYTES))
    return digest.hexdigest()[:32]
