"""A client of OpenAI-compatible servers: what asks judges for scores, writers for data, and models behind a server for answers.

Only `POST {url}/chat/completions` and `GET {url}/models` are used, of any server that has them.
"""

import argparse
import json
import os
import random
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from pipelines.openai_api import ServerError, base_url, headers, refusal

NUM_TRIES = 5
WAIT_S = 1.0
"""Before the second try; twice as long before each further one, and as long as the server says where it says so."""

TIMEOUT_S = 600
MAX_REPLY_BYTES = 16 * 2**20
BYTES_PER_TOKEN = 4
"""About; what a prompt costs is estimated by it."""

WORTH_TRYING_AGAIN = (408, 409, 429, 500, 502, 503, 504, 529)


def add_server_flags(parser: argparse.ArgumentParser, role: str) -> None:
    """Which server, and what it costs.

    Args:
        parser: gets them.
        role: of the server, such as "judge".
    """
    parser.add_argument("--server", required=True, metavar="URL", help=f"the {role}: an OpenAI-compatible server")
    parser.add_argument("--server_model", metavar="NAME", help="which of the server's models")
    parser.add_argument(
        "--api_key_env", metavar="VARIABLE", default="OPENAI_API_KEY", help="where the server's key is (%(default)s)"
    )
    parser.add_argument(
        "--price", type=float, nargs=2, metavar=("IN", "OUT"), help="of a million tokens, to state the cost in money"
    )
    parser.add_argument("--yes", action="store_true", help="do not ask before it starts")


class Client:
    """One model of one server. Safe to use from several threads.

    Args:
        url: such as "http://127.0.0.1:5000/v1"; "/v1" is added where it has no path.
        model: which of the server's models; its only one when absent.
        api_key: sent as a bearer token; no key when empty.

    Attributes:
        num_prompt_tokens, num_reply_tokens: what the server counted so far.

    Raises:
        ServerError: the address is none, or no model was named and the server has not exactly one.
    """

    def __init__(self, url: str, model: str | None = None, api_key: str = ""):
        self.url = base_url(url)
        self.api_key = api_key
        self.num_prompt_tokens = self.num_reply_tokens = 0
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self.model = model or self._only_model()

    @classmethod
    def of(cls, url: str, model: str | None, api_key_env: str) -> "Client":
        """With the key that stands in an environment variable, where there is one."""
        return cls(url, model, os.environ.get(api_key_env, ""))

    def ask(
        self,
        messages: list[Mapping[str, Any]],
        max_tokens: int,
        temperature: float = 0.0,
        refuses_cut: bool = False,
        **extra: Any,
    ) -> str:
        """The reply to a conversation.

        Args:
            messages: as the API takes them.
            max_tokens: longest reply.
            temperature: 0 takes the likeliest token, as far as the server does.
            refuses_cut: a reply that `max_tokens` cut off is an error.
            extra: further fields of the request, such as `seed`.

        Raises:
            ServerError: it refused; or it failed, or was not there, `NUM_TRIES` times.
        """
        request = {"model": self.model, "messages": messages, "max_tokens": max_tokens, "temperature": temperature, **extra}
        reply = self._fetch("/chat/completions", request)
        try:
            text = reply["choices"][0]["message"]["content"]
        except (KeyError, IndexError, TypeError):
            text = None
        if not isinstance(text, str):
            raise ServerError(f"{self.url} answered without a text: {json.dumps(reply)[:200]}")
        if refuses_cut and reply["choices"][0].get("finish_reason") == "length":
            raise ServerError(f"{self.url} was cut off: its reply is longer than {max_tokens} tokens.")
        usage = reply.get("usage") or {}
        with self._lock:
            self.num_prompt_tokens += usage.get("prompt_tokens") or 0
            self.num_reply_tokens += usage.get("completion_tokens") or 0
        return text

    def ask_all(
        self,
        requests: Iterable[tuple[Any, Mapping[str, Any]]],
        done: Callable[[Any, str | ServerError], None],
        num_at_once: int = 8,
    ) -> None:
        """Ask several at once.

        Args:
            requests: (key, keywords of `ask`); taken as they are needed.
            done: is given each key with its reply, or with why there is none; in this thread, in the order of the replies.
            num_at_once: requests in flight.
        """
        waiting: dict[Future, Any] = {}
        pending = iter(requests)
        with ThreadPoolExecutor(num_at_once) as pool:
            try:
                while True:
                    while len(waiting) < num_at_once and (entry := next(pending, None)) is not None:
                        waiting[pool.submit(self._asked, entry[1])] = entry[0]
                    if not waiting:
                        return
                    for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                        done(waiting.pop(future), future.result())
            except BaseException:
                self._stopped.set()
                for future in waiting:
                    future.cancel()
                raise

    def _asked(self, request: Mapping[str, Any]) -> "str | ServerError":
        try:
            return self.ask(**request)
        except ServerError as error:
            return error

    def _only_model(self) -> str:
        models = self._fetch("/models").get("data")
        names = (
            [model["id"] for model in models if isinstance(model, dict) and "id" in model] if isinstance(models, list) else []
        )
        if len(names) != 1:
            raise ServerError(f"{self.url} has {len(names)} models ({', '.join(names[:5])}). Name the one to ask.")
        return names[0]

    def _fetch(self, path: str, content: Mapping[str, Any] | None = None) -> dict[str, Any]:
        data = None if content is None else json.dumps(content).encode()
        pause, reason = WAIT_S, ""
        for number in range(NUM_TRIES):
            if number and self._stopped.wait(pause * random.uniform(0.8, 1.2)):
                break
            pause = WAIT_S * 2**number
            try:
                request = urllib.request.Request(self.url + path, data, headers(self.api_key))
                with urllib.request.urlopen(request, timeout=TIMEOUT_S) as reply:
                    read = json.loads(reply.read(MAX_REPLY_BYTES))
                if not isinstance(read, dict):
                    raise ValueError("not a JSON object")
                return read
            except urllib.error.HTTPError as error:
                reason = refusal(error)
                if error.code not in WORTH_TRYING_AGAIN:
                    raise ServerError(f"{self.url} {reason}") from error
                after = error.headers.get("Retry-After", "")
                pause = min(float(after), 60.0) if after.replace(".", "", 1).isdigit() else pause
            except (OSError, ValueError) as error:  # no connection, no JSON
                reason = " ".join(str(error).split()) or type(error).__name__
        raise ServerError(f"{self.url} failed {NUM_TRIES} times: {reason}")


class AnswerBook:
    """Replies by a key of the model, the question and the settings: JSON lines, one added as soon as it is there.

    Half a line that a killed run left is dropped.
    """

    def __init__(self, path: Path):
        self.path = path
        self._answers: dict[str, str] = {}
        self._lock = threading.Lock()
        if path.exists():
            lines = path.read_bytes().split(b"\n")
            if lines.pop():  # no line break behind it
                partial = path.with_name(f".{path.name}.partial")
                partial.write_bytes(b"".join(line + b"\n" for line in lines))
                os.replace(partial, path)
            for number, line in enumerate(lines, start=1):
                try:
                    entry = json.loads(line)
                    self._answers[entry["key"]] = entry["answer"]
                except (ValueError, KeyError, TypeError) as error:
                    raise ValueError(
                        f"{str(path)!r}, line {number} is no kept answer. Remove the file, or that line."
                    ) from error

    def get(self, key: str) -> str | None:
        return self._answers.get(key)

    def put(self, answers: Mapping[str, str]) -> None:
        with self._lock, self.path.open("a", encoding="utf-8") as file:
            for key, answer in answers.items():
                if self._answers.get(key) != answer:
                    self._answers[key] = answer
                    file.write(json.dumps({"key": key, "answer": answer}, ensure_ascii=False) + "\n")


def agreed(
    client: Client, prompts: Iterable[str], max_reply_tokens: int, price: tuple[float, float] | None, is_agreed: bool
) -> bool:
    """State what requests will cost, and ask whether to go on.

    Args:
        client: who will be asked.
        prompts: all of them.
        max_reply_tokens: of all replies together.
        price: of a million tokens of prompts, and of replies.
        is_agreed: the user has agreed beforehand.

    Raises:
        ValueError: nobody can be asked.
    """
    prompts = list(prompts)
    tokens = sum(len(prompt.encode()) for prompt in prompts) // BYTES_PER_TOKEN
    cost = f"{len(prompts)} requests to {client.model} at {client.url}: about {tokens:,} tokens, replies of at most {max_reply_tokens:,}"
    if price:
        cost += f", at most {(tokens * price[0] + max_reply_tokens * price[1]) / 1e6:.2f} at the prices given"
    print(cost + ".", file=sys.stderr)
    if is_agreed:
        return True
    if not sys.stdin.isatty():
        raise ValueError("Nobody can be asked whether to go on. Say so beforehand: --yes")
    return input("Go on? [y/N] ").strip().lower() in ("y", "yes")
