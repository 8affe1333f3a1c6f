"""What clients of OpenAI-compatible servers share: the address, the headers, the error. Standard library only."""

from urllib.parse import urlsplit


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
