"""The one row format, and its strict door. Reading files is files.py; what a row becomes for a model is encode.py.

    {"messages": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is this?"}]},
                  {"role": "assistant", "content": "A red circle."}],
     "images": ["pictures/0001.jpg"]}

The format of TRL and of chat templates. One image item stands for one picture, in the order of `images`.
"""

import functools
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from PIL import Image

Row: TypeAlias = dict[str, Any]
Picture: TypeAlias = Path | str | bytes | Image.Image
"""A file, a data: URI, the bytes of a file, or a picture that is open already."""

IGNORED = -100
"""The label of a token that is not supervised."""

ROW_KEYS = ("messages", "images", "id", "meta")
MESSAGE_KEYS = ("role", "content", "weight", "train", "loss")
ROLES = ("system", "user", "assistant")
MARKS = ("<image>", "<img_token>", "<__media__>", "<ImageHere>", "<|image|>", "<|image_pad|>", "<Img>")
"""What families write for a picture. In a text they would be taken for one, or be learnt as an answer."""

MAX_TEXT_CHARACTERS = 10_000_000
"""Of one text; longer than what any model reads."""

_SURROGATE = re.compile("[\ud800-\udfff]")
_OTHER_ROLES = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant", "ai": "assistant"}
_FOREIGN = (  # keys that tell a foreign record -> the format that reads it
    ({"conversations", "image"}, "llava"),
    ({"conversations"}, "sharegpt"),
    ({"text", "task_type"}, "mplug_owl"),
    ({"instruction", "response"}, "dolly"),
    ({"instruction", "output"}, "alpaca"),
    ({"choices", "rationales"}, "aokvqa"),
    ({"filename", "questions", "answers"}, "ocr_vqa"),
    ({"image_id", "question", "answer"}, "lrv"),
    ({"topic", "input"}, "baize"),
    ({"filepath", "filename", "sentences"}, "coco_karpathy"),
    ({"imageId", "question"}, "gqa"),
    ({"image", "question", "answer"}, "vqa"),
    ({"image_id", "caption"}, "cc_sbu_align"),
    ({"image", "caption"}, "coco_caption"),
)


class RowError(ValueError):
    """A row that is refused: one line, which begins with the place of the row."""

    def __init__(self, place: str, reason: str):
        super().__init__(f"{place}: {reason}")
        self.place, self.reason = place, reason

    def __reduce__(self):
        return RowError, (self.place, self.reason)  # worker processes hand it over by pickle


def check_row(value: Any, place: str, folder: Path | None = None) -> Row:
    """A record of a data file, checked whole.

    Args:
        value: what stands in the file.
        place: of the row, for messages: "rows.jsonl, line 3".
        folder: relative picture paths start here; without it pictures are taken as they are.

    Returns:
        The row, its pictures as `Picture`.

    Raises:
        RowError: it is no row; the message says what to write, or which command converts it.
        FileNotFoundError: a picture is not there.
    """
    if not isinstance(value, Mapping):
        raise RowError(place, f"a row is {{'messages': [...], 'images': [...]}}, but this is {str(value)[:60]!r}.")
    if "messages" not in value:
        raise RowError(
            place, f"a row is {{'messages': [...], 'images': [...]}}, but this has {sorted(value)}. {_way_out(value, place)}"
        )
    if unknown := [key for key in value if key not in ROW_KEYS]:
        hint = " Pictures stand in a list under 'images'." if "image" in unknown else " What is yours goes under 'meta'."
        raise RowError(place, f"unknown keys {unknown}; a row has {', '.join(ROW_KEYS)}.{hint}")
    pictures = value.get("images")
    if pictures is None:
        pictures = []
    if not isinstance(pictures, list | tuple):
        raise RowError(place, f"'images' is a list, not {type(pictures).__name__}.")
    check_messages(value["messages"], len(pictures), place)
    return {**value, "images": [_picture(picture, place, folder) for picture in pictures]}


def check_messages(messages: Any, num_images: int, place: str) -> None:
    """Raise `RowError` unless `messages` is a conversation with `num_images` image items and an answer to learn from."""
    if not isinstance(messages, list | tuple) or not messages:
        raise RowError(place, "'messages' is a list of at least a question and an answer.")
    previous = None
    for number, message in enumerate(messages, 1):
        role = _check_message(message, number, place)
        if role == "system" and number > 1:
            raise RowError(place, f"message {number} is of the role 'system', which only the first may be.")
        if role == "assistant" and previous not in ("user",):
            raise RowError(place, f"message {number} is an answer, but before it stands {previous or 'nothing'}, not a 'user'.")
        if role == "user" and previous == "user":
            raise RowError(place, f"messages {number - 1} and {number} are both of the user; join them into one.")
        previous = role
    if previous != "assistant":
        raise RowError(place, f"the last message is of the {previous!r}: there is no answer to it to learn from.")
    if not any(is_supervised(message) for message in messages):
        raise RowError(place, "no answer is to be learnt: every one has weight 0, train false or loss false.")
    items = sum(item["type"] == "image" for message in messages for item in content_items(message))
    if items != num_images:
        raise RowError(
            place,
            f'{items} image items in the messages but {num_images} pictures in \'images\'. Write one {{"type": "image"}} in a '
            "question for each picture.",
        )


def or_error(place: str, read: Callable[[], Row]) -> Row:
    """The row of a set that was checked before, or, where it can no longer be read, a row that only says why: a run goes on."""
    try:
        return {**read(), "place": place}
    except (ValueError, OSError) as error:
        return {"messages": [], "images": [], "place": place, "error": str(error).removeprefix(f"{place}: ")}


def content_items(message: Mapping) -> list[dict]:
    """The content of a message as a list of items."""
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content)


def text_of(message: Mapping) -> str:
    """The text items of a message, joined."""
    return "".join(item["text"] for item in content_items(message) if item["type"] == "text")


def is_supervised(message: Mapping) -> bool:
    """Whether it is an answer that is learnt: `weight: 0`, `train: false` or `loss: false` leave one out."""
    return message["role"] == "assistant" and all(message.get(key) not in (0, False) for key in ("weight", "train", "loss"))


def make_row(turns: list[tuple[str, str]], pictures: list, system: str = "", **extra: Any) -> Row:
    """A row of questions and answers whose pictures all stand before the first question."""
    messages = [{"role": "system", "content": system}] if system else []
    for number, (question, answer) in enumerate(turns):
        items = [{"type": "image"} for _ in pictures] if number == 0 else []
        items += [{"type": "text", "text": question}] if question else []
        messages += [{"role": "user", "content": items}, {"role": "assistant", "content": [{"type": "text", "text": answer}]}]
    return {"messages": messages, "images": list(pictures), **extra}


def clean(text: Any) -> str:
    """A text of a record: stripped, and a mark that stands in it as text broken in two so that it is never one.

    Raises:
        TypeError: it is no text.
    """
    if not isinstance(text, str):
        raise TypeError(f"{text!r} is no text")
    for mark in MARKS:
        text = text.replace(mark, f"{mark[0]} {mark[1:]}")
    return text.encode("utf-8", "replace").decode("utf-8").strip()


def _check_message(message: Any, number: int, place: str) -> str:
    where = f"message {number}"
    if not isinstance(message, Mapping):
        raise RowError(place, f"{where} is {str(message)[:40]!r}, not {{'role': ..., 'content': ...}}.")
    if {"from", "value"} <= set(message):
        raise RowError(place, f"{where} has 'from' and 'value'. {_command('sharegpt', place)}")
    if unknown := [key for key, value in message.items() if key not in MESSAGE_KEYS and value is not None]:
        raise RowError(place, f"{where} has unknown keys {unknown}; allowed: {', '.join(MESSAGE_KEYS)}.")
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        hint = f" Write {_OTHER_ROLES[role]!r}." if isinstance(role, str) and role in _OTHER_ROLES else ""
        raise RowError(place, f"{where} has the role {role!r}; allowed: {', '.join(map(repr, ROLES))}.{hint}")
    weight = message.get("weight")
    if weight is not None and weight not in (0, 1):
        raise RowError(place, f"{where} has weight {weight!r}; 0 leaves an answer out of the loss, 1 learns it.")
    for key in ("train", "loss"):
        if message.get(key) not in (None, True, False):
            raise RowError(place, f"{where} has {key} {message[key]!r}; it is true or false.")
    if role != "assistant" and (taught := [key for key in ("weight", "train", "loss") if message.get(key)]):
        raise RowError(place, f"{where} of the role {role!r} has {taught[0]} {message[taught[0]]!r}; only answers are learnt.")
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    if not isinstance(content, list | tuple):
        raise RowError(place, f"{where}: content is {content!r}, not a text or a list of items.")
    for item in content:
        _check_item(item, role, where, place)
    if not any(item["type"] == "image" or item["text"].strip() for item in content):
        raise RowError(place, f"{where} is empty.")
    return role


def _check_item(item: Any, role: str, where: str, place: str) -> None:
    kind = item.get("type") if isinstance(item, Mapping) else None
    if kind == "image":
        if role != "user":
            raise RowError(place, f"{where}: an image item in a message of the role {role!r}; pictures stand in questions.")
        if others := [key for key, value in item.items() if key not in ("type", "text") and value is not None]:
            raise RowError(
                place, f"{where}: an image item has {others}; the picture itself stands in 'images'. {_command('chat', place)}"
            )
        return
    if kind != "text":
        hint = f" {_command('chat', place)}" if kind in ("image_url", "input_text", "input_image", "output_text") else ""
        raise RowError(place, f"{where}: an item of type {kind!r}; allowed: 'image', 'text'.{hint}")
    text = item.get("text")
    if not isinstance(text, str):
        raise RowError(place, f"{where}: a text is {text!r}, not a string.")
    # Arrow fills absent keys of a struct with null, so null counts as absent.
    if others := [key for key, value in item.items() if key not in ("type", "text") and value is not None]:
        raise RowError(place, f"{where}: a text item has unknown keys {others}.")
    if len(text) > MAX_TEXT_CHARACTERS:
        raise RowError(place, f"{where}: a text of {len(text)} characters; at most {MAX_TEXT_CHARACTERS}.")
    if _SURROGATE.search(text):
        raise RowError(place, f"{where}: half a character (a lone surrogate) in {text[:40]!r}. Was the text cut?")
    if marks := [mark for mark in MARKS if mark in text]:
        raise RowError(
            place,
            f'{where}: the mark {marks[0]!r} is typed in the text. A picture is an item {{"type": "image"}}; a mark that is meant '
            "as text needs a space in it.",
        )


def _picture(value: Any, place: str, folder: Path | None) -> Picture:
    if isinstance(value, Mapping):
        if unknown := set(value) - {"path", "bytes"}:
            raise RowError(place, f"a picture has unknown keys {sorted(unknown)}; allowed: 'path', 'bytes'.")
        value = value.get("path") if value.get("bytes") is None else value["bytes"]
    if isinstance(value, bytes | Image.Image):
        return value
    if not isinstance(value, str | Path) or not str(value):
        raise RowError(place, f"a picture is {value!r}; write a path, bytes, {{'path', 'bytes'}} or a data: URI.")
    if isinstance(value, str):
        scheme = value.partition(":")[0].lower()
        if scheme == "data":
            return value
        if "://" in value:
            way = "Write its path." if scheme == "file" else "Download it, and name the file."
            raise RowError(place, f"the picture {value[:80]!r} is an address. {way}")
    path = Path(value) if folder is None else folder / value
    try:
        is_file = path.is_file()
    except (OSError, ValueError) as error:  # a name that no file can have
        raise RowError(
            place, f"the picture {str(path)[:80]!r} cannot be a file ({getattr(error, 'strerror', error)})."
        ) from error
    if not is_file:
        raise FileNotFoundError(f"{place}: the picture {str(path)!r} {_where_instead(path)}")
    return path


def _where_instead(path: Path) -> str:
    """What is the matter with a path where no picture is."""
    if path.is_dir():
        return "is a folder."
    if not path.parent.is_dir():
        return f"is not there, nor is its folder {str(path.parent)!r}. Relative paths start at the data file, or at --images."
    by_name = _names_of(path.parent)
    similar = by_name.get(path.name.casefold()) or by_name.get(path.stem.casefold())
    return (
        f"is not there, but {similar!r} is."
        if similar
        else "is not there. Relative paths start at the data file, or at --images."
    )


@functools.lru_cache(maxsize=8)
def _names_of(folder: Path) -> dict[str, str]:
    """Lower-case name, with and without its ending, -> name, of the files in a folder."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return {path.stem.casefold(): path.name for path in files} | {path.name.casefold(): path.name for path in files}


def _way_out(value: Mapping, place: str) -> str:
    """What to run on a record of a shape that is known."""
    for keys, name in _FOREIGN:
        if keys <= set(value):
            return _command(name, place)
    return "Formats that can be converted: python -m training data convert --help"


def _command(name: str, place: str) -> str:
    file = place.rpartition(", ")[0] or "FILE"
    return f"Convert it: python -m training data convert {name} --file {file} --output rows.jsonl"
