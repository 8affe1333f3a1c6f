"""Runs only against a real text-generation-webui: see the plugin's README, "Tests".

Every reply is compared with what the model says when it is asked without the web UI; where the question is about the tiny
world, it must be the right answer too.
"""

import base64
import hashlib
import http.server
import os
import random
import re
import threading
from pathlib import Path

import pytest
import torch

from demo.grammar import Question, answer
from demo.scenes import Scene, Thing, draw

if "TEXTGEN_DIR" not in os.environ:
    collect_ignore_glob = ["test_*.py"]

ROOT = Path(__file__).resolve().parent.parent.parent
NUM_NEW = 24
SCENES = {
    "one": (Thing("red", "circle", "top left", "large"), Thing("blue", "star", "centre")),
    "two": (Thing("green", "square", "top left", "large"), Thing("black", "ring", "right")),
    "three": (Thing("yellow", "triangle", "top left", "large"), Thing("purple", "cross", "bottom")),
    "four": (Thing("blue", "ring", "top left", "large"), Thing("red", "cross", "right")),
    "five": (Thing("black", "cross", "top left", "large"), Thing("green", "circle", "bottom")),
    "six": (Thing("orange", "star", "top left", "large"), Thing("pink", "square", "centre")),
}
TOP_LEFT, STAR, RING = "What is at the top left?", "What colour is the star?", "Which picture shows the ring?"
QUESTIONS = {
    TOP_LEFT: Question("what", place="top left"),
    STAR: Question("colour", shape="star"),
    RING: Question("which", shape="ring"),
}


class Oracle:
    """What the model answers when it is asked without the web UI, through the processor, greedily."""

    def __init__(self, folder: Path):
        from pipelines import visualcla

        self.model = visualcla.load_pretrained(folder, dtype=torch.float32)
        self.processor = self.model.processor
        pieces = self.processor.tokenizer.convert_ids_to_tokens(range(len(self.processor.tokenizer)))
        self.banned = [index for index, piece in enumerate(pieces) if re.fullmatch(r"<0x[0-9A-F]{2}>", piece)]
        """Byte pieces: the web UI waits for ever for bytes that never become a character."""

    def __call__(self, *turns: tuple) -> str:
        """`(text, pictures)` for a question, `text` for an answer; gives the next answer."""
        text, pictures = self.prompt(*turns)
        return self._generate(**self.processor(images=pictures or None, text=text, return_tensors="pt"))

    def of_ids(self, ids: list[int], pictures: list) -> str:
        """The answer to a prompt of the web UI, as its ids with placeholders, and the pictures that belong there."""
        ids = torch.tensor([ids])
        pixels = self.processor.preprocess_images([str(path) for path in pictures]) if pictures else None
        return self._generate(input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=pixels)

    def length(self, *turns: tuple) -> int:
        text, pictures = self.prompt(*turns)
        return len(self.processor(images=pictures or None, text=text)["input_ids"][0])

    def prompt(self, *turns: tuple) -> tuple[str, list[str]]:
        messages, images = [], []
        for turn in turns:
            text, pictures = turn if isinstance(turn, tuple) else (turn, [])
            content = [{"type": "image"} for _ in pictures] + [{"type": "text", "text": text}]
            messages.append({"role": "user" if isinstance(turn, tuple) else "assistant", "content": content})
            images += [str(picture) for picture in pictures]
        return self.processor.apply_chat_template(messages, add_generation_prompt=True), images

    def _generate(self, input_ids: torch.Tensor, **inputs) -> str:
        ban = {"suppress_tokens": self.banned} if self.banned else {}
        given = {"input_ids": input_ids, **inputs, "max_new_tokens": NUM_NEW, "repetition_penalty": 1.0, **ban}
        ids = self.model.generate(**given, do_sample=False)[0]
        new = ids[input_ids.shape[1] :] if len(ids) > input_ids.shape[1] else ids
        return self.processor.tokenizer.decode(new, skip_special_tokens=True)

    def check(self, reply: str, *turns: tuple) -> str:
        """The reply is the model's own, and right where one of `QUESTIONS` was asked."""
        assert same(reply, self(*turns)), "the model's answer when asked without the web UI"
        asked = [turn for turn in turns if isinstance(turn, tuple)]
        right(reply, asked[-1][0], [picture for _, pictures in asked for picture in pictures])
        return reply


def right_answer(text: str, pictures: list) -> str:
    """To one of `QUESTIONS`, about these pictures."""
    return answer(QUESTIONS[text], [Scene(SCENES[Path(picture).stem]) for picture in pictures], "en")


def right(reply: str, text: str, pictures: list) -> None:
    """The answer is right, if one of `QUESTIONS` was asked about these pictures."""
    if text in QUESTIONS:
        assert reply.strip() == right_answer(text, pictures)


def same(reply: str, expected: str) -> bool:
    """Equal but for white space, which the web UI decodes piece by piece."""
    return "".join(reply.split()) == "".join(expected.split())


def keys(prompt: str) -> list[str]:
    """The pictures that a prompt of the web UI marks."""
    return re.findall(r"<__vcla:([0-9a-f]{32}):\d+x\d+__>", prompt)


def key(picture: Path) -> str:
    """What a picture of the chat is called in a mark."""
    return hashlib.sha256(data_uri(picture).encode()).hexdigest()[:32]


def data_uri(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


@pytest.fixture(scope="session")
def model_folder():
    """`VCLA_MODEL`, else the demonstration model."""
    return Path(os.environ.get("VCLA_MODEL", ROOT / "demo" / "model")).resolve()


@pytest.fixture(scope="session")
def oracle(model_folder):
    return Oracle(model_folder)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """The pictures of `SCENES`."""
    folder = tmp_path_factory.mktemp("pictures")
    for name, things in SCENES.items():
        draw(Scene(things), random.Random(name), (160, 128) if name == "two" else (128, 128)).save(folder / f"{name}.png")
    return [folder / f"{name}.png" for name in SCENES]


@pytest.fixture(scope="session")
def settings(oracle):
    """Greedy and short, so that replies can be compared."""
    return {
        "do_sample": False,
        "preset": "Deterministic",
        "max_new_tokens": NUM_NEW,
        "auto_max_new_tokens": False,
        "custom_token_bans": ",".join(map(str, oracle.banned)),
        "multimodal_vcla-language": "en",
    }


@pytest.fixture(scope="module")
def server(tmp_path_factory, model_folder, settings):
    from .driver import Server

    with Server(tmp_path_factory.mktemp("server"), model_folder, settings, ("--cpu",)) as server:
        yield server


@pytest.fixture(scope="session")
def playwright():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="module")
def chrome(playwright):
    from .driver import browser

    with browser(playwright) as chrome:
        yield chrome


@pytest.fixture(scope="module")
def window(chrome, server):
    from .driver import Page

    window = Page(chrome, server.url)
    yield window
    window.page.context.close()


@pytest.fixture
def page(window):
    """A new chat, always in the same window: drawing the whole interface takes longer than anything else here."""
    window.new_chat()
    return window


@pytest.fixture(scope="session")
def elsewhere(pictures):
    """The address of a proxy behind which lies a public host, so that the web UI's guard lets its addresses pass: every
    path gives the picture of that name, `/inside` leads to an address that is not public."""
    files = {f"/{path.name}": path.read_bytes() for path in pictures}

    class Proxy(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            path = "/" + self.path.rpartition("/")[2]
            self.send_response(302 if path == "/inside" else 200 if path in files else 404)
            if path == "/inside":
                self.send_header("Location", "http://127.0.0.1/one.png")
            self.send_header("Content-Length", str(len(files.get(path, b""))))
            self.end_headers()
            self.wfile.write(files.get(path, b""))

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
