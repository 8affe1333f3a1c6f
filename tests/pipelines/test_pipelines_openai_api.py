"""What clients of OpenAI-compatible servers share: every kind of refusal becomes one line."""

import io
from urllib.error import HTTPError

import pytest

from pipelines.openai_api import refusal


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"error": {"message": "At most 1\\nimage"}}', "At most 1 image"),
        (b'{"error": "no memory"}', "no memory"),
        (b'{"detail": "Not found"}', "Not found"),
        (b'{"detail": [{"loc": ["body"]}]}', "[{'loc': ['body']}]"),
        (b"<html>\n bad gateway", "<html> bad gateway"),
        (b"[" * 5000, "[" * 400),
        (b"\xff", "\ufffd"),
        (b"", "Bad Request"),
    ],
)
def test_refusal_is_one_line_with_the_servers_own_reason(body, said):
    error = HTTPError("http://127.0.0.1/v1/models", 400, "Bad Request", {}, io.BytesIO(body))
    assert refusal(error) == f"refused (400): {said}"
