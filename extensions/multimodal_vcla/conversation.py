"""Reads the pictures of a conversation out of what the web UI hands over, and writes marks where they stand.

Two shapes exist: the rows and metadata of a chat in the browser, and the OpenAI messages of an API request, which the web UI
turns into rows of its own.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Any

from .pictures import Picture, PictureError
from .texts import say

STOCK = "<__media__>"
"""What the web UI writes for one picture."""

LEFT_OUT = "multimodal_vcla_left_out"
"""Key of an attachment that the user has taken out of the prompt. It lives in the chat history, with the picture."""


@dataclass(frozen=True)
class Turn:
    """One message of the user.

    Attributes:
        items: texts and pictures in reading order; a text of None stands for one that is not known.
        is_row: a row of a chat in the browser, which the web UI leaves out of later prompts when its text is empty.
        left_out: keys of pictures that the user has taken out.
    """

    items: tuple[Any, ...]
    is_row: bool = False
    left_out: frozenset[str] = field(default=frozenset())

    @property
    def pictures(self) -> list[Picture]:
        return [item for item in self.items if isinstance(item, Picture)]

    @property
    def texts(self) -> list[str]:
        return [item for item in self.items if isinstance(item, str)]

    def as_stock(self, is_newest: bool = False) -> str:
        """As the web UI renders it, without the white space at its ends; of an unknown text only the marks before it."""
        text = " ".join(self.texts)
        if self.is_row and not is_newest and not text.strip():
            return ""
        marks = STOCK * len(self.pictures)
        return (f"{marks}\n\n{text}" if marks else text).strip()

    @property
    def in_order(self) -> tuple[Any, ...]:
        """Pictures first, as models learn it and the web UI writes it; but text between pictures stays between them."""
        places = [index for index, item in enumerate(self.items) if isinstance(item, Picture)]
        if places and places[-1] - places[0] >= len(places):
            return self.items
        return (*self.pictures, *(item for item in self.items if not isinstance(item, Picture)))

    def as_marked(self, kept: set[int], mark: Callable[[Picture], str], clean: Callable[[str], str]) -> str:
        """With a mark for each picture that is kept."""
        parts, was_text = [], False
        for item in self.in_order:
            if isinstance(item, Picture):
                parts.append(mark(item) if id(item) in kept else "")
            else:
                parts += [" " if was_text else "", clean(item)]
            was_text = isinstance(item, str)
        return "".join(parts)


def attachments(history: Mapping, row: int) -> list[dict]:
    """The image attachments of a user's row."""
    entry = (history.get("metadata") or {}).get(f"user_{row}")
    found = entry.get("attachments") if isinstance(entry, dict) else None
    return [item for item in found or [] if isinstance(item, dict) and item.get("type") == "image"]


def row_turn(history: Mapping, row: int, text: str | None) -> Turn:
    """A row of a chat in the browser."""
    pictures, left_out = [], set()
    for attachment in attachments(history, row):
        picture = of_attachment(attachment)
        pictures.append(picture)
        if attachment.get(LEFT_OUT):
            left_out.add(picture.key)
    return Turn((*pictures, *([] if text is None else [text])), True, frozenset(left_out))


def of_attachment(attachment: Mapping) -> Picture:
    """The picture of an attachment. An uploaded history may hold anything; what it is shows when it is decoded."""
    return Picture(str(attachment.get("image_data")), str(attachment.get("name") or "?"))


def row_turns(history: Mapping) -> list[Turn]:
    """All rows of a chat in the browser."""
    return [row_turn(history, row, entry[0]) for row, entry in enumerate(history.get("internal") or [])]


def message_items(content: Any, number: int, picture_at: Callable[[str, str], Picture]) -> tuple[Any, ...]:
    """What stands in an OpenAI message, in its order.

    Args:
        content: a text, or a list of items.
        number: which message it is, from 1, for the name of its pictures.
        picture_at: (address, name) to a picture.
    """
    if not isinstance(content, list):
        return (str(content),)
    items, count = [], 0
    for item in content:
        if isinstance(item, dict) and item.get("type") == "text":
            items.append(str(item.get("text", "")))
        elif isinstance(item, dict) and item.get("type") == "image_url":
            count += 1
            address = item.get("image_url")
            address = address.get("url") if isinstance(address, dict) else address
            items.append(picture_at(address, f"{count} of message {number}"))
    return tuple(items)


def message_turns(messages: list, picture_at: Callable[[str, str], Picture]) -> list[Turn]:
    """The user's messages of an API request that the web UI makes rows of: those that are not empty."""
    turns = [
        Turn(message_items(message.get("content"), number, picture_at))
        for number, message in enumerate(messages, 1)
        if isinstance(message, dict) and message.get("role") == "user"
    ]
    return [turn for turn in turns if turn.pictures or "".join(turn.texts)]


@dataclass(frozen=True)
class Slot:
    """Where a turn's text stands: a row of the history, or (None) the message that is being answered."""

    row: int | None
    text: str
    turn: Turn


def slots(history: Mapping, user_input: str, is_continued: bool, picture_at: Callable) -> list[Slot]:
    """The user's messages with the place of their text, oldest first.

    Args:
        history: as `custom_generate_chat_prompt` gets it.
        user_input: the message that is being answered.
        is_continued: a reply is being continued, so that message is in the history already.

    Raises:
        PictureError: the rows of an API request are not those of its messages.
    """
    rows = history.get("internal") or []
    if not history.get("messages"):
        found = [Slot(row, entry[0], row_turn(history, row, entry[0])) for row, entry in enumerate(rows)]
        if not is_continued:
            found.append(Slot(None, user_input, row_turn(history, len(rows), user_input)))
        return found
    turns = message_turns(history["messages"], picture_at)
    places = [(row, entry[0]) for row, entry in enumerate(rows) if entry[0] and not _is_system(entry)]
    if user_input and not is_continued:
        places.append((None, user_input))
    if len(places) != len(turns):
        if any(turn.pictures for turn in turns):
            raise PictureError(say("unmatched", reason=f"{len(turns)} messages, {len(places)} rows"))
        return []
    return [Slot(row, text, _as_it_is(text, turn)) for (row, text), turn in zip(places, turns, strict=True)]


def _is_system(entry: list) -> bool:
    return len(entry) > 3 and isinstance(entry[3], dict) and entry[3].get("role") == "system"


def _as_it_is(text: str, turn: Turn) -> Turn:
    """The turn with the text that another extension may have changed meanwhile.

    Raises:
        PictureError: the web UI's marks are not at its beginning any more.
    """
    if not turn.pictures:
        return Turn((text,))
    if text.strip() == turn.as_stock():
        return turn
    marks = STOCK * len(turn.pictures)
    if not text.lstrip().startswith(marks) or text.lstrip().startswith(marks + STOCK):
        raise PictureError(say("unmatched", reason=repr(text[:40])))
    return Turn((*turn.pictures, text.lstrip()[len(marks) :].lstrip()))


def choose(turns: list[Turn], newest: int | None) -> set[int]:
    """The pictures that go into the prompt, by `id`: the same picture may stand in two messages.

    Args:
        turns: oldest first.
        newest: how many of the newest pictures stay; None for all. Those of the last message always stay.
    """
    wanted = [picture for turn in turns for picture in turn.pictures if picture.key not in turn.left_out]
    asked = [picture for turn in turns[-1:] for picture in turn.pictures if picture.key not in turn.left_out]
    count = len(wanted) if newest is None else max(newest, len(asked))
    return {id(picture) for picture in wanted[max(len(wanted) - count, 0) :]}


def marked(history: Mapping, found: list[Slot], kept: set[int], mark: Callable, clean: Callable) -> tuple[dict, str | None]:
    """A copy of the history whose texts hold our marks and whose metadata holds no pictures, and the marked user input.

    The web UI's renderer then writes no `<__media__>` of its own, and keeps messages that hold nothing but a picture.
    """
    internal = [[entry[0], clean(entry[1]), *entry[2:]] for entry in history.get("internal") or []]
    user_input = None
    for slot in found:
        text = slot.turn.as_marked(kept, mark, clean)
        if slot.row is None:
            user_input = text
        else:
            internal[slot.row][0] = text
    metadata = {
        key: {**entry, "attachments": [item for item in entry["attachments"] if not _is_image(item)]}
        if isinstance(entry, dict) and isinstance(entry.get("attachments"), list)
        else entry
        for key, entry in (history.get("metadata") or {}).items()
    }
    return {**history, "internal": internal, "metadata": metadata}, user_input


def block_ends(sizes: Iterable[int], block: int) -> list[int]:
    """After how many of the oldest rows a block of them is full.

    The blocks of a chat stay where they are while it grows, so that prompts that have lost the same blocks begin alike.

    Args:
        sizes: of the rows, oldest first.
        block: size of a block.
    """
    totals = list(accumulate(sizes, initial=0))
    return [row for row, (before, total) in enumerate(pairwise(totals), 1) if total // block > before // block]


def without_oldest(history: Mapping, count: int) -> dict:
    """A copy of the history with nothing in its oldest rows, which the web UI then leaves out of the prompt."""
    gone = {f"{who}_{row}" for who in ("user", "assistant") for row in range(count)}
    metadata = {key: entry for key, entry in (history.get("metadata") or {}).items() if key not in gone}
    return {**history, "internal": [["", ""]] * count + history["internal"][count:], "metadata": metadata}


def _is_image(item: Any) -> bool:
    return isinstance(item, dict) and item.get("type") == "image"
