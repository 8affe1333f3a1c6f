"""Pictures of API requests: our marks are written where they stand, in messages of every role, before the web UI takes the messages
apart. So nothing hangs on how it joins the texts of a message, or on which roles it reads pictures from.
"""

import base64
import itertools
import re
from collections.abc import Iterator
from typing import Any

from . import marks, panel, webui
from .pictures import Picture, PictureError, from_url
from .texts import say

_STAND_IN = re.compile(r"<multimodal-vcla-picture-(\d+)>")
_NEVER_TAKEN = ("video", "video_url", "input_video", "audio", "audio_url", "input_audio")
"""Items of a message that would be left out without a word."""
IS_ANTHROPIC = "_multimodal_vcla_anthropic"
"""Key of a request: its errors are told by the web UI's own handler, also while it is streamed."""


def convert_history(original, completions):
    """Around `modules.api.completions.convert_history`: OpenAI messages in, rows with our marks out."""

    def convert_history(history):
        with panel.shown_to_the_user():
            messages = [_with_pictures_at_hand(message, number) for number, message in enumerate(history, 1)]
            if not any(_holds_picture(message) for message in messages):
                return original(history)
            marked = [_as_text(message, number) for number, message in enumerate(messages, 1)]
        user_input, system, rows = original(marked)
        return user_input, system, {**rows, "messages": messages}

    return convert_history


def pictures(messages: list) -> list[Picture]:
    """The pictures of OpenAI messages of every role, in reading order."""
    found = [_items(message, number) for number, message in enumerate(messages, 1) if isinstance(message, dict)]
    return [item for items in found for item in items if isinstance(item, Picture)]


def _with_pictures_at_hand(message: Any, number: int) -> Any:
    """The message with its pictures as `data:` addresses, so that none is fetched twice, and with a picture beside its content
    (`image_url` of the message itself) at the front of it.

    Raises:
        PictureError: an address is refused or cannot be fetched, or a video or a sound is shown.
    """
    if not isinstance(message, dict):
        return message
    content, beside = message.get("content"), message.get("image_url")
    types = [item.get("type") for item in content if isinstance(item, dict)] if isinstance(content, list) else []
    if other := next((name for name in types if name in _NEVER_TAKEN), None):
        raise PictureError(say("only_pictures", kind=other, number=number))
    items = list(content) if isinstance(content, list) else [{"type": "text", "text": content}] if content else []
    if beside:
        addresses = beside if isinstance(beside, list) else [beside]
        items = [{"type": "image_url", "image_url": address} for address in addresses] + items
    elif not isinstance(content, list):
        return message
    numbers = itertools.count(1)
    return {
        **{key: value for key, value in message.items() if key != "image_url"},
        "content": [_at_hand(item, f"{next(numbers)} of message {number}") if _is_picture(item) else item for item in items],
    }


def _at_hand(item: dict, name: str) -> dict:
    source = from_url(_address(item), name, webui.fetch).source
    if isinstance(source, bytes):
        source = "data:application/octet-stream;base64," + base64.b64encode(source).decode("ascii")
    return {"type": "image_url", "image_url": {"url": source}}


def _items(message: dict, number: int) -> Iterator[str | Picture]:
    content, numbers = message.get("content"), itertools.count(1)
    for item in content if isinstance(content, list) else []:
        if _is_picture(item):
            yield from_url(_address(item), f"{next(numbers)} of message {number}", webui.fetch)
        elif isinstance(item, dict) and item.get("type") == "text":
            yield str(item.get("text", ""))


def _as_text(message: Any, number: int) -> Any:
    """The message with its content as one text: a line break between texts, nothing around marks."""
    if not isinstance(message, dict) or message.get("content") is None:
        return message
    if not isinstance(message["content"], list):
        return {**message, "content": marks.without_typed_marks(str(message["content"]))}
    text, was_text = "", False
    for item in _items(message, number):
        is_text = isinstance(item, str)
        text += ("\n" if was_text and is_text else "") + (marks.without_typed_marks(item) if is_text else marks.mark(item))
        was_text = is_text
    return {**message, "content": text}


def _holds_picture(message: Any) -> bool:
    content = message.get("content") if isinstance(message, dict) else None
    return isinstance(content, list) and any(map(_is_picture, content))


def _is_picture(item: Any) -> bool:
    return isinstance(item, dict) and item.get("type") == "image_url"


def _address(item: dict) -> Any:
    address = item.get("image_url")
    return address.get("url") if isinstance(address, dict) else address


def convert_request(original, anthropic):
    """Around `modules.api.anthropic.convert_request`: pictures given by address, and those in tool results, are kept."""

    def convert_request(body):
        addresses: list[str] = []

        def stand_in(source: Any) -> str:
            is_inline = source.get("type") == "base64"
            media, data = source.get("media_type", "image/png"), source.get("data", "")
            addresses.append(f"data:{media};base64,{data}" if is_inline else source.get("url"))
            return f"<multimodal-vcla-picture-{len(addresses) - 1}>"

        def block(given: Any, is_result: bool = False) -> Any:
            if isinstance(given, dict) and given.get("type") == "tool_result" and isinstance(given.get("content"), list):
                return {**given, "content": [block(inner, True) for inner in given["content"]]}
            source = given.get("source") if isinstance(given, dict) and given.get("type") == "image" else None
            if not isinstance(source, dict) or not (is_result or source.get("type") == "url"):
                return _without_stand_ins(given)
            return {"type": "text", "text": stand_in(source)}

        messages = [
            {**message, "content": [block(each) for each in message["content"]]}
            if isinstance(message, dict) and isinstance(message.get("content"), list)
            else message
            for message in body.get("messages", [])
        ]
        converted = original({**body, "messages": messages})
        converted["messages"] = (
            [_with_addresses(message, addresses) for message in converted["messages"]] if addresses else (converted["messages"])
        )
        return {**converted, IS_ANTHROPIC: True}

    return convert_request


def _without_stand_ins(given: Any) -> Any:
    """Typed by a user, they are text."""
    if isinstance(given, dict) and isinstance(given.get("text"), str) and _STAND_IN.search(given["text"]):
        return {**given, "text": _STAND_IN.sub(lambda match: match[0].replace("vcla-", "vcla "), given["text"])}
    return given


def _with_addresses(message: dict, addresses: list[str]) -> dict:
    content = message.get("content")
    given = content if isinstance(content, list) else [{"type": "text", "text": content}] if isinstance(content, str) else []
    items: list[dict] = []
    for item in given:
        text = item.get("text") if item.get("type") == "text" else None
        pieces = _STAND_IN.split(text) if isinstance(text, str) else [item]
        for place, piece in enumerate(pieces):
            if place % 2:
                items.append({"type": "image_url", "image_url": {"url": addresses[int(piece)]}})
            elif isinstance(piece, dict):
                items.append(piece)
            elif piece.strip("\n"):
                items.append({"type": "text", "text": piece.strip("\n")})
    return {**message, "content": items} if any(map(_is_picture, items)) and items != given else message


def told_in_the_stream(original, completions):
    """Around a streamed completion: a refusal is an error event of the stream, where the web UI would cut the connection."""

    def stream(body, is_legacy=False, stop_event=None):
        if body.get(IS_ANTHROPIC):
            yield from original(body, is_legacy, stop_event)
            return
        try:
            yield from original(body, is_legacy, stop_event)
        except webui.api_error() as error:
            code = getattr(error, "code", 500)
            kind = "invalid_request_error" if code < 500 else "server_error"
            told = {"message": error.message or say("no_answer"), "type": kind, "param": getattr(error, "param", None)}
            yield {"error": {**told, "code": code}}

    return stream
