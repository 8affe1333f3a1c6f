"""The chat page with the shipped model, served by the command that a user types: it answers rightly about the world.

All scenes are held out: the model has never seen a picture of them.
"""

import random
import re
import subprocess
import sys

import pytest
from chat_page_driver import EXAMPLES, ROOT, Tab, camera_flags, chromium, free_port
from PIL import Image

from demo.texts import TEXTS
from demo.world import Question, Scene, Thing, answer, draw, split_of

pytestmark = pytest.mark.browser

TWO_THINGS = Scene((Thing("green", "circle", "left", "large"), Thing("blue", "square", "right", "large")))
ONE_THING = Scene((Thing("orange", "star", "centre", "large"),))
EXAMPLE_SCENES = (
    Scene(
        (
            Thing("yellow", "circle", "top left"),
            Thing("green", "star", "top right"),
            Thing("black", "square", "bottom left"),
            Thing("blue", "ring", "bottom right"),
        )
    ),
    Scene((Thing("red", "ring", "top"), Thing("blue", "star", "centre"))),
    Scene((Thing("blue", "cross", "left"), Thing("green", "cross", "right"), Thing("yellow", "triangle", "bottom"))),
)


def told(*scenes: Scene, kind: str = "describe", language: str = "en", **asked) -> str:
    """What the world's grammar answers; `asked` are the fields of `Question`."""
    return answer(Question(kind, **asked), scenes, language)


def test_scenes_of_this_file_are_held_out():
    assert {split_of(scene) for scene in (TWO_THINGS, ONE_THING, *EXAMPLE_SCENES)} == {"held_out"}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Files of the two scenes, and a camera's film of the first."""
    folder = tmp_path_factory.mktemp("pictures")
    for name, scene in (("two", TWO_THINGS), ("one", ONE_THING)):
        draw(scene, random.Random(name), (480, 480)).save(folder / f"{name}.png")
    Image.open(folder / "two.png").save(folder / "frame.jpg", quality=95)
    (folder / "camera.mjpeg").write_bytes((folder / "frame.jpg").read_bytes() * 5)
    return folder


@pytest.fixture(scope="module")
def browser(pictures):
    with chromium(*camera_flags(pictures / "camera.mjpeg")) as browser:
        yield browser


@pytest.fixture(scope="module")
def address(browser):
    """Of `python -m demo page`, read from the line that it prints."""
    command = [sys.executable, "-m", "demo", "page", "--no-browser", "--only_cpu", "--port", str(free_port())]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        line = server.stdout.readline()
        yield re.search(r"http://127\.0\.0\.1:\d+/", line)[0]
        server.terminate()


@pytest.fixture(scope="module")
def kept(browser, address):
    return Tab(browser.new_context(permissions=["camera"]), address)


@pytest.fixture
def tab(kept):
    kept.clear()
    return kept


@pytest.fixture(scope="module")
def stranger(browser, address):
    """A tab of somebody else, whose browser is Chinese."""
    return Tab(browser.new_context(locale="zh-CN"), address)


def test_second_picture_joins_the_first_and_each_is_answered_about(tab, pictures):
    both = TWO_THINGS, ONE_THING
    assert tab.ask("Describe the picture.", pictures / "two.png") == told(TWO_THINGS)
    assert tab.ask("Describe the second picture.", pictures / "one.png") == told(*both, picture=1)
    assert tab.ask("Describe the first picture.") == told(*both, picture=0)
    assert tab.ask("Which picture shows the star?") == told(*both, kind="which", shape="star")
    assert re.search(r"pictures 1, 2 \(\d+ tokens\)", tab.context())


def test_edited_question_and_regenerated_answer_are_about_the_same_picture(tab, pictures):
    tab.page.locator("#settings").get_by_text("Settings").click()
    longest = tab.page.get_by_label("number input for Longest answer, in tokens")
    longest.fill("1")
    cut = tab.ask("Describe the picture.", pictures / "one.png")
    assert cut != told(ONE_THING) and told(ONE_THING).startswith(cut)
    longest.fill("512")
    tab.press("Retry")
    tab.wait_until(lambda: tab.last_answer() == told(ONE_THING))
    tab.wait()
    tab.edit("What colour is the star?")
    tab.wait_until(lambda: tab.last_answer() == told(ONE_THING, kind="colour", shape="star"))


def test_camera_shows_the_world_as_it_is(tab):
    tab.take_picture()
    assert tab.ask("Describe the picture.") == told(TWO_THINGS)


def test_two_browsers_are_answered_about_their_own_pictures(tab, stranger, pictures):
    stranger.clear()
    tab.attach(pictures / "two.png")
    stranger.attach(pictures / "one.png")
    tab.send("Describe the picture.")
    stranger.send("请描述图片。")
    for asking, right in ((tab, told(TWO_THINGS)), (stranger, told(ONE_THING, language="zh"))):
        asking.wait_until(lambda: asking.answers().count() == 1)  # noqa: B023
        assert asking.wait() == right


@pytest.mark.parametrize("language", TEXTS)
@pytest.mark.parametrize("number", range(len(EXAMPLE_SCENES)))
def test_example_is_answered_rightly(tab, stranger, language, number):
    asking = {"en": tab, "zh": stranger}[language]
    asking.clear()
    asking.page.locator("#chat button.example").nth(number).click()
    asking.wait_until(lambda: asking.answers().count() == 1)
    assert asking.wait() == told(EXAMPLE_SCENES[number], language=language)


def test_saved_chat_holds_picture_question_and_answer(tab, browser, tmp_path):
    tab.ask("Describe the picture.", EXAMPLES / "star-and-ring.png")
    with tab.page.expect_download() as download:
        tab.page.locator("#save").click()
    download.value.save_as(tmp_path / "chat.html")
    page = browser.new_context(offline=True).new_page()
    page.goto((tmp_path / "chat.html").as_uri())
    turns = [text.split("\n\n") for text in page.locator("article").all_inner_texts()]
    assert turns == [["Picture 1", "Describe the picture."], [told(EXAMPLE_SCENES[1])]]
    assert page.evaluate("document.querySelector('img').naturalWidth") == 192
