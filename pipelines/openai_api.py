"""What clients of OpenAI-compatible servers share: the address, the headers, the error. Standard library only."""

import json
from urllib.error import HTTPError
from urllib.parse import urlsplit

MAX_REASON_BYTES = 4096


class ServerError(ValueError):
    """A server refused, or could not be reached; one line with its own reason."""


def base_url(url: str) -> str:
    """The address under which the API stands; "/v1" is added where it has no path.

    Raises:
        ServerError: it is no address.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ServerError(f"{url!r} is no address of a server. Give one such as http://127.0.0.1:8000/v1")
    return url.rstrip("/") + ("/v1" if parts.path in ("", "/") else "")


def headers(api_key: str) -> dict[str, str]:
    """Of a request; a bearer token where there is a key."""
    return {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {api_key}"} if api_key else {})


def refusal(error: HTTPError) -> str:
    """What a server's refusal says, the end of a sentence that begins with its address: "refused (400): reason"."""
    try:
        said = reason(error.read(MAX_REASON_BYTES).decode("utf-8", "replace"))
    except OSError:  # it hung up
        said = ""
    return f"refused ({error.code}): {said or error.reason}"


def reason(text: str) -> str:
    """What an error of the API says, in one line: its message, its detail, or the text as it stands."""
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        said = text
    for names in (("error", "detail"), ("message",)):
        if isinstance(said, dict):
            said = next((said[name] for name in names if name in said), said)
    return " ".join(str(said).split())[:400]
