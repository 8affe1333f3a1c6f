"""Chat templates of whole models: they take pictures as items of a message, where the web UI hands them texts with our marks.

What such a template writes for a picture stands where the picture stands; it becomes the picture's mark again.
"""

import contextlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from . import marks
from .pictures import PictureError
from .texts import say

if TYPE_CHECKING:
    from pipelines.base import VisionPipeline

_FOR_TRAINING = re.compile(r"\{%-?\s*(end)?generation\s*-?%\}")
"""What templates write around the replies, for transformers alone."""
_PROBE, _OTHER = "\u2756", "\u2758"


class ItemTemplate:
    """A chat template that is rendered with items.

    Args:
        template: compiled by the web UI.
        pipeline: says what stands for a picture, and how a text is kept from being taken for one.

    Raises:
        ValueError: the template takes no items.
    """

    def __init__(self, template: Any, pipeline: "VisionPipeline"):
        self._template, self._pipeline = template, pipeline
        picture = {"type": "image"}
        written = self._probe([_text(_PROBE), picture, _text(_OTHER)])
        if written.count(pipeline.image_mark) != 1:
            raise ValueError("This template writes nothing for a picture.")
        before = written.partition(pipeline.image_mark)[0]
        self._keeps_order = _PROBE in before and _OTHER not in before
        self._takes_text = self._probe(_PROBE) == self._probe([_text(_PROBE)])

    def render(self, messages: Sequence[Mapping[str, Any]] = (), **values: Any) -> str:
        """As the template of jinja.

        Raises:
            PictureError: the template leaves a picture out.
        """
        pictures: list[str] = []
        text = self._template.render(messages=[self._with_items(message, pictures) for message in messages], **values)
        texts = text.split(self._pipeline.image_mark) if pictures else [text]
        if len(texts) != len(pictures) + 1:
            raise PictureError(say("template", count=len(pictures), written=len(texts) - 1))
        return "".join(part for each in zip(texts, [*pictures, ""], strict=True) for part in each)

    def _with_items(self, message: Mapping[str, Any], pictures: list[str]) -> Mapping[str, Any]:
        content = message.get("content")
        if not isinstance(content, str) or message.get("role") == "tool":
            return message
        items: list[dict[str, str]] = []
        for part in marks.parts(content):
            is_mark = marks.has_mark(part)
            if is_mark and (self._keeps_order or not any(item["type"] == "text" for item in items)):
                pictures.append(part)
                items.append({"type": "image"})
            elif is_mark or (items and items[-1]["type"] == "text"):  # behind a text, where the template would not leave it
                clean = part if is_mark else self._clean(part)
                items = [*items[:-1], _text(items[-1]["text"] + clean)]
            else:
                items.append(_text(self._clean(part)))
        if self._takes_text and all(item["type"] == "text" for item in items):
            return {**message, "content": "".join(item["text"] for item in items)}
        return {**message, "content": items or [_text("")]}

    def _clean(self, text: str) -> str:
        return "".join(part for part in self._pipeline.arranged([text]) if isinstance(part, str))

    def _probe(self, content: Any) -> str:
        try:
            return self._template.render(messages=[{"role": "user", "content": content}], bos_token="", eos_token="")
        except Exception:  # of a template that takes something else
            return ""


def _text(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


_compiled: "dict[str, tuple[VisionPipeline, Any]]" = {}


def compiled(compile_template: Callable[[str], Any], text: str, pipeline: "VisionPipeline") -> Any:
    """A template for a whole model: with items where it takes them, else as the web UI has it."""
    known = _compiled.get(text)
    if known is None or known[0] is not pipeline:
        template = compile_template(_FOR_TRAINING.sub("", text))
        with contextlib.suppress(ValueError):
            template = ItemTemplate(template, pipeline)
        while len(_compiled) >= 16:
            del _compiled[next(iter(_compiled))]
        known = _compiled[text] = (pipeline, template)
    return known[1]
