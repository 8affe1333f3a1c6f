"""A row as a model is taught it: ids, labels, and whatever else the processor of its family returns.

What is trained on is exactly what will be read: the ids are the processor's own ids of the conversation, and the labels are
laid beside them while the text is tokenised. Only answers and their ends are supervised.

An end is the token that the template writes behind an answer, where that is a token of its own (`</s>`, `<|im_end|>`). Other
templates write none between turns; there the end is taught by its label alone: where the text behind the answer begins, the
label is EOS while the id stays what it is. A family whose answers end at a text (`###`) has that text supervised.

A generation prompt may end in a space that tokenises together with the answer's first word. Then the two are kept apart, as they
are when the model answers.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from PIL import Image

from pipelines.chat_template import try_conversations
from pipelines.images import load_image

from .rows import IGNORED, Row, RowError, check_messages, content_items, is_supervised, text_of

MAX_SENSIBLE_LENGTH = 10_000_000
"""A tokenizer without a length of its own says 10 ** 30."""


class Encoded(NamedTuple):
    """One row of T tokens.

    Attributes:
        ids: T ids, pictures expanded.
        labels: T labels; `IGNORED` where nothing is supervised.
        inputs: what else the model gets: (1, T, ...) tensors by token, all others by picture along dimension 0.
        num_images: pictures of the row.
    """

    ids: list[int]
    labels: list[int]
    inputs: dict[str, torch.Tensor]
    num_images: int = 0

    @property
    def num_supervised(self) -> int:
        return sum(label != IGNORED for label in self.labels)


@dataclass
class Shortened:
    """How often rows were longer than the context."""

    rows: int = 0
    turns: int = 0
    tokens: int = 0


class Answer(NamedTuple):
    """A supervised answer: its message, and in the rendered text its start, its end, and the end of the stop string behind it."""

    index: int
    start: int
    end: int
    stop: int


class RowEncoder:
    """Rows to ids and labels.

    Args:
        processor: of any family, or of a native model of transformers: it has `apply_chat_template`, `tokenizer`, and
            `__call__(images=[pictures of the row], text=[row])`; every key that it returns is passed on.
        max_length: tokens of a row at most, by default the tokenizer's `model_max_length`. A longer row loses its last turns,
            with their pictures; a row of one turn that is still too long loses the end of its text. A picture is never cut.
        stop_strings: texts that end an answer where the template writes them behind it (`VisionPipeline.stop_strings`); they are
            supervised like it.
    """

    def __init__(self, processor: Any, max_length: int | None = None, stop_strings: Sequence[str] = ()):
        self.processor, self.tokenizer = processor, processor.tokenizer
        own = self.tokenizer.model_max_length
        # Rows are shortened here; transformers need not warn of the first long one.
        self.tokenizer.deprecation_warnings["sequence-length-is-longer-than-the-specified-maximum"] = True
        self.max_length = max_length or (own if own and own < MAX_SENSIBLE_LENGTH else None)
        self.eos_token_id = self.tokenizer.eos_token_id
        self.stop_strings = stop_strings or getattr(processor, "stop_strings", ())
        self.image_token = getattr(processor, "image_token", None)
        self.image_token_id = getattr(processor, "image_token_id", None)
        if self.image_token_id is None and self.image_token is not None:
            self.image_token_id = self.tokenizer.convert_tokens_to_ids(self.image_token)
        self._way: Callable = self._as_whole
        unsupervised = {self.image_token_id, self.tokenizer.bos_token_id, self.tokenizer.unk_token_id}
        self.end_ids = set(self.tokenizer.all_special_ids) - unsupervised
        self.shortened = Shortened()
        self.template_kwargs: dict[str, Any] = {}

    def __call__(self, row: Row, place: str = "a row") -> Encoded:
        """Encode one row, shortened to the context. A generator's row may have `chat_template_kwargs`, as TRL's have.

        Raises:
            RowError: the conversation is none, or the template hides where answers stand.
            ImageError: a picture cannot be opened.
        """
        check_messages(row["messages"], len(row.get("images") or ()), place)
        self.template_kwargs = row.get("chat_template_kwargs") or {}
        images = [load_image(image, background="white") for image in row.get("images") or ()]  # as a person sees them
        messages = [{"role": message["role"], "content": content_items(message)} for message in row["messages"]]
        supervised = [is_supervised(message) for message in row["messages"]]
        encoded = self._encode(messages, images, supervised, place)
        if self.max_length is None or len(encoded.ids) <= self.max_length:
            return encoded
        self.shortened.rows += 1
        while len(encoded.ids) > self.max_length and len(messages) > 3:
            messages = messages[:-2]
            images = images[: num_images(messages)]
            self.shortened.turns += 1
            encoded = self._encode(messages, images, supervised, place)
        self.shortened.tokens += max(0, len(encoded.ids) - self.max_length)
        return self._cut(encoded, self.max_length)

    def render(self, messages: list[dict], add_generation_prompt: bool = False) -> str:
        """The text of a conversation, with one mark per picture."""
        return self.processor.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=add_generation_prompt, **self.template_kwargs
        )

    def is_image(self, ids: list[int]) -> list[bool]:
        """Which ids stand for pictures."""
        return [token == self.image_token_id for token in ids]

    def _encode(self, messages: list[dict], images: list[Image.Image], supervised: list[bool], place: str) -> Encoded:
        answered = [index for index, message in enumerate(messages) if message["role"] == "assistant" and supervised[index]]
        try_conversations(self.processor, [messages, *(messages[:index] for index in answered)])
        text = self.render(messages)
        inputs = self._processed(text, images)
        full = inputs.pop("input_ids")[0].tolist()
        inputs.pop("attention_mask", None)
        ids_of, where = self._tokenization(text, full, messages, images)
        ids, labels, source = [], [], []  # source: where each id stands in `full`

        def put(tokens: list[int], wanted: list[int] | None, at: range | list[int]) -> None:
            ids.extend(tokens)
            labels.extend([IGNORED] * len(tokens) if wanted is None else wanted)
            source.extend(at)

        def copy(first: int, last: int, is_taught: bool) -> None:
            put(full[first:last], full[first:last] if is_taught else None, range(first, last))

        at, plain = 0, ids_of(text, len(messages))
        for answer in self._answers(messages, supervised, text, place):
            prompt, whole = (ids_of(text[:end], answer.index) for end in (answer.start, answer.end))
            stopped = whole if answer.stop == answer.end else ids_of(text[: answer.stop], answer.index)
            agreed = common_length(plain, prompt)
            start, end, stop = (where[common_length(plain, part)] for part in (prompt, whole, stopped))
            copy(at, start, False)
            if agreed < len(prompt):  # a token holds the prompt's end and the answer's beginning: as generated, it is two
                rest = prompt[agreed:]
                put(rest, None, [start] * len(rest))
                own = self.tokenizer(text[answer.start : answer.end], add_special_tokens=False)["input_ids"]
                put(own, own, [start] * len(own))
            else:
                copy(start, end, True)
            at = max(end, stop)
            if stop > end:
                copy(end, stop, True)
            elif at < len(full):
                put([full[at]], [full[at] if full[at] in self.end_ids else self.eos_token_id], [at])
                at += 1
            else:
                put([self.eos_token_id], [self.eos_token_id], [len(full) - 1])
        copy(at, len(full), False)
        by_token = {key: value[:, source] for key, value in inputs.items() if is_per_token(value, len(full))}
        return Encoded(ids, labels, {**inputs, **by_token}, len(images))

    def _processed(self, text: str, images: list[Image.Image]) -> dict[str, Any]:
        kwargs: dict[str, Any] = (
            {"images": [images]} if images else {}
        )  # by row: some spend less on each where there are several
        bos = self.tokenizer.bos_token
        if bos and text.startswith(bos):
            kwargs["add_special_tokens"] = False
        return dict(self.processor(text=[text], return_tensors="pt", **kwargs))

    def _answers(self, messages: list[dict], supervised: list[bool], text: str, place: str) -> Iterator[Answer]:
        """Where every supervised answer stands in the rendered text."""
        for index, message in enumerate(messages):
            if message["role"] != "assistant" or not supervised[index]:
                continue
            before, answer = self.render(messages[:index], add_generation_prompt=True), text_of(message)
            start = len(before) if text.startswith(before) else len(before.rstrip())
            end = start + len(answer)
            if not text.startswith(answer, start):  # white space between the two, which the model has to write itself
                answer, rest = answer.strip(), text[start:]
                end = start + len(rest) - len(rest.lstrip()) + len(answer)
            if not text.startswith(before.rstrip()) or not text[start:end].endswith(answer):
                raise RowError(
                    place,
                    f"the chat template does not write {answer[:60]!r} after its own generation prompt, so it cannot be seen "
                    "where the answer is. Use a template whose generation prompt is what stands before an answer.",
                )
            stop = next((stop for stop in self.stop_strings if text.startswith(stop, end)), "")
            yield Answer(index, start, end, end + len(stop))

    def _tokenization(self, text: str, full: list[int], messages: list[dict], images: list) -> tuple[Callable, list[int]]:
        """How the processor tokenises: a function of (beginning of the text, messages in it) to ids with one mark per picture,
        and where each id of the whole text so tokenised stands in the processor's ids, with the end."""
        ways = [self._as_whole, self._with_special_tokens, *([self._piece_by_piece] if self.image_token else [])]
        ways.sort(key=lambda way: way != self._way)
        for way in ways:
            if (where := align(way(text, 0), full, self.image_token_id)) is not None:
                self._way = way
                return way, [*where, len(full)]

        def by_processor(beginning: str, count: int) -> list[int]:
            if count == len(messages):
                return full
            return self._processed(beginning, images[: num_images(messages[:count])])["input_ids"][0].tolist()

        return by_processor, list(range(len(full) + 1))

    def _as_whole(self, text: str, count: int) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def _with_special_tokens(self, text: str, count: int) -> list[int]:
        return self.tokenizer(text)["input_ids"]

    def _piece_by_piece(self, text: str, count: int) -> list[int]:
        bos = self.tokenizer.bos_token
        ids = [] if bos is None else [self.tokenizer.bos_token_id]
        for number, piece in enumerate(text.removeprefix(bos or "").split(self.image_token)):
            ids += [self.image_token_id] if number else []
            ids += self._as_whole(piece, count) if piece else []
        return ids

    def _cut(self, encoded: Encoded, length: int) -> Encoded:
        if len(encoded.ids) <= length:
            return encoded
        is_image = self.is_image(encoded.ids)
        if any(is_image[length:]) or (encoded.inputs and not any(is_image)):
            return Encoded([], [], {})
        inputs = {
            key: value[:, :length] if is_per_token(value, len(encoded.ids)) else value for key, value in encoded.inputs.items()
        }
        return encoded._replace(ids=encoded.ids[:length], labels=encoded.labels[:length], inputs=inputs)


def align(plain: list[int], full: list[int], mark: int | None) -> list[int] | None:
    """Where each id of a text stands in the same text with its marks expanded, or None where the two do not fit.

    A mark becomes a run of one or more ids, of which some may be others than the mark (line ends, tile numbers).
    """
    marks = [index for index, token in enumerate(plain) if token == mark]
    bounds = [-1, *marks, len(plain)]
    runs = [plain[first + 1 : last] for first, last in itertools.pairwise(bounds)]
    if full[: len(runs[0])] != runs[0] or (not marks and len(full) != len(plain)):
        return None
    where, at = list(range(len(runs[0]))), len(runs[0])
    for number, run in enumerate(runs[1:], 1):
        where.append(at)
        if number == len(runs) - 1:
            start = len(full) - len(run)
        else:
            start = at + 1
            while start <= len(full) - len(run) and (full[start : start + len(run)] != run or _goes_on(full, start, run, mark)):
                start += 1
        if start <= at or full[start : start + len(run)] != run:
            return None
        where += range(start, start + len(run))
        at = start + len(run)
    return where


def _goes_on(full: list[int], start: int, run: list[int], mark: int | None) -> bool:
    """Whether a picture's marks go on at `start` although nothing stands between it and the next."""
    return not run and full[start] == mark and full[start - 1] == mark


def common_length(first: list[int], second: list[int]) -> int:
    """How many ids two lists have in common at their beginning."""
    return next((at for at, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second)))


def num_images(messages: list[Mapping]) -> int:
    """Image items of a conversation."""
    return sum(item["type"] == "image" for message in messages for item in content_items(message))


def is_per_token(value: Any, length: int) -> bool:
    """Whether a value of a processor goes along with the ids, like `token_type_ids` or Mllama's `cross_attention_mask`."""
    return isinstance(value, torch.Tensor) and value.shape[:2] == (1, length) and not value.is_floating_point()
