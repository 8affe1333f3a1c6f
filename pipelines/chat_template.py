"""What a chat template may cost: a program that comes with a model's files is tried with limits before the model is used.

jinja's sandbox keeps a template from the system, not from looping or filling the memory. So it writes a few conversations in a
process of its own first; what it says of them, errors included, does not count here. Standard library and jinja2 only.
"""

from __future__ import annotations

import functools
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from .image_worker import limit

MAX_BYTES = 512 * 2**20
MAX_SECONDS = 2
MAX_CHARACTERS = 1_000_000
"""Of a template; published ones have a few thousand."""

_ROOT = str(Path(__file__).resolve().parent.parent)
_BOOT = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from pipelines.chat_template import serve; serve()"
_GENERATION = re.compile(r"\{%-?\s*(end)?generation\s*-?%\}")


def check_chat_template(processor: Any, source: str) -> None:
    """Try the chat templates of a processor.

    Args:
        processor: of any family, with its tokenizer.
        source: where it comes from, for the error.

    Raises:
        ValueError: one of them is too large, takes too long, or takes too much memory.
    """
    for holder in (processor, getattr(processor, "tokenizer", None)):
        given = getattr(holder, "chat_template", None) or ()
        templates = [given] if isinstance(given, str) else given.values() if isinstance(given, dict) else ()
        for template in templates:
            if not isinstance(template, str) or len(template) > MAX_CHARACTERS or not _is_cheap(template):
                raise ValueError(
                    f"A chat template of {source} is no template, or takes more than {MAX_SECONDS} s or {MAX_BYTES // 2**20} MiB "
                    "for a short conversation. Copy chat_template.jinja again."
                )


@functools.lru_cache(maxsize=64)
def _is_cheap(template: str) -> bool:
    command = [sys.executable, "-I", "-S", "-c", _BOOT, json.dumps([_ROOT, *sys.path])]
    flags = {"creationflags": subprocess.CREATE_NO_WINDOW} if sys.platform == "win32" else {}
    quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    try:
        done = subprocess.run(command, input=template.encode("utf-8", "replace"), timeout=30 * MAX_SECONDS, **quiet, **flags)
    except subprocess.TimeoutExpired:
        return False
    return done.stdout == b"cheap"


def serve() -> None:
    """Render the template on standard input within the limits, in the process that was made for it."""
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def fail(*_: Any) -> None:
        raise ValueError

    source = _GENERATION.sub("", sys.stdin.buffer.read().decode())
    limit(MAX_BYTES, MAX_SECONDS)
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.filters["tojson"] = lambda value, **_: json.dumps(value)
    environment.globals |= {"raise_exception": fail, "strftime_now": lambda form: form}
    for messages in _conversations():
        try:
            environment.from_string(source).render(
                messages=messages, add_generation_prompt=True, bos_token="<s>", eos_token="</s>", pad_token="", unk_token=""
            )
        except MemoryError:
            return
        except Exception:
            continue
    sys.stdout.write("cheap")


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
