"""What a browser keeps of the chats: they survive a reload and a restart of the server, and there may be several."""

import re
from pathlib import Path

import pytest
import torch
from chat_page_driver import EXAMPLES, TINY_MODEL, Tab, chromium, served
from PIL import Image
from transformers import GenerationConfig

from demo.kept import revive, snapshot
from demo.session import Picture, Session, Turn
from pipelines import load_model
from pipelines.generation import ChatModel

gradio_warnings = pytest.mark.filterwarnings("ignore::DeprecationWarning:gradio")
GREEDY = GenerationConfig(do_sample=False, max_new_tokens=8, min_new_tokens=4)


# How many messages with pictures that were not sent yet the browser keeps.
DRAFTED = """() => new Promise(found => {
    indexedDB.open("multimodal-vcla").onsuccess = ({target: {result: base}}) => {
        base.transaction("pictures").objectStore("pictures").getAllKeys().onsuccess = ({target: {result: keys}}) => {
            base.close();
            found(keys.filter(key => key.startsWith("draft")).length);
        };
    };
})"""


@pytest.fixture(scope="module")
def tiny():
    return ChatModel(*load_model(TINY_MODEL, dtype=torch.float32))


@pytest.fixture(scope="module")
def new_page(tiny, tmp_path_factory):
    """Makes a page with files of its own, as a server that has just begun; `sessions` are of whoever asked."""
    from demo.models import Models
    from demo.session import SharedModel
    from demo.ui import ChatPage

    with pytest.MonkeyPatch.context() as patch:

        def make() -> ChatPage:
            folder = tmp_path_factory.mktemp("page")
            patch.setenv("GRADIO_TEMP_DIR", str(folder))
            return ChatPage(Models([SharedModel(lambda: tiny, "tiny", lambda _: GREEDY)]), folder)

        yield make


@pytest.fixture
def large(tmp_path) -> Path:
    """A picture whose preview is smaller than itself."""
    Image.effect_noise((1500, 900), 80).convert("RGB").save(tmp_path / "large.png")
    return tmp_path / "large.png"


@pytest.mark.browser
@gradio_warnings
def test_chats_survive_a_reload_and_a_restart_of_the_server(new_page, large, monkeypatch):
    import demo.answering

    sessions = []
    answer = demo.answering.answer
    monkeypatch.setattr(
        "demo.answering.answer", lambda model, session, config: sessions.append(session) or answer(model, session, config)
    )
    with chromium() as browser:
        context = browser.new_context(viewport={"width": 1280, "height": 800}, reduced_motion="reduce")
        with served(new_page()) as address:
            tab = Tab(context, address)
            tab.page.locator("#camera").get_by_text("Camera").click()
            tab.page.get_by_text("Turn the camera on").click()  # this browser has none
            tab.page.locator("#said", has_text="There is no camera").wait_for()
            tab.errors.clear()  # the browser's own word for it
            said = tab.ask("What is here?", EXAMPLES / "four-shapes.png", large)
            keys = [picture.part.key for picture in sessions[-1].turns[0].pictures]
            choice = tab.page.locator("#chats select")
            tab.wait_until(lambda: choice.locator("option").all_inner_texts() == ["＋ New chat", "What is here?"])
            tab.page.get_by_text("中文").click()
            tab.page.get_by_placeholder("请就图片提问").wait_for()

            tab.reload()
            tab.page.get_by_placeholder("请就图片提问").wait_for()
            tab.wait_until(lambda: tab.answers().count() == 1)
            assert tab.last_answer() == said and tab.page.locator("#chat figure").count() == 2
            tab.wait_until(lambda: tab.page.locator("#looks figure").count() == 2)  # found again
            assert re.search("图片 1、2（占 10 个词元）", tab.context())
            more = tab.ask("And?")
            assert [picture.part.key for picture in sessions[-1].turns[0].pictures] == keys

            choice.select_option("")
            tab.wait_until(lambda: tab.answers().count() == 0)
            tab.ask("Another?")
            tab.wait_until(lambda: choice.locator("option").count() == 3)
            choice.select_option(label="What is here?")
            tab.wait_until(lambda: tab.answers().count() == 2)
            assert tab.last_answer() == more
            tab.box.fill("Not sent yet")
            tab.attach(large)
            tab.wait_until(lambda: tab.page.evaluate(DRAFTED) == 1)
        tab.page.locator("#said", has_text="没有响应").wait_for()
        port = int(address.rstrip("/").rpartition(":")[2])
        monkeypatch.setattr("chat_page_driver.free_port", lambda: port)
        with served(new_page()):
            tab.page.locator("#said", has_text="重新启动过").wait_for()
            tab.wait_until(lambda: tab.answers().count() == 2)
            tab.wait_until(lambda: tab.last_answer() == more and tab.box.input_value() == "Not sent yet")
            tab.wait_until(lambda: tab.attached() == 1)
            tab.ask("And now?")
            asked = sessions[-1].turns
            assert [picture.part.key for picture in asked[0].pictures] == keys
            assert [picture.part.key for picture in asked[-1].pictures] == keys[1:]
            tab.wait_until(lambda: tab.page.evaluate(DRAFTED) == 0)
            tab.page.locator("#clear").click()
            tab.wait_until(lambda: choice.locator("option").count() == 2)
        assert tab.errors == []


@pytest.fixture
def picture(tmp_path):
    def make(size: tuple[int, int]) -> Picture:
        Image.effect_noise(size, 80).save(tmp_path / "one.png")
        return Picture.open(tmp_path / "one.png", tmp_path)

    return make


@pytest.mark.parametrize("size", [(30, 20), (1500, 20), (900, 800)])
def test_original_is_the_same_picture(picture, size, tmp_path):
    made = picture(size)
    assert Picture.open(made.original, tmp_path).part.key == made.part.key


def test_what_is_kept_comes_back(picture, tmp_path):
    session = Session(chat_id="one")
    session.ask("What?", [picture((30, 20)), picture((40, 20))])
    session.turns[-1].answer, session.turns[-1].is_done = "This.", True
    session.ask("And?", [picture((50, 20))])
    session.turns[-1].answer = "The beg"
    kept = snapshot(session, str)
    files = [each["url"] for turn in kept["turns"] for each in turn["pictures"]]
    turns = [{**turn, "pictures": len(turn["pictures"])} for turn in kept["turns"]]
    revived, num_lost = revive({"turns": turns}, files, lambda file: Picture.open(Path(file), tmp_path), "Interrupted.")
    assert num_lost == 0 and [(turn.question, turn.answer, turn.error) for turn in revived] == [
        ("What?", "This.", ""),
        ("And?", "The beg", "Interrupted."),
    ]
    assert [turn.pictures for turn in revived] == [turn.pictures for turn in session.turns]


def test_lost_pictures_are_counted_and_the_others_stay_where_they_were(picture, tmp_path):
    kept = {"turns": [Turn("One?", answer="1").__dict__ | {"pictures": 2}, Turn("Two?", answer="2").__dict__ | {"pictures": 2}]}
    (tmp_path / "no.png").write_text("no picture")
    files = [str(tmp_path / "no.png"), str(picture((30, 20)).original), str(picture((40, 20)).original)]
    turns, num_lost = revive({**kept, "missing": [0]}, files, lambda file: Picture.open(Path(file), tmp_path), "")
    assert num_lost == 2 and [[each.part.size for each in turn.pictures] for turn in turns] == [[], [(30, 20), (40, 20)]]
