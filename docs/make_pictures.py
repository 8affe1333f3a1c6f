"""Draws docs/page.png and docs/page_zh.png anew, with the model that comes with the project (needs Chromium and a Chinese font):

PYTHONPATH=.:tests python docs/make_pictures.py
"""

import os
import tempfile
from pathlib import Path

from chat_page_driver import EXAMPLES, SHIPPED_MODEL, Tab, chromium, served
from transformers import GenerationConfig

from demo.card import read_card
from demo.models import Models
from demo.session import SharedModel
from demo.ui import ChatPage
from pipelines import load_model
from pipelines.generation import ChatModel

PAGES = {
    "en-GB": ("page.png", "Which picture shows the red ring?"),
    "zh-CN": ("page_zh.png", "红色圆环在哪张图片里？"),
}
"""Language of the browser to the picture, and what is asked."""


def main() -> None:
    greedy = GenerationConfig(do_sample=False, max_new_tokens=512)
    card = read_card(SHIPPED_MODEL)
    shared = SharedModel(lambda: ChatModel(*load_model(SHIPPED_MODEL)), "demo model", lambda _: greedy, card)
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        os.environ["GRADIO_TEMP_DIR"] = folder
        page = ChatPage(Models([shared]), Path(folder))
        with served(page) as address:
            for locale, (picture, question) in PAGES.items():
                size = {"width": 1280, "height": 860}
                tab = Tab(browser.new_context(viewport=size, reduced_motion="reduce", locale=locale), address)
                tab.ask(question, EXAMPLES / "four-shapes.png", EXAMPLES / "star-and-ring.png")
                tab.page.locator("#looks figure").nth(1).wait_for()
                tab.page.locator("#looks label").nth(1).hover()
                tab.page.screenshot(path=Path(__file__).with_name(picture))


if __name__ == "__main__":
    main()
