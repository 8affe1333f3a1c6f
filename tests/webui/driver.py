"""Starts a real text-generation-webui and uses it like a person in a browser and like a program through its API.

`TEXTGEN_DIR` names the checkout, `TEXTGEN_PYTHON` its Python (without it: the one of the web UI's own installer, else ours).
Every server runs in a copy of the checkout under a temporary folder; the checkout itself is only read.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from chat_page_driver import DRAWN

ROOT = Path(__file__).resolve().parent.parent.parent
PATIENCE_S = float(os.environ.get("TEXTGEN_PATIENCE", "300"))
"""How long to wait for anything; a busy machine needs more."""


def textgen_python(checkout: Path) -> str:
    own = checkout / "installer_files" / "env" / "bin" / "python"
    return os.environ.get("TEXTGEN_PYTHON") or (str(own) if own.exists() else sys.executable)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def by_hand(root: Path, place: str = "user_data") -> None:
    """Install as the plugin's README says, into `user_data/extensions`, or with "." into `extensions`."""
    ignored = shutil.ignore_patterns("__pycache__")
    target = root / place / "extensions" / "multimodal_vcla"
    shutil.copytree(ROOT / "extensions" / "multimodal_vcla", target, ignore=ignored)
    shutil.copytree(ROOT / "pipelines", target / "pipelines", ignore=ignored)


_WITNESS = """import json
import sys
from pathlib import Path

def tokenizer_modifier(state, prompt, ids, embeds):
    seen = {"prompt": prompt, "ids": ids[0].tolist(), "has_embeds": embeds is not None, "room": state["truncation_length"]}
    with open("witness.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(seen) + chr(10))
    return prompt, ids, embeds

def output_modifier(string, state, is_chat=False):
    prefixes = getattr(sys.modules.get("multimodal_vcla.generate"), "_prefixes", None)
    if prefixes is not None:
        served = {"total": prefixes.last.num_prompt_tokens, "reused": prefixes.last.num_reused_tokens, "kept": prefixes.num_bytes}
        with open("served.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(served) + chr(10))
    return string
"""
"""An extension that stands behind ours and writes down what reaches the model, and how much of it was there before."""


class Server:
    """A web UI with the plugin in it.

    Args:
        folder: where its copy goes.
        model: folder of the model to load; None starts without one.
        settings: for user_data/settings.yaml.
        flags: further words of the command line.
        prepare: puts the plugin, and whatever else, into the copy before it starts.
        is_enabled: names the plugin on the command line.
        has_page: False starts with --nowebui.
        environment: further variables.
    """

    def __init__(
        self,
        folder: Path,
        model: Path | None,
        settings: dict,
        flags: tuple[str, ...] = (),
        prepare: Callable[[Path], None] = by_hand,
        is_enabled: bool = True,
        has_page: bool = True,
        environment: dict[str, str] | None = None,
    ):
        import yaml

        checkout = Path(os.environ["TEXTGEN_DIR"]).resolve()
        self.root = folder / "root"
        top = {".git", "user_data", "installer_files"}
        ignore = lambda at, names: (top if Path(at) == checkout else {"__pycache__"}) & set(names)  # noqa: E731
        shutil.copytree(checkout, self.root, ignore=ignore, symlinks=True)
        left_out = {"cache", "logs", "models", "settings.yaml", "extensions"}
        ignore = lambda at, names: left_out & set(names) if Path(at).name == "user_data" else set()  # noqa: E731
        shutil.copytree(checkout / "user_data", self.root / "user_data", ignore=ignore, symlinks=True)
        self.user_data = self.root / "user_data"
        (self.user_data / "models").mkdir()
        if model is not None:
            shutil.copytree(model, self.user_data / "models" / model.name)
        (self.user_data / "settings.yaml").write_text(yaml.safe_dump(settings))
        prepare(self.root)
        (self.user_data / "extensions" / "witness").mkdir(parents=True)
        (self.user_data / "extensions" / "witness" / "script.py").write_text(_WITNESS)
        self.port, self.api_port, self.log_file = free_port(), free_port(), folder / "server.log"
        self.url, self.api = f"http://127.0.0.1:{self.port}", f"http://127.0.0.1:{self.api_port}"
        command = [textgen_python(checkout), "server.py", "--listen-port", str(self.port), "--loader", "Transformers"]
        command += ["--api", "--api-port", str(self.api_port), *flags]
        command += ["--extensions", *(["multimodal_vcla"] if is_enabled else []), "witness"]
        command += ["--model", model.name] if model is not None else []
        command += [] if has_page else ["--nowebui"]
        self.has_page = has_page
        offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "GRADIO_ANALYTICS_ENABLED": "False"}
        fixed = {"NO_PROXY": "127.0.0.1,localhost", "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        environment = {**os.environ, **offline, **fixed, **(environment or {})}
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                command, cwd=self.root, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        self._wait()

    def _wait(self) -> None:
        started = lambda: not self.has_page or "Running on local URL" in self.log  # noqa: E731
        self.wait_for(lambda: self._answers(self.api + "/v1/models") and started())

    def wait_for(self, is_so: Callable[[], bool]) -> None:
        """Wait until something is so; ends with an error when the server dies, or with patience."""
        end = time.monotonic() + PATIENCE_S
        while not is_so():
            if self.process.poll() is not None or time.monotonic() > end:
                self.stop()
                raise RuntimeError(f"The web UI did not get there.\n{self.log[-4000:]}")
            time.sleep(0.3)

    @staticmethod
    def _answers(url: str) -> bool:
        try:
            urllib.request.urlopen(url, timeout=30).close()
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False
        return True

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    @property
    def prompts(self) -> list[dict]:
        """What reached the model, oldest first: `prompt`, `ids`, whether it `has_embeds`, and the `room` there was."""
        return self._written("witness.jsonl")

    @property
    def served(self) -> list[dict]:
        """Of every reply how many tokens of its prompt, in `total`, were `reused`, and the bytes `kept` after it."""
        return self._written("served.jsonl")

    def _written(self, name: str) -> list[dict]:
        file = self.root / name
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def request(self, path: str, body: dict | None = None) -> tuple[int, object]:
        """(status, parsed answer, or its text where it is no JSON)."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.api + path, data, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
                status, text = answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            status, text = error.code, error.read().decode()
        try:
            return status, json.loads(text)
        except ValueError:
            return status, text


@contextlib.contextmanager
def browser(playwright, camera: Path | None = None):
    """A fresh Chromium; `camera` is a Y4M or MJPEG file that its camera shows."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    arguments = ["--no-sandbox", "--disable-gpu"]
    if camera is not None:
        arguments += ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
        arguments.append(f"--use-file-for-fake-video-capture={camera}")
    chrome = playwright.chromium.launch(executable_path=chromium, args=arguments)
    try:
        yield chrome
    finally:
        chrome.close()


_COUNT_ASKED = """
    window.__asked = new Set();
    const ask = window.fetch.bind(window), completed = new Set();
    const listen = async (stream) => {
        let text = '';
        for (const reader = stream.pipeThrough(new TextDecoderStream()).getReader(); ;) {
            const {value, done} = await reader.read();
            if (done) return;
            const events = (text + value).split('\\n\\n');
            text = events.pop();
            for (const {msg, event_id} of events.map((event) => JSON.parse(event.slice(event.indexOf('{')))))
                if (msg === 'process_completed' && !__asked.delete(event_id)) completed.add(event_id);
        }
    };
    window.fetch = async (what, options) => {
        const url = String(what?.url ?? what);
        if (url.includes('/heartbeat/')) return ask(what, options);  // open as long as the page is
        if (url.includes('/queue/data')) {
            const answer = await ask(what, options);
            listen(answer.clone().body).catch(() => {});
            return answer;
        }
        const call = {};
        __asked.add(call);
        try {
            const answer = await ask(what, options);
            if (url.includes('/queue/join')) {
                const {event_id} = await answer.clone().json();
                if (!completed.delete(event_id)) __asked.add(event_id);
            }
            return answer;
        } finally { __asked.delete(call); }
    };
"""
"""What the server was asked and has not answered."""
_WATCH = """() => {
    window.__ends = 0; window.__toasts = [];
    const remove = DOMTokenList.prototype.remove;
    DOMTokenList.prototype.remove = function(...names) { if (names.includes('_generating')) __ends++; return remove.apply(this, names); };
    new MutationObserver((changes) => { for (const change of changes) for (const node of change.addedNodes)
        for (const toast of node.querySelectorAll?.('.toast-text') ?? []) __toasts.push(toast.innerText);
    }).observe(document.body, {childList: true, subtree: true});
}"""
_MESSAGES = """() => [...document.querySelectorAll('#chat [data-index]')].map((message) => ({
    row: +message.dataset.index,
    role: message.matches('.user-message') || message.querySelector('.circle-you') ? 'user' : 'assistant',
    raw: message.dataset.raw, pictures: message.querySelectorAll('.image-attachment img').length}))"""


class Page:
    """The chat page in one browser window.

    Args:
        chrome: a browser.
        url: of the web UI.
        has_chats: chats are saved and listed; not so in multi-user mode.
    """

    def __init__(self, chrome, url: str, has_chats: bool = True):
        context = chrome.new_context(viewport={"width": 1500, "height": 1100}, permissions=["camera"])
        self.page = context.new_page()
        self.page.set_default_timeout(PATIENCE_S * 1000)
        self.page.on("dialog", lambda dialog: dialog.accept())
        self.url, self.has_chats = url, has_chats
        self.page.add_init_script(_COUNT_ASKED)
        self.load()

    def load(self) -> None:
        self.page.goto(self.url)
        self.page.wait_for_selector("#hover-menu #Regenerate", state="attached")
        if self.has_chats:
            self.page.wait_for_selector("#past-chats input", state="attached")
        self.settle()
        self.page.evaluate(_WATCH)

    def settle(self) -> None:
        """Wait until the server has answered all that it was asked, and the answers are drawn."""
        self.page.evaluate(DRAWN, "body")
        while self.page.evaluate("__asked.size"):
            self.page.wait_for_function("() => __asked.size === 0")
            self.page.evaluate(DRAWN, "body")

    def wait_until(self, is_so: Callable[[], bool]) -> None:
        """Look once per frame until something is so."""
        end = time.monotonic() + PATIENCE_S
        while not is_so():
            assert time.monotonic() < end, "It did not come to that."
            self.page.evaluate("() => new Promise(requestAnimationFrame)")

    def attach(self, *paths: Path) -> None:
        before = self.page.locator("#chat-input .thumbnail-item").count()
        with self.page.expect_file_chooser() as chooser:
            self.page.click("#chat-input .upload-button")
        chooser.value.set_files([str(path) for path in paths])
        self.page.wait_for_function(
            "count => document.querySelectorAll('#chat-input .thumbnail-item').length >= count", arg=before + len(paths)
        )
        self.settle()

    @contextlib.contextmanager
    def reply(self):
        """Around whatever makes a reply: waits until it is there."""
        ends = self.page.evaluate("__ends")
        yield
        self.page.wait_for_function("ends => __ends > ends", arg=ends)
        self.page.wait_for_function("() => document.querySelector('#chat [data-index]') || __toasts.length")
        self.settle()

    def send(self, text: str, *pictures: Path) -> str:
        if pictures:
            self.attach(*pictures)
        self.page.fill("#chat-input textarea", text)
        with self.reply():
            self.page.click("#Generate")
        return self.last_reply()

    def messages(self) -> list[dict]:
        return self.page.evaluate(_MESSAGES)

    def last_reply(self) -> str:
        replies = [message["raw"] for message in self.messages() if message["role"] == "assistant"]
        return replies[-1] if replies else ""

    def footer(self, name: str, role: str = "assistant", row: int | None = None) -> None:
        kind = {"user": ".user-message", "assistant": ".assistant-message"}[role]
        at = "" if row is None else f'[data-index="{row}"]'
        self.page.locator(f"#chat {kind}{at} .footer-{name}-button").last.dispatch_event("click")

    def menu(self, *names: str) -> None:
        """Click a button of the menu; its name differs between versions of the web UI."""
        name = re.compile("|".join(map(re.escape, names)))
        self.page.locator("#hover-menu button", has_text=name).first.dispatch_event("click")

    def edit(self, row: int, text: str) -> None:
        self.footer("edit", "user", row)
        self.page.fill("#chat .editing-textarea", text)
        self.page.click("#chat .edit-control-button:not(.edit-cancel-button)")
        self.page.wait_for_function("() => !document.querySelector('.editing-textarea')")
        self.wait_until(lambda: text in [message["raw"] for message in self.messages() if message["row"] == row])
        self.settle()

    def new_chat(self) -> None:
        self.page.click("#new-chat-btn")
        self.page.wait_for_function("() => !document.querySelector('#chat .user-message, #chat .circle-you')")
        self.settle()
        self.page.evaluate("__toasts.length = 0")

    def mode(self, name: str) -> None:
        self.page.locator(f'#chat-mode input[value="{name}"]').dispatch_event("click")
        self.settle()

    def parameter(self, label: str, value: object) -> None:
        """Set a number of the Parameters tab."""
        self.tab("Parameters")
        field = self.page.locator("label:visible", has_text=label).locator("input").first
        field.fill(str(value))
        field.press("Enter")
        self.settle()
        self.tab("Chat")

    def tab(self, name: str) -> None:
        self.page.locator("button[role=tab]", has_text=re.compile(rf"^\s*{name}\s*$")).first.click()
        self.settle()

    def toasts(self) -> list[str]:
        return self.page.evaluate("__toasts")

    def panel_says(self, *texts: str) -> None:
        """Wait until the panel, which follows the chat, says all of it."""
        says = "texts => texts.every(text => document.querySelector('#multimodal_vcla').innerText.includes(text))"
        self.page.wait_for_function(says, arg=texts)
