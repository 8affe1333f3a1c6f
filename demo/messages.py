"""A chat as the messages that the page shows: pictures with their numbers, questions, answers, and what might be asked next."""

import html
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from .card import Card
from .session import Session
from .texts import TEXTS

FIGURE = '<figure><img src="{source}" alt="{caption}" tabindex="0"><figcaption>{caption}</figcaption></figure>'


def messages(session: Session, card: Card, as_html: Callable[[str], Any]) -> list[dict[str, Any]]:
    """Two messages for each turn, the pictures and the question, the answer; the newest turn may have only the first.

    Args:
        session: the chat.
        card: has the questions that are suggested.
        as_html: makes a part of a message of HTML.
    """
    shown: list[dict[str, Any]] = []
    numbers = {id(picture): number for number, picture, _ in session.numbered()}
    before = next((turn.model for turn in session.turns if turn.model), "")  # a model is named where another one was before
    caption = TEXTS[session.language]["picture"]
    for turn in session.turns:
        figures = [
            FIGURE.format(source=address(picture.preview), caption=caption.format(numbers[id(picture)]))
            for picture in turn.pictures
        ]
        pictures = [as_html(f'<div class="pictures">{"".join(figures)}</div>')] if figures else []
        shown.append({"role": "user", "content": [*pictures, turn.question]})
        by = f"`{turn.model.replace('`', '')}`" if turn.model not in ("", before) else ""
        before = turn.model or before
        said = [turn.answer, f"⚠️ {turn.error}" if turn.error else ""]
        if any(said) or turn.is_done:
            shown.append({"role": "assistant", "content": "\n\n".join(filter(None, [by, *said])) or "…"})
    if numbers and session.turns[-1].is_done:
        asked = {turn.question for turn in session.turns}
        suggested = card.suggest(session.language, asked, session.turns[-1].answer)
        shown[-1]["options"] = [{"value": question} for question in suggested]
    return shown


def plain(text: str) -> str:
    """For HTML, also for a template of which it becomes a part."""
    return html.escape(text).replace("{", "&#123;").replace("$", "&#36;")


def address(file: Path) -> str:
    """Of a file of the page, from the page."""
    return f"gradio_api/file={quote(file.as_posix())}"
