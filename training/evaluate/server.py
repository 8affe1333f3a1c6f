"""A model behind an OpenAI-compatible server as one who answers."""

from collections.abc import Iterator
from typing import Any

from pipelines.images import load_image, to_data_uri

from ..judge import Client
from .models import Answerer
from .tasks.base import Question

NUM_AT_ONCE = 8


class Server(Answerer):
    """Asks a server greedily, several questions at once.

    The fingerprint is of the address and the model's name: a server does not say which weights it runs, so answers that were kept
    stay even if they change.
    """

    def __init__(self, url: str, model: str | None, api_key_env: str, name: str | None = None):
        self.client = Client.of(url, model, api_key_env)
        self.name = name or self.client.model
        self.fingerprint = f"{self.client.url} {self.client.model}"

    def answer(self, questions, known, max_new_tokens, done) -> None:
        def requests():
            for number, question in enumerate(questions):
                if known[number]:
                    continue
                try:
                    yield number, {"messages": messages_of(question), "max_tokens": max_new_tokens}
                except (ValueError, OSError) as error:
                    done({number: error})

        self.client.ask_all(requests(), lambda number, answer: done({number: answer}), NUM_AT_ONCE)


def messages_of(question: Question) -> list[dict[str, Any]]:
    """A question as the API takes it, its pictures as PNG data URIs where they stand.

    Raises:
        ImageError: a picture does not open.
    """
    images = iter(question.images)
    return [{**message, "content": _content(message["content"], images)} for message in question.messages]


def _content(content: Any, images: Iterator) -> Any:
    if isinstance(content, str):
        return content
    if all(item["type"] == "text" for item in content):
        return "".join(item["text"] for item in content)
    return [_item(item, images) for item in content]


def _item(item: dict[str, Any], images: Iterator) -> dict[str, Any]:
    if item["type"] != "image":
        return {"type": "text", "text": item["text"]}
    return {"type": "image_url", "image_url": {"url": to_data_uri(load_image(next(images), background="white"))}}
