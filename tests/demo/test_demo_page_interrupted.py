"""What a chat loses when a server dies in the middle of an answer, the page's own or the one that it asks: nothing; and it says so."""

import json
import queue
import re
import subprocess
import sys
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

import openai_server
import pytest
from chat_page_driver import EXAMPLES, PATIENCE_MS, ROOT, Tab, chromium, free_port

pytestmark = pytest.mark.browser

BREAK = object()


@contextmanager
def engine(words: queue.Queue):
    """A server with a model that says the words of the queue; None ends an answer, `BREAK` the connection."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.begin("application/json")
            self.wfile.write(json.dumps({"data": [{"id": "eyes"}]}).encode())

        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.begin("text/event-stream")
            while (word := words.get(timeout=2 * PATIENCE_MS / 1000)) is not BREAK:
                event = json.dumps({"choices": [{"delta": {"content": word}}]}) if word is not None else "[DONE]"
                self.wfile.write(f"data: {event}\n\n".encode())
                if word is None:
                    return

        def begin(self, kind):
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.end_headers()

        def log_message(self, *args):
            pass

    with openai_server.running(Handler) as address:
        try:
            yield address
        finally:
            words.put(BREAK)  # so that a test that failed leaves nobody waiting


@contextmanager
def page_of(engine: str, port: int):
    """`python -m demo page` in a process of its own, which is killed at the end."""
    command = [sys.executable, "-m", "demo", "page", "--no-browser", "--port", str(port), "--server", engine]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        try:
            yield re.search(r"http://127\.0\.0\.1:\d+/", server.stdout.readline())[0]
        finally:
            server.kill()


def test_nothing_is_lost_when_a_server_dies_in_the_middle_of_an_answer():
    words, port = queue.Queue(), free_port()
    with engine(words) as url, chromium() as browser:
        with page_of(url, port) as address:
            tab = Tab(browser.new_context(reduced_motion="reduce"), address)
            tab.attach(EXAMPLES / "star-and-ring.png")
            tab.send("What is here?")
            words.put("A red ")
            tab.wait_until(lambda: tab.answers().count() == 1 and tab.last_answer() == "A red")
            words.put(BREAK)
            tab.wait_until(lambda: "broke off" in tab.last_answer())
            assert tab.wait().startswith("A red")
            tab.press("Retry")
            words.put("A red ring ")
            tab.wait_until(lambda: tab.last_answer() == "A red ring")
        tab.page.locator("#said", has_text="does not answer").wait_for()
        words.put(BREAK)  # of the answer that nobody waits for any more
        tab.wait_until(words.empty)
        with page_of(url, port):
            tab.page.locator("#said", has_text="was restarted").wait_for()
            tab.wait_until(lambda: tab.answers().count() == 1 and "interrupted" in tab.last_answer())
            assert tab.last_answer().startswith("A red ring") and tab.page.locator("#chat figure").count() == 1
            tab.press("Retry")
            words.put("A red ring, a blue star.")
            words.put(None)
            tab.wait_until(lambda: tab.last_answer() == "A red ring, a blue star.")
            assert [text for text in tab.questions() if text.endswith("?")] == ["What is here?"]
