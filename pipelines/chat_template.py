"""What a chat template may cost: a program that comes with a model's files, tried with limits before it writes a prompt.

jinja's sandbox keeps a template from the system, not from looping or filling the memory. So every conversation is written in a
process of its own first, which stays for the next one; what it says of it, errors included, does not count here. Standard library
and jinja2 only.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .image_worker import apart, limit, limit_seconds

MAX_BYTES = 512 * 2**20
MAX_SECONDS = 2
MAX_CHARACTERS = 1_000_000
"""Of a template; published ones have a few thousand."""

_ROOT = str(Path(__file__).resolve().parent.parent)
_BOOT = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from pipelines.chat_template import serve; serve()"
_GENERATION = re.compile(r"\{%-?\s*(end)?generation\s*-?%\}")
_CHEAP = b"cheap\n"


def check_chat_template(processor: Any, source: str) -> None:
    """Try the chat templates of a processor on short conversations.

    Args:
        processor: of any family, with its tokenizer.
        source: where it comes from, for the error.

    Raises:
        ValueError: one of them is too large, takes too long, or takes too much memory.
    """
    for template in _templates(processor):
        if not isinstance(template, str) or len(template) > MAX_CHARACTERS or not _is_cheap(template):
            raise ValueError(
                f"A chat template of {source} is no template, or takes more than {MAX_SECONDS} s or {MAX_BYTES // 2**20} MiB "
                "for a short conversation. Copy chat_template.jinja again."
            )


def apply_chat_template(processor: Any, messages: Sequence[dict[str, Any]], **kwargs: Any) -> str:
    """`processor.apply_chat_template(messages, **kwargs)`, after a trial of this very conversation.

    Raises:
        ValueError: the template takes too long for it, or too much memory.
        Whatever the template raises.
    """
    try_conversations(processor, [messages])
    return processor.apply_chat_template(messages, **kwargs)


def try_conversations(processor: Any, conversations: Sequence[Sequence[dict[str, Any]]]) -> None:
    """The trial alone, of several conversations at once: for who writes the beginnings of one.

    Raises:
        ValueError: the template takes too long for one of them, or too much memory.
    """
    if not all(_trial.are_cheap(template, conversations) for template in _templates(processor)):
        raise ValueError(
            f"The model's chat template takes more than {MAX_SECONDS} s or {MAX_BYTES // 2**20} MiB for this conversation. Copy "
            "chat_template.jinja again."
        )


def _templates(processor: Any) -> list[Any]:
    """The different ones of a processor and its tokenizer, which often have the same."""
    found: list[Any] = []
    for holder in (processor, getattr(processor, "tokenizer", None)):
        given = getattr(holder, "chat_template", None) or ()
        found += [given] if isinstance(given, str) else given.values() if isinstance(given, dict) else ()
    return [template for index, template in enumerate(found) if template not in found[:index]]


@functools.lru_cache(maxsize=64)
def _is_cheap(template: str) -> bool:
    return _trial.are_cheap(template, _conversations())


class _Trial:
    """The process that tries templates; started when it is needed, and anew after one that cost too much."""

    def __init__(self) -> None:
        self.forget()
        atexit.register(self.stop)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.forget)

    def forget(self) -> None:
        """The process is another one's."""
        self._lock, self._process = threading.Lock(), None

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def are_cheap(self, template: str, conversations: Sequence[Sequence[dict[str, Any]]]) -> bool:
        with self._lock:
            if self._process is not None and self._process.poll() is not None:  # somebody ended it, between two conversations
                self.stop()
            process = self._process = self._process or self._start()
            overdue = threading.Timer(30 * MAX_SECONDS, process.kill)
            overdue.start()
            answer = b""
            with contextlib.suppress(OSError):  # it has ended
                process.stdin.write(json.dumps([template, conversations]).encode() + b"\n")
                process.stdin.flush()
                answer = process.stdout.readline()
            overdue.cancel()
            if answer != _CHEAP:
                self.stop()
            return answer == _CHEAP

    @staticmethod
    def _start() -> subprocess.Popen:
        command = [sys.executable, "-I", "-S", "-c", _BOOT, json.dumps([_ROOT, *sys.path])]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, **apart())


_trial = _Trial()


def serve() -> None:
    """Render what comes on standard input, a template and conversations per line, each within the limits."""
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def fail(*_: Any) -> None:
        raise ValueError

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.filters["tojson"] = lambda value, **_: json.dumps(value)
    environment.globals |= {"raise_exception": fail, "strftime_now": lambda form: form}

    @functools.lru_cache(maxsize=8)
    def compiled(source: str) -> Any:
        return environment.from_string(_GENERATION.sub("", source))

    limit(MAX_BYTES)
    for line in sys.stdin.buffer:
        source, conversations = json.loads(line)
        for messages in conversations:
            limit_seconds(MAX_SECONDS)
            try:
                compiled(source).render(
                    messages=messages, add_generation_prompt=True, bos_token="<s>", eos_token="</s>", pad_token="", unk_token=""
                )
            except MemoryError:
                return
            except Exception:
                pass
        sys.stdout.buffer.write(_CHEAP)
        sys.stdout.buffer.flush()


def _conversations() -> list[list[dict[str, Any]]]:
    def turns(count: int, *items: dict[str, Any]) -> list[dict[str, Any]]:
        roles = ("user", "assistant")
        return [
            {"role": roles[turn % 2], "content": [*items, {"type": "text", "text": "What?"}] if items else "What?"}
            for turn in range(count)
        ]

    text, image = {"type": "text", "text": "Yes."}, {"type": "image"}
    return [
        turns(1),
        turns(1, text),
        turns(1, image),
        [{"role": "system", "content": "Be brief."}, *turns(5)],
        turns(21, image),
    ]
