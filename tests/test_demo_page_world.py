"""The chat page with the shipped model, served by the command that a user types: it describes pictures of the world rightly."""

import random
import re
import subprocess
import sys

import pytest
from chat_page_driver import ROOT, Tab, camera_flags, chromium, free_port
from PIL import Image

from demo.world import Scene, Thing, draw

pytestmark = pytest.mark.browser

CIRCLE = Scene((Thing("red", "circle", "left", "large"), Thing("blue", "square", "right", "large")))
STAR = Scene((Thing("green", "star", "centre", "large"),))


@pytest.fixture(scope="module")
def address():
    """Of `python -m demo page`, read from the line that it prints."""
    command = [sys.executable, "-m", "demo", "page", "--no-browser", "--only_cpu", "--port", str(free_port())]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        line = server.stdout.readline()
        yield re.search(r"http://127\.0\.0\.1:\d+/", line)[0]
        server.terminate()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Files of the two scenes, and a camera's film of the first."""
    folder = tmp_path_factory.mktemp("pictures")
    for name, scene in (("circle", CIRCLE), ("star", STAR)):
        draw(scene, random.Random(name), (480, 480)).save(folder / f"{name}.png")
    Image.open(folder / "circle.png").save(folder / "frame.jpg", quality=95)
    (folder / "camera.mjpeg").write_bytes((folder / "frame.jpg").read_bytes() * 5)
    return folder


@pytest.fixture(scope="module")
def tab(address, pictures):
    with chromium(*camera_flags(pictures / "camera.mjpeg")) as browser:
        yield Tab(browser.new_context(permissions=["camera"]), address)


def test_uploaded_picture_is_described_and_the_first_one_stays_in_the_context(tab, pictures):
    assert tab.ask("Describe the picture.", pictures / "circle.png") == "Left: red circle; right: blue square."
    tab.ask("Describe the second picture.", pictures / "star.png")
    assert re.search(r"pictures 1, 2 \(16 tokens each\)", tab.context())
    tab.ask("What does the first picture show?")
    assert re.search(r"pictures 1, 2 \(16 tokens each\)", tab.context())


def test_edited_question_and_regenerated_answer_are_about_the_same_picture(tab, pictures):
    tab.clear()
    tab.ask("Describe the picture.", pictures / "star.png")
    tab.press("Retry")
    tab.wait_until(lambda: tab.last_answer() == "Centre: green star.")
    tab.wait()
    tab.edit("请描述图片。")
    tab.wait_until(lambda: tab.last_answer() == "中间：绿色星形。")


def test_camera_shows_the_world_as_it_is(tab):
    tab.clear()
    tab.take_picture()
    assert tab.ask("Describe the picture.") == "Left: red circle; right: blue square."


def test_example_picture_is_described(tab):
    tab.clear()
    tab.page.get_by_text("Describe the picture.").first.click()
    right = "Top left: yellow circle; top right: green star; bottom left: black square; bottom right: blue ring."
    tab.wait_until(lambda: tab.answers().count() == 1 and tab.last_answer() == right)
