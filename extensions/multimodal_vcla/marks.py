"""Marks: the text that stands for one picture in a rendered prompt, and what to do where the web UI wrote its own.

Our mark names its picture and its size, so it needs no list to be read against, and lengths are exact without the picture. The web UI's `<__media__>` names none, and a user may type
it; `align` says which picture each stands for, by the text of the message it stands in, and refuses where that is not certain.
"""

import re
from collections.abc import Iterable, Mapping
from typing import NoReturn

from pipelines.base import ImagePart
from pipelines.prompt import Prompt

from .conversation import STOCK, Turn
from .pictures import Picture, PictureError
from .texts import say

_MARK = re.compile(r"<__vcla:([0-9a-f]{32}):([1-9][0-9]{0,5})x([1-9][0-9]{0,5})__>")
_STOCK_RUN = re.compile(rf"(?:{STOCK})+(?=[ \t]*\n[ \t]*\n|\s*\Z)")
"""`<__media__>` as the web UI writes it for attachments: before a blank line. Elsewhere somebody typed it."""

_UNKNOWN_SIZE = (1024, 768)
"""What a picture of the web UI's mark is counted as, where nothing says which it is."""

Span = tuple[int, int, Picture]
"""Where a picture's mark begins and ends in a prompt."""


def mark(picture: ImagePart) -> str:
    return f"<__vcla:{picture.key}:{picture.size[0]}x{picture.size[1]}__>"


def has_mark(text: str) -> bool:
    return _MARK.search(text) is not None


def keys(text: str) -> list[str]:
    """The pictures that a prompt marks, in reading order."""
    return [match[1] for match in _MARK.finditer(text)]


def parts(text: str) -> list[str]:
    """A text taken apart into our marks and what stands between them."""
    found, at = [], 0
    for match in _MARK.finditer(text):
        found += [text[at : match.start()], match[0]]
        at = match.end()
    return [part for part in (*found, text[at:]) if part]


def without_typed_marks(text: str) -> str:
    """The same text, with every mark that a user has typed broken so that it is no mark."""
    return _MARK.sub(lambda match: match[0].replace("vcla:", "vcla: "), text)


class Dropping:
    """Takes the first so many marks out of texts that are given one after the other."""

    def __init__(self, count: int):
        self.count = count

    def __call__(self, text: str) -> str:
        def leave(match: re.Match) -> str:
            self.count -= 1
            return "" if self.count >= 0 else match[0]

        return _MARK.sub(leave, text)


def find(prompt: str, pictures: Mapping[str, Picture]) -> list[Span]:
    """The spans of our own marks, as far as they name one of `pictures`."""
    return [(*match.span(), pictures[match[1]]) for match in _MARK.finditer(prompt) if match[1] in pictures]


def to_prompt(text: str, spans: Iterable[Span], placeholder: str | None = None) -> Prompt:
    """A text with pictures in it, as parts.

    Args:
        spans: where they stand, in reading order.
        placeholder: how the model's placeholder token is spelled; where a user typed it, it is broken in two as in training.
    """
    parts, at = [], 0
    for start, end, picture in spans:
        parts += [text[at:start], picture]
        at = end
    parts.append(text[at:])
    if placeholder:
        broken = f"{placeholder[:4]} {placeholder[4:]}"
        parts = [part.replace(placeholder, broken) if isinstance(part, str) else part for part in parts]
    return Prompt(tuple(part for part in parts if part != ""))


def stand_ins(text: str) -> list[Span]:
    """Spans for a length: our marks, and the web UI's where they stand for attachments. The pictures are not at hand, and whether
    the blank line after them is the web UI's or the template's cannot be told: it is counted."""
    spans = [
        (*match.span(), ImagePart(match[1], (int(match[2]), int(match[3])), _not_at_hand)) for match in _MARK.finditer(text)
    ]
    for run in _STOCK_RUN.finditer(text):
        starts = range(run.start(), run.end(), len(STOCK))
        spans += [(start, start + len(STOCK), ImagePart(STOCK, _UNKNOWN_SIZE, _not_at_hand)) for start in starts]
    return sorted(spans, key=lambda span: span[0])


def _not_at_hand() -> NoReturn:
    raise AssertionError("A stand-in has a length only.")


def align(prompt: str, turns: list[Turn], is_newest_asked: bool) -> list[Span]:
    """Say which picture each `<__media__>` of a chat prompt stands for.

    Every message of a user is looked for as the web UI renders it, the newest first; once one is missing, it and everything
    before it was dropped to fit the context.

    Args:
        prompt: rendered by the web UI.
        turns: the user's messages, oldest first. A text of None is not known and only allowed for the newest.
        is_newest_asked: the newest is what is being answered, so its pictures must be there.

    Returns:
        Spans in reading order. Typed marks have none.

    Raises:
        PictureError: a mark that stands for an attachment belongs to no message, or a picture of the question is missing.
    """
    found: list[tuple[int, str, Turn]] = []
    known = turns[:-1] if turns and not turns[-1].texts else turns
    end = len(prompt)
    for turn in reversed(known):
        content = turn.as_stock(turn is turns[-1])
        if STOCK not in content:
            continue
        start = prompt.rfind(content, 0, end)
        if start < 0 and turn is turns[-1]:
            content, start = _longest_beginning(content, prompt)
        if start < 0:
            break
        found.append((start, content, turn))
        end = start
    if known is not turns:  # its text may hold typed marks, so the first ones after what is known are its own
        after = found[0][0] + len(found[0][1]) if found else 0
        content = turns[-1].as_stock(True)
        start = prompt.find(content, after)
        content, start = (content, start) if start >= 0 else _longest_beginning(content, prompt, after)
        if start >= 0:
            found.append((start, content, turns[-1]))
    spans = [
        (*place, picture)
        for start, content, turn in found
        for place, picture in zip(_each(content, start), turn.pictures, strict=False)
    ]
    seen = {id(picture) for *_, picture in spans}
    missing = [picture for turn in turns[-1:] for picture in turn.pictures if id(picture) not in seen]
    if missing and is_newest_asked:
        raise PictureError(say("unmatched", reason=f"{missing[0].name}: cut off"))
    taken = [(start, start + len(content)) for start, content, _ in found]
    for run in _STOCK_RUN.finditer(prompt):
        if not any(start <= run.start() < stop for start, stop in taken) and any(turn.pictures for turn in turns):
            raise PictureError(say("unmatched", reason=f"{STOCK} at {run.start()}"))
    return sorted(spans, key=lambda span: span[0])


def _each(content: str, start: int) -> list[tuple[int, int]]:
    """Where each of the marks begins and ends that a message begins with. The blank line after them, which the web UI writes before
    a text and no model has learned, goes with the last.

    Args:
        content: the message, from its first mark on.
        start: where that stands in the prompt.
    """
    run = re.match(rf"((?:{STOCK})*)(\n\n)?", content)
    ends = [*range(len(STOCK), run.end(1), len(STOCK)), run.end()]
    return [(start + number * len(STOCK), start + end) for number, end in enumerate(ends)]


def _longest_beginning(content: str, prompt: str, after: int = 0) -> tuple[str, int]:
    """The most of `content`, from its beginning, that the prompt holds, and where; ("", -1) when not one mark is left.

    Args:
        after: where in the prompt to look from.
    """
    low, high = 0, len(content)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if prompt.find(content[:middle], after) >= 0 else (low, middle - 1)
    beginning = content[:low]
    return (beginning, prompt.rfind(beginning, after)) if beginning.startswith(STOCK) else ("", -1)
