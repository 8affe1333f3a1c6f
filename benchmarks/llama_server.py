"""llama.cpp's server as a thing to compare with: started on a GGUF file, asked for the first token behind a list of ids."""

import contextlib
import json
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

PATIENCE_S = 120


class LlamaServer:
    """Attributes:
    url: where it answers.
    last: what it said of its last answer: `tokens_cached`, `timings` and more.
    """

    def __init__(self, url: str):
        self.url, self.last = url, {}

    def first_token(self, ids: Sequence[int]) -> float:
        """Seconds until the first token behind these ids has come; what they share with the last ones is not computed again."""
        body = json.dumps({"prompt": list(ids), "n_predict": 1, "cache_prompt": True, "temperature": 0}).encode()
        request = urllib.request.Request(f"{self.url}/completion", body, {"Content-Type": "application/json"})
        start = time.perf_counter()
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            self.last = json.load(answer)
        return time.perf_counter() - start


@contextlib.contextmanager
def running(program: Path, gguf: Path, threads: int, context: int = 8192) -> Iterator[LlamaServer]:
    """A server on the same number of threads, stopped at the end.

    Raises:
        RuntimeError: it does not start.
    """
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    flags = [
        "--port",
        str(port),
        "--threads",
        str(threads),
        "--threads-batch",
        str(threads),
        "--ctx-size",
        str(context),
        "-np",
        "1",
    ]
    process = subprocess.Popen([program, "-m", gguf, *flags], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        server = LlamaServer(f"http://127.0.0.1:{port}")
        end = time.monotonic() + PATIENCE_S
        while not _is_ready(server.url):
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{str(program)!r} does not start with {str(gguf)!r}; run it by hand to see why.")
            time.sleep(0.2)
        yield server
    finally:
        process.terminate()
        process.wait()


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
            return json.load(answer).get("status") == "ok"
    except (OSError, ValueError):
        return False
