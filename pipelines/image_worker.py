"""A process with limits for what cannot be bounded from outside: decoders whose memory a few bytes of a file decide.

AVIF and HEIF hold the size of the picture twice, and the decoder allocates for the one that the header does not show.
Where the system has no such limits (Windows), only the time is bounded.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .image_files import WORKER_BYTES, WORKER_SECONDS, ImageError

_ROOT = str(Path(__file__).resolve().parent.parent)
_BOOT = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from pipelines.images import serve_worker; serve_worker()"
_TOO_MUCH = f"needs more than {WORKER_BYTES // 2**20} MiB or {WORKER_SECONDS} s to decode, or breaks its decoder. Save it as PNG or JPEG."


def ask(request: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
    """Have `images.serve_worker` answer in a process of its own.

    Returns:
        What its handler returned.

    Raises:
        ImageError: it refused, or ran out of its limits.
    """
    command = [sys.executable, "-I", "-S", "-c", _BOOT, json.dumps([_ROOT, *sys.path]), json.dumps(request)]
    environment = os.environ | {"MALLOC_ARENA_MAX": "1"}
    try:
        done = subprocess.run(
            command,
            input=data,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            timeout=3 * WORKER_SECONDS,
            **apart(),
        )
    except subprocess.TimeoutExpired as error:
        raise ImageError(_TOO_MUCH) from error
    except OSError as error:
        raise ImageError(f"cannot be decoded, no process can be started ({error}).") from error
    header, newline, body = done.stdout.partition(b"\n")
    if done.returncode or not newline:
        raise ImageError(_TOO_MUCH)
    answer = json.loads(header)
    if "refused" in answer:
        raise ImageError(answer["refused"])
    return answer, body


def serve(handler: Callable[[dict[str, Any], bytes], tuple[dict[str, Any], bytes]]) -> None:
    """The worker's side: answer the one request of this process, within the limits."""
    limit(WORKER_BYTES)
    limit_seconds(WORKER_SECONDS)
    try:
        answer, body = handler(json.loads(sys.argv[2]), sys.stdin.buffer.read())
    except MemoryError:
        sys.exit(1)
    except ImageError as error:
        answer, body = {"refused": error.reason}, b""
    sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
    sys.stdout.buffer.write(body)


def apart() -> dict[str, Any]:
    """What `subprocess` is given for a worker that Ctrl-C does not reach: only its user decides what becomes of its work."""
    return {"creationflags": subprocess.CREATE_NO_WINDOW} if sys.platform == "win32" else {"start_new_session": True}


def limit(num_bytes: int) -> None:
    """Hold this process to so much address space, where the system can."""
    _limit("RLIMIT_AS", num_bytes)
    _limit("RLIMIT_CORE", 0)


def limit_seconds(seconds: int) -> None:
    """Let this process take so much processor time from now on, where the system can."""
    _limit("RLIMIT_CPU", math.ceil(time.process_time()) + seconds)


def _limit(name: str, most: int) -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    kind = getattr(resource, name)
    hard = resource.getrlimit(kind)[1]
    resource.setrlimit(kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
