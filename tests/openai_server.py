"""An OpenAI-compatible server in this process, whose replies a test writes."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Served:
    """Attributes:
    url: of the API.
    requests: bodies of all chat requests so far.
    keys: Authorization headers seen.
    """

    url: str
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)


@contextmanager
def running(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """A server of HTTP requests on a free port; gives its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def served(reply: Callable[[dict[str, Any]], str | None], failures: list[int] | None = None) -> Iterator[Served]:
    """Serve chat completions.

    Args:
        reply: request -> text of the reply; None for a reply without a text.
        failures: statuses that the first requests are refused with.
    """
    left = list(failures or [])

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self._send(200, {"data": [{"id": "local"}]})

        def do_POST(self):
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            server.requests.append(request)
            server.keys.add(self.headers.get("Authorization"))
            if left:
                self._send(left.pop(0), {"error": {"message": "no such thing"}})
                return
            usage = {"prompt_tokens": 7, "completion_tokens": 3}
            self._send(200, {"choices": [{"message": {"content": reply(request)}}], "usage": usage})

        def _send(self, status, content):
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args):
            pass

    with running(Handler) as address:
        server = Served(f"{address}/v1")
        yield server
