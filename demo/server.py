"""A model behind an OpenAI-compatible server, asked by the page as it asks a model that is loaded here."""

import json
import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import TYPE_CHECKING, Any

from pipelines.base import ImagePart
from pipelines.images import to_data_uri
from pipelines.openai_api import ServerError, base_url, headers, reason, refusal

if TYPE_CHECKING:
    from transformers import GenerationConfig

TIMEOUT_S = 600
AT_ONCE = 16
"""Answers that are asked for at the same time, by different tabs."""

NOT_EVERYWHERE = ("top_k", "repetition_penalty", "stream_options")
"""Fields of a request that some servers refuse; they are left out from then on."""

_TOO_LONG = re.compile(
    r"context|too long|max(imum)?[ _](model|prompt|input|sequence|number)?[ _]?(len|tokens)|exceed", re.IGNORECASE
)


@dataclass
class ServerConversation:
    """A conversation as a server is given it.

    Attributes:
        messages: as the API takes them, pictures as PNG data URIs.
        num_dropped_images: how many of the oldest pictures were left out because the server's context was full.
        num_tokens: of the prompt, as the server counted them; 0 before it has.
        image_spans: none: where pictures stand is the server's affair.
    """

    messages: list[dict[str, Any]]
    num_dropped_images: int = 0
    num_tokens: int = 0
    image_spans: list[Any] = field(default_factory=list)


class ServerChat:
    """What `pipelines.generation.ChatModel` is to the page, for a server.

    Args:
        url: such as "http://127.0.0.1:8000/v1"; "/v1" is added where it has no path.
        model: which of the server's models; its only one when absent.
        api_key: sent as a bearer token; none when empty.
        seed: sent with every request.

    Attributes:
        pipeline: None: what the model looks at is not told.
        max_tokens: size of the context, where the server says it.

    Raises:
        ServerError: the address is none, nobody answers there, or no model was named and the server has not exactly one.
    """

    pipeline = None

    def __init__(self, url: str, model: str | None = None, api_key: str = "", seed: int | None = None):
        self.url = base_url(url)
        self.api_key, self.seed = api_key, seed
        self.refused: set[str] = set()
        models = {entry["id"]: entry for entry in self._models()}
        if model is None and len(models) != 1:
            raise ServerError(f"{self.url} has {len(models)} models ({', '.join(models)}). Name one: --server_model NAME")
        self.model = next(iter(models)) if model is None else model
        length = models.get(self.model, {}).get("max_model_len")
        self.max_tokens = length if isinstance(length, int) else None

    def prepare(
        self, messages: Sequence[dict[str, Any]], images: Sequence[ImagePart], max_new_tokens: int = 0
    ) -> ServerConversation:
        """A conversation as the server takes it; whether it fits is seen when it is sent."""
        pictures = iter(images)

        def part(item: dict[str, Any]) -> dict[str, Any]:
            if item["type"] != "image":
                return item
            return {"type": "image_url", "image_url": {"url": to_data_uri(next(pictures).open())}}

        return ServerConversation([{**message, "content": [part(item) for item in message["content"]]} for message in messages])

    def stream_ids(self, prepared: ServerConversation, generation_config: "GenerationConfig") -> Iterator[list[str]]:
        """The pieces of the answer as they come, as a growing list. Closing the iterator ends the answer on the server, too.

        Where the server's context is full, the oldest turns are left out, until it takes what is left.

        Raises:
            ServerError: it refused, or broke off.
        """
        while True:
            try:
                reply = self._open("/chat/completions", self._request(prepared, generation_config))
                break
            except _RefusedError as refusal:
                unknown = {name for name in NOT_EVERYWHERE if name in str(refusal)} - self.refused
                if unknown:
                    self.refused |= unknown
                elif not (_TOO_LONG.search(str(refusal)) and _drop_oldest_turn(prepared)):
                    raise
        pieces: list[str] = []
        with reply:
            for event in _events(reply, self.url):
                usage = event.get("usage") or {}
                for choice in event.get("choices") or ():
                    text = (choice.get("delta") or choice.get("message") or {}).get("content")
                    if text:
                        pieces.append(text)
                        yield pieces
                if isinstance(usage.get("total_tokens"), int):
                    prepared.num_tokens = max(0, usage["total_tokens"] - len(pieces))
                    yield pieces

    def decode(self, pieces: Sequence[str]) -> str:
        """The answer so far."""
        return "".join(pieces)

    def _request(self, prepared: ServerConversation, config: "GenerationConfig") -> dict[str, Any]:
        request = {
            "model": self.model,
            "messages": prepared.messages,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        half = None if self.max_tokens is None else self.max_tokens // 2  # the rest is for the question
        room = min((number for number in (config.max_new_tokens, half) if number is not None), default=None)
        request |= {"max_tokens": room, "temperature": config.temperature if config.do_sample else 0}
        if config.do_sample:
            request |= {"top_p": config.top_p, "top_k": config.top_k, "seed": self.seed}
        if config.repetition_penalty != 1.0:
            request["repetition_penalty"] = config.repetition_penalty
        return {name: value for name, value in request.items() if value is not None and name not in self.refused}

    def _models(self) -> list[dict[str, Any]]:
        with self._open("/models") as reply:
            try:
                return [entry for entry in json.load(reply)["data"] if isinstance(entry["id"], str)]
            except (ValueError, KeyError, TypeError) as error:
                raise ServerError(f"{self.url} is no OpenAI-compatible server: it does not tell its models.") from error

    def _open(self, path: str, body: dict[str, Any] | None = None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers(self.api_key))
        try:
            return urllib.request.urlopen(request, timeout=TIMEOUT_S)
        except urllib.error.HTTPError as error:
            kind = _RefusedError if error.code in (400, 413, 422) else ServerError
            raise kind(f"{self.url} {refusal(error)}") from error
        except OSError as error:
            raise ServerError(f"{self.url} cannot be reached: {getattr(error, 'reason', error)}") from error


class _RefusedError(ServerError):
    """The request was understood and not taken."""


def _drop_oldest_turn(prepared: ServerConversation) -> bool:
    """Whether there was one besides the newest."""
    turns = [index for index, message in enumerate(prepared.messages) if message["role"] == "user"]
    if len(turns) < 2:
        return False
    gone = prepared.messages[turns[0] : turns[1]]
    prepared.messages = [*prepared.messages[: turns[0]], *prepared.messages[turns[1] :]]
    prepared.num_dropped_images += sum(item["type"] == "image_url" for message in gone for item in message["content"])
    return True


def _events(reply, url: str) -> Iterator[dict[str, Any]]:
    """The events of a stream, or the one reply of a server that does not stream.

    Raises:
        ServerError: the stream broke off, or holds an error.
    """
    try:
        if "event-stream" not in reply.headers.get("Content-Type", ""):
            yield json.load(reply)
            return
        for line in reply:
            if not line.startswith(b"data:"):
                continue
            data = line[5:].strip()
            if data == b"[DONE]":
                return
            event = json.loads(data)
            if not isinstance(event, dict) or "error" in event:
                raise ServerError(f"{url} broke off: {reason(data.decode(errors='replace'))}")
            yield event
    except (OSError, HTTPException, UnicodeError, json.JSONDecodeError) as error:
        raise ServerError(f"{url} broke off ({type(error).__name__}).") from error
    raise ServerError(f"{url} broke off in the middle of its answer.")


def open_server(args) -> ServerChat:
    """The server that the page's flags name."""
    return ServerChat(args.server, args.server_model, os.environ.get(args.api_key_env, ""), args.seed)


def server_generation_config(args) -> "GenerationConfig":
    """How a server is asked to answer unless the page's settings say otherwise."""
    from transformers import GenerationConfig

    sampling = {"do_sample": True, "temperature": args.temperature} if args.temperature else {"do_sample": False}
    return GenerationConfig(max_new_tokens=args.max_new_tokens or 512, **sampling)
