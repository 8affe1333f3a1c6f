"""What stands between the page and the network, and what a killed page leaves behind."""

import asyncio
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from demo.guard import MAX_REQUEST_BYTES, MAX_UPLOAD_BYTES, Guard
from demo.own_folder import PREFIX, own_folder

ROOT = Path(__file__).resolve().parents[2]


async def app(scope, receive, send):
    """Reads the whole request, then says how long it was."""
    length, message = 0, {"more_body": True}
    while message.get("more_body"):
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        length += len(message["body"])
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(length).encode()})


def request(method="GET", path="/", body=(b"",), **headers):
    """Status (0: none), headers and text of the answer."""
    sent, chunks = [], list(body)

    async def receive():
        chunk = chunks.pop(0)
        return {"type": "http.request", "body": chunk, "more_body": bool(chunks)}

    async def send(message):
        sent.append(message)

    named = {"host": "127.0.0.1:7860", **{name.replace("_", "-"): value for name, value in headers.items()}}
    raw = [(name.encode(), value.encode()) for name, value in named.items()]
    scope = {"type": "http", "method": method, "path": path, "headers": raw}
    asyncio.run(Guard(app, lambda: ["0.0.0.0", "pictures.gradio.live"])(scope, receive, send))
    if not sent:
        return 0, {}, ""
    return sent[0]["status"], dict(sent[0]["headers"]), sent[1]["body"].decode()


@pytest.mark.parametrize(
    "host", ["127.0.0.1:7860", "localhost:7860", "192.168.1.9", "[::1]:7860", "pictures.gradio.live", "a.localhost"]
)
def test_page_is_served_under_its_own_names(host):
    status, headers, _ = request(host=host)
    assert status == 200
    policy = headers[b"content-security-policy"].decode()
    assert "form-action 'none'" in policy and "frame-ancestors 'none'" in policy


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example:7860", "localhost.evil.example", "", "[", "gradio.live"]
)
def test_other_names_are_refused_because_a_name_server_may_point_them_here(host):
    assert request(host=host)[0] == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9999"},
        {"sec_fetch_site": "cross-site", "sec_fetch_mode": "no-cors"},
        {"sec_fetch_site": "same-site", "sec_fetch_mode": "cors"},
        {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate"},
    ],
)
def test_requests_of_other_pages_are_refused(headers):
    assert request("POST", "/gradio_api/upload", **headers)[0] == 403


def test_own_requests_and_a_click_on_a_link_elsewhere_are_taken():
    assert request("POST", origin="http://127.0.0.1:7860", sec_fetch_site="same-origin")[0] == 200
    assert request("POST", host="127.0.0.1:7860", origin="https://pictures.gradio.live")[0] == 200
    assert request(sec_fetch_site="cross-site", sec_fetch_mode="navigate")[0] == 200


def test_long_requests_are_refused_by_their_header_and_by_their_length():
    assert request("POST", content_length=str(MAX_REQUEST_BYTES + 1))[0] == 413
    assert request("POST", "/gradio_api/upload", content_length=str(MAX_UPLOAD_BYTES))[0] == 200
    assert request("POST", "/gradio_api/upload", content_length=str(MAX_UPLOAD_BYTES + 1))[0] == 413
    part = bytes(MAX_REQUEST_BYTES // 2)
    assert request("POST", body=(part, part))[2] == str(2 * len(part))
    assert request("POST", body=(part, part, b"x"))[0] == 0


# What a killed page leaves behind

_HOLD = "import time\nfrom demo.own_folder import own_folder\nwith own_folder() as own:\n (own / 'picture.png').touch()\n print(own, flush=True)\n input()"


@pytest.fixture
def page(tmp_path, monkeypatch):
    """Starts a process that holds a folder; gives (process, folder)."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    environment = os.environ | {"TMPDIR": str(tmp_path), "TEMP": str(tmp_path), "TMP": str(tmp_path)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    started = subprocess.Popen([sys.executable, "-c", _HOLD], cwd=ROOT, env=environment, **pipes)
    yield started, Path(started.stdout.readline().strip())
    started.kill()
    started.communicate()


def test_uploads_of_a_killed_page_go_at_the_next_start(page):
    process, folder = page
    with own_folder() as own:
        assert own != folder and (folder / "picture.png").exists()  # that page lives
    assert not own.exists()
    process.kill()
    process.wait()
    assert folder.exists()
    with own_folder():
        assert not folder.exists()


def test_a_page_that_ends_takes_its_folder_with_it(page):
    process, folder = page
    process.communicate("\n")
    assert not folder.exists()


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_links_and_folders_without_a_lock_are_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "mine").mkdir()
    (tmp_path / f"{PREFIX}link").symlink_to(tmp_path / "mine")
    (tmp_path / f"{PREFIX}new").mkdir()
    (tmp_path / f"{PREFIX}old").mkdir()
    os.utime(tmp_path / f"{PREFIX}old", (0, 0))
    with own_folder():
        left = {path.name for path in tmp_path.iterdir()}
    assert {"mine", f"{PREFIX}link", f"{PREFIX}new"} <= left
    assert f"{PREFIX}old" not in left
