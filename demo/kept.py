"""What a browser keeps of a chat, so that it survives a reload and a restart of the server; kept.js is the browser's side.

A chat goes to the browser as JSON that names its pictures by their keys and addresses, and comes back as JSON and files.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.images import ImageError

from .session import Picture, Session, Turn


def snapshot(session: Session, address: Callable[[Path], str]) -> dict[str, Any]:
    """For the browser; `address` gives the one of a file."""
    return {
        "id": session.chat_id,
        "turns": [
            {
                "question": turn.question,
                "answer": turn.answer,
                "error": turn.error,
                "model": turn.model,
                "is_done": turn.is_done,
                "pictures": [{"key": picture.part.key, "url": address(picture.original)} for picture in turn.pictures],
            }
            for turn in session.turns
        ],
    }


def so_far(session: Session, turn: Turn) -> dict[str, Any]:
    """As much of an answer as there is, for the browser, which has the rest of the chat."""
    return {"id": session.chat_id, "so_far": turn.answer, "model": turn.model}


def revive(
    kept: Mapping[str, Any], files: Sequence[str], open_picture: Callable[[str], Picture], interrupted: str
) -> tuple[list[Turn], int]:
    """The turns of a chat that a browser kept.

    Args:
        kept: "turns" with the number of their "pictures"; "missing", which of these, counted over the chat, are not there.
        files: the others.
        open_picture: opens one.
        interrupted: the error of a turn without an answer, or with the beginning of one.

    Returns:
        The turns, and how many pictures are lost.
    """
    missing, waiting = set(kept.get("missing", ())), iter(files)
    turns, number, num_lost = [], 0, 0
    for each in kept.get("turns", ()):
        pictures = []
        for _ in range(int(each["pictures"])):
            file = None if number in missing else next(waiting, None)
            number += 1
            try:
                pictures += [open_picture(file)] if file is not None else []
                num_lost += file is None
            except ImageError:
                num_lost += 1
        said = (str(each["question"]), pictures, str(each["answer"]), str(each["error"]))
        turn = Turn(*said, is_done=True, model=str(each.get("model") or ""))
        is_whole = bool(turn.answer) and each.get("is_done", True) is True
        turn.error = turn.error or ("" if is_whole else interrupted)
        turns.append(turn)
    return turns, num_lost
