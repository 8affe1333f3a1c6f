"""Drives the chat page in headless Chromium: what the tests of the page share. Imports gradio only when a page is opened."""

import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests/golden/visualcla"
TINY_MODEL = GOLDEN / "merged/visualcla-tiny-merged"
SHIPPED_MODEL = ROOT / "demo/model"
EXAMPLES = ROOT / "demo/examples"
PATIENCE_MS = 120_000

# What is in an element is drawn: it has not changed over ten frames.
DRAWN = """selector => new Promise(drawn => {
    let still = 0;
    const watch = new MutationObserver(() => { still = 0; });
    watch.observe(document.querySelector(selector), {subtree: true, childList: true, characterData: true});
    const frame = () => ++still > 10 ? (watch.disconnect(), drawn()) : requestAnimationFrame(frame);
    requestAnimationFrame(frame);
})"""


@contextmanager
def chromium(*flags: str) -> Iterator:
    """A browser with a fresh profile; skips where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("there is no Chromium on this machine")
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", *flags]
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=arguments)
        yield browser
        browser.close()


def camera_flags(video: Path) -> list[str]:
    """Flags for a browser whose camera shows a file of JPEG frames (.mjpeg) and asks nobody."""
    return [
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-video-capture={video}",
    ]


@contextmanager
def served(page) -> Iterator[str]:
    """A `ChatPage` in this process; gives its address."""
    address = page.launch("127.0.0.1", free_port(), is_shared=False, opens_browser=False)
    try:
        yield address
    finally:
        page.blocks.close(verbose=False)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


class Tab:
    """One tab with the page open and the model loaded.

    Args:
        context: Playwright's browser context; tabs of one context share what was downloaded, and at most six connections.
        address: of the page.

    Attributes:
        page: Playwright's page.
        foreign: addresses outside the page's own that were asked for.
        errors: errors of the page's scripts.
    """

    def __init__(self, context, address: str):
        self.page = context.new_page()
        self.page.set_default_timeout(PATIENCE_MS)
        self.foreign: list[str] = []
        self.errors: list[str] = []
        self.page.on("request", lambda request: self._note(request.url, address))
        self.page.on("requestfailed", self._forget_if_forbidden)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(address)
        self.box = self.page.locator("#box textarea")
        self.box.wait_for()
        self.page.locator("#context", has_text="·").wait_for()

    def reload(self) -> None:
        """The page anew, with an empty chat; does not wait for the model."""
        self.page.reload()
        self.box.wait_for()

    def _note(self, url: str, address: str) -> None:
        if not url.startswith((address, "data:", "blob:")):
            self.foreign.append(url)

    def _forget_if_forbidden(self, request) -> None:
        """The page's own policy kept the browser from asking."""
        if request.failure == "csp":
            self.foreign.remove(request.url)

    def attach(self, *files: Path | str) -> None:
        before = self.attached()
        chosen = self.page.locator("#box input[type=file]").first
        chosen.evaluate("input => { input.value = null }")  # the same file twice in a row is no change to a browser
        chosen.set_input_files([str(file) for file in files])
        self.wait_until(lambda: self.attached() == before + len(files))

    def take_picture(self) -> None:
        """With the camera."""
        before = self.attached()
        self.page.locator("#camera").get_by_text("Camera").click()
        self.page.get_by_text("Turn the camera on").click()
        self.page.wait_for_function("document.querySelector('#camera video')?.videoWidth > 0")
        self.page.locator("#camera [aria-label='Take a picture']").click()
        self.wait_until(lambda: self.attached() == before + 1)

    def detach(self) -> None:
        """Take all pictures out of the message."""
        while self.attached():
            before = self.attached()
            self.page.locator("#box .delete-button").first.click()
            self.wait_until(lambda: self.attached() < before)  # noqa: B023

    def clear(self) -> None:
        """An empty chat and an empty message, and no answer being written."""
        self.wait_for_idle()
        self.box.fill("")
        self.detach()
        self.page.locator("#clear").dispatch_event("click")  # the maps of the last answer may come now, and move the button
        self.wait_until(lambda: not self.answers().count() and not self.questions())

    def attached(self) -> int:
        return self.page.locator("#box .thumbnail-item").count()

    def send(self, text: str) -> None:
        self.box.fill(text)
        self.box.press("Enter")

    def ask(self, text: str, *files: Path | str) -> str:
        """Send a message and wait for the answer."""
        if files:
            self.attach(*files)
        number = self.answers().count()
        self.send(text)
        self.wait_until(lambda: self.answers().count() > number)
        return self.wait()

    def wait(self) -> str:
        """Wait for the end of the answer that is being written, and for the chat to be drawn; gives the last answer."""
        self.wait_for_idle()
        self.page.evaluate(DRAWN, "#chat")
        return self.last_answer()

    def wait_for_idle(self) -> None:
        self.page.locator("#box .submit-button").wait_for()

    def answers(self):
        return self.page.locator("#chat [data-testid=bot]")

    def questions(self) -> list[str]:
        return [text.strip() for text in self.page.locator("#chat [data-testid=user]").all_inner_texts()]

    def last_answer(self) -> str:
        return self.answers().last.inner_text().strip()

    def press(self, label: str) -> None:
        """Press one of the small buttons in the chat, the lowest of its kind."""
        self.page.locator(f"#chat [aria-label='{label}']").last.click()

    def edit(self, text: str) -> None:
        self.press("Edit")
        self.page.locator("#chat textarea").last.fill(text)
        self.press("Submit")

    def context(self) -> str:
        return self.page.locator("#context").inner_text().strip()

    def wait_until(self, condition) -> None:
        """Look once per frame until something is so."""
        end = time.monotonic() + PATIENCE_MS / 1000
        while not condition():
            assert time.monotonic() < end, f"It did not come to that within {PATIENCE_MS // 1000} s."
            self.page.evaluate("() => new Promise(requestAnimationFrame)")
