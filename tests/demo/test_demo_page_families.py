"""Every family on the page, in a browser: a picture a turn, the answers those of the model itself."""

import sys

import pytest
import torch
from chat_page_driver import EXAMPLES, ROOT, Tab, chromium, served
from transformers import GenerationConfig

from pipelines import load_model
from pipelines.base import ImagePart
from pipelines.generation import ChatModel, message
from pipelines.images import load_image

sys.path.append(str(ROOT / "tests/families"))
from contract import CASES

pytestmark = [pytest.mark.browser, pytest.mark.filterwarnings("ignore::DeprecationWarning:gradio")]

PICTURES = [EXAMPLES / "four-shapes.png", EXAMPLES / "star-and-ring.png"]
GREEDY = GenerationConfig(do_sample=False, max_new_tokens=6, min_new_tokens=6)


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_family_sees_on_the_page(case, browser, tmp_path, monkeypatch):
    import demo.answering
    from demo.models import Models
    from demo.session import SharedModel
    from demo.ui import ChatPage

    chat = ChatModel(*load_model(case.path, **case.bases, dtype=torch.float32))
    sessions = []
    answer = demo.answering.answer
    monkeypatch.setattr(
        demo.answering, "answer", lambda model, session, config: sessions.append(session) or answer(model, session, config)
    )
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    with served(ChatPage(Models([SharedModel(lambda: chat, case.name, lambda _: GREEDY)]), tmp_path)) as address:
        tab = Tab(browser.new_context(), address)
        for number, picture in enumerate(PICTURES, start=1):
            tab.ask(f"What is in picture {number}?", picture)
        assert tab.page.locator("#chat figure").count() == 2 and tab.errors == []
        tab.page.close()

    alone = ChatModel(*load_model(case.path, **case.bases, dtype=torch.float32))
    messages, parts = [], []
    for number, (picture, turn) in enumerate(zip(PICTURES, sessions[-1].turns, strict=True), start=1):
        messages.append(message("user", f"What is in picture {number}?", 1))
        parts.append(ImagePart.of(load_image(picture, background="white")))
        assert turn.error == "" and turn.answer == alone.answer(messages, parts, GREEDY)
        messages.append(message("assistant", turn.answer))
