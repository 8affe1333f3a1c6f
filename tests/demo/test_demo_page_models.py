"""Models beside each other on the page: what the doctor says of each, and what becomes of the chat when another one answers."""

import shutil
import threading

import pytest
import torch
from chat_page_driver import EXAMPLES, PATIENCE_MS, TINY_MODEL, Tab, chromium, served
from transformers import GenerationConfig

from demo import page
from demo.card import Card
from demo.models import Models
from demo.session import Session, SharedModel, Turn
from pipelines import load_model
from pipelines.generation import ChatModel

GREEDY = GenerationConfig(do_sample=False, max_new_tokens=8, min_new_tokens=4)


@pytest.fixture
def broken(tmp_path):
    """A folder without its weights."""
    return shutil.copytree(TINY_MODEL, tmp_path / "broken", ignore=shutil.ignore_patterns("*.bin", "*.safetensors"))


@pytest.fixture
def models(broken):
    def offer(name, folder, **knows):
        load = lambda: ChatModel(*load_model(folder, dtype=torch.float32))  # noqa: E731
        return SharedModel(load, name, lambda _: GREEDY, Card(knows), folder)

    one, other = offer("one", TINY_MODEL, en="Knows <one> thing."), offer("other", TINY_MODEL, en="Knows another thing.")
    return Models([one, other, offer("broken", broken)])


def test_one_at_a_time_is_loaded(models):
    one, other, _ = models
    first = models.load(one)
    assert models.load(one) is first and models[""] is one and models["no such"] is one
    models.load(other)
    assert (one.is_loaded, other.is_loaded) == (False, True) and models["no such"] is other and models["one"] is one


def test_doctor_says_what_can_be_chosen(models, monkeypatch):
    one, other, broken = models
    assert models.offer(other, "en") == ("is being looked at…", True)
    models.load(one)
    models.examine(32, "cpu")
    assert models.wait_for_news(2) == models.wait_for_news(3) == 3
    line, is_refused = models.offer(other, "en")
    assert line.startswith("VisualCLA: CLIP") and "MiB in 32 bits" in line and not is_refused
    line, is_refused = models.offer(broken, "zh")
    assert line == f"不能选用：{str(broken.folder)!r} 里有 config.json，但没有权重，请重新复制" and is_refused
    assert models.usable("broken") is one and models.usable("other") is other
    monkeypatch.setattr("pipelines.memory.available_bytes", lambda device: 0)
    assert not models.offer(one, "en")[1]  # it is there
    assert not models.offer(other, "en")[1]  # the one that is there makes room
    monkeypatch.setattr(
        "pipelines.memory.available_bytes", lambda device: -models._reports["one"].memory[32]["needed_gib"] * 0.4 * 2**30
    )
    line, is_refused = models.offer(other, "en")
    assert line.startswith("cannot be chosen: too large. VisualCLA") and "--dtype bfloat16" in line and is_refused


def test_folders_beside_each_other_are_offered(tmp_path, monkeypatch, capsys):
    for name in ("b", "a", ".hidden"):
        (tmp_path / name).mkdir()
    offered = []
    monkeypatch.setattr(page, "_serve", lambda args, name, own: offered.append(page._models(args, name)) or 0)
    assert page.main(["--model", str(tmp_path / "b"), "--models", str(tmp_path)]) == 0
    models, num_at_once = offered.pop()
    assert [(model.name, model.folder) for model in models] == [
        ("b", tmp_path / "b"),
        ("a", tmp_path / "a"),
    ] and num_at_once == 1
    for flags in (["--models", str(tmp_path / "c")], ["--models", str(tmp_path), "--server", "http://127.0.0.1:1"]):
        with pytest.raises(SystemExit) as error:
            page.main(flags)
        assert error.value.code == 2 and capsys.readouterr().err.count("\n") == 1
    assert offered == []


def test_another_model_knows_nothing_of_the_old_context():
    session = Session(turns=[Turn("What?", answer="This.", seen=object(), model="one")])
    session.use("other")
    assert session.seen is None and session.turns[0].answer == "This."


@pytest.mark.browser
@pytest.mark.filterwarnings("ignore::DeprecationWarning:gradio")
def test_another_model_is_chosen_and_the_chat_goes_on(models, tmp_path, monkeypatch):
    from demo.ui import ChatPage

    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    with chromium() as browser, served(ChatPage(models, tmp_path)) as address:
        tab = Tab(browser.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce"), address)
        assert tab.page.locator("#knows").inner_text() == "Knows <one> thing."
        said = tab.ask("What is here?", EXAMPLES / "four-shapes.png")
        tab.page.locator("#models button").first.click()
        tab.page.locator("#offers", has_text="is being looked at").wait_for()
        examining = threading.Thread(target=models.examine, args=[32, "cpu"])
        examining.start()
        tab.page.locator("#offers label", has_text="but no weights. Copy them again.").wait_for()
        examining.join(PATIENCE_MS / 1000)
        assert tab.page.locator("#offers input[value=broken]").is_disabled()
        tab.page.locator("#offers input[value=other]").check()
        tab.page.locator("#context", has_text="other · ready").wait_for()
        assert tab.page.locator("#knows").inner_text() == "Knows another thing."
        assert tab.page.locator("#models button").first.inner_text().startswith("Model: other")
        assert [model.is_loaded for model in models] == [False, True, False]
        assert tab.last_answer() == said and tab.page.locator("#chat figure").count() == 1
        assert tab.ask("And now?").startswith("other\n")
        tab.page.locator("#looks figure").wait_for()  # of the picture that was shown to the other model
        tab.answers().first.click()
        tab.wait_until(lambda: tab.page.locator("#looks figcaption").count() == 1)  # kept from then
        tab.reload()
        tab.page.locator("#context", has_text="other · in the context").wait_for()
        tab.answers().first.click()
        tab.page.locator("#note", has_text="one gave this answer.").wait_for()
        assert tab.errors == []
