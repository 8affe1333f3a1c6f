"""Between the page and the network: which requests are taken at all, and what a browser may do with the page.

A page on this machine is within reach of every site that its user visits. A foreign site may send requests here (to fill
the disk), and by DNS rebinding be taken for this one by the browser (to read): the first says where it comes from in
Origin and Sec-Fetch-Site, the second in Host.
"""

import ipaddress
import socket
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import urlsplit

from pipelines.images import MAX_BYTES

MAX_REQUEST_BYTES = 2 * 1024 * 1024
MAX_UPLOAD_BYTES = 10 * MAX_BYTES  # of one request; a single file has gradio's limit
POLICY = {
    # The browser itself then loads nothing from elsewhere, such as a picture that an answer names, and sends nothing there.
    "Content-Security-Policy": "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; form-action 'none'; "
    "frame-ancestors 'none'; base-uri 'none'; object-src 'none'",
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Guard:
    """ASGI middleware.

    Args:
        app: what it guards.
        hosts: names, beside this machine's own and its addresses, under which the page is served.
    """

    def __init__(self, app: Callable, hosts: Callable[[], Iterable[str]]):
        self.app, self.hosts = app, hosts

    async def __call__(self, scope: dict[str, Any], receive: Callable, send: Callable) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        limit = MAX_UPLOAD_BYTES if scope["path"].rstrip("/").endswith("/upload") else MAX_REQUEST_BYTES
        if refusal := self._foreign(scope.get("method", "GET"), headers):
            await _refuse(scope, send, 403, refusal)
        elif _number(headers.get("content-length", "0")) > limit:
            await _refuse(scope, send, 413, f"More than {limit} bytes.")
        else:
            await self.app(scope, _limited(receive, limit), _with_policy(send))

    def _foreign(self, method: str, headers: dict[str, str]) -> str:
        """Why a request is not from the page itself; "" where it may be."""
        served = {_name(host) for host in self.hosts()}
        host, origin = headers.get("host", ""), headers.get("origin")
        if not (_is_own(_name(host)) or _name(host) in served):
            return "This page is not served under that name. Open it by its address."
        if origin is not None and urlsplit(origin).netloc != host and _name(urlsplit(origin).netloc) not in served:
            return "Requests of other pages are not taken."
        is_visit = method == "GET" and headers.get("sec-fetch-mode") == "navigate"
        if headers.get("sec-fetch-site") in ("cross-site", "same-site") and not is_visit:
            return "Requests of other pages are not taken."
        return ""


def _is_own(name: str) -> bool:
    """Names that no foreign name server can claim: addresses, localhost, this machine's own."""
    try:
        ipaddress.ip_address(name)
        return True
    except ValueError:
        own = socket.gethostname().lower()
        return name == "localhost" or name.endswith(".localhost") or name in (own, f"{own.partition('.')[0]}.local")


def _name(host: str) -> str:
    """The name of "name:port"."""
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else 0


def _limited(receive: Callable, limit: int) -> Callable:
    """A request that grows beyond the limit ends as if its sender had gone."""
    left = limit

    async def limited() -> dict[str, Any]:
        nonlocal left
        message = await receive()
        left -= len(message.get("body", b""))
        return message if left >= 0 else {"type": "http.disconnect"}

    return limited


def _with_policy(send: Callable) -> Callable:
    extra = [(name.lower().encode(), value.encode()) for name, value in POLICY.items()]

    async def sent(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", []), *extra]}
        await send(message)

    return sent


async def _refuse(scope: dict[str, Any], send: Callable, status: int, reason: str) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": reason.encode()})
