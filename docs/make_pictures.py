"""Draws docs/page.png anew, with the model that comes with the project (needs Chromium):

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

PAGE = Path(__file__).with_name("page.png")


def main() -> None:
    greedy = GenerationConfig(do_sample=False, max_new_tokens=512)
    card = read_card(SHIPPED_MODEL)
    shared = SharedModel(lambda: ChatModel(*load_model(SHIPPED_MODEL)), "demo model", lambda _: greedy, card)
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        os.environ["GRADIO_TEMP_DIR"] = folder
        page = ChatPage(Models([shared]), Path(folder))
        with served(page) as address:
            tab = Tab(browser.new_context(viewport={"width": 1280, "height": 1070}, reduced_motion="reduce"), address)
            tab.ask("Where is the green star?", EXAMPLES / "four-shapes.png")
            tab.ask("Which picture shows the red ring?", EXAMPLES / "star-and-ring.png")
            tab.page.locator("#looks figure").nth(1).wait_for()
            tab.page.locator("#looks label").nth(1).hover()
            tab.page.screenshot(path=PAGE)


if __name__ == "__main__":
    main()
