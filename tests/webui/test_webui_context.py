"""What reaches the model: lengths, full contexts, modes other than instruct, the notebook, the camera. A witness behind the
plugin writes down every prompt."""

import base64
import json
import re

import pytest
from PIL import Image

from .conftest import NUM_NEW, RING, STAR, TOP_LEFT, key, keys, right, right_answer, same
from .driver import Page, browser

pytestmark = pytest.mark.browser
TRUNCATION = "Truncate the prompt up to this length"


def begins(reply: str, expected: str) -> bool:
    """The web UI cuts a reply at the name of the next speaker."""
    return "".join(expected.split()).startswith("".join(reply.split()))


@pytest.fixture
def truncated(page, oracle):
    """Sets the length of the context; afterwards it is what it was."""
    yield lambda length: page.parameter(TRUNCATION, length)
    page.parameter(TRUNCATION, 2048)


def test_old_pictures_go_with_their_messages(page, server, oracle, pictures, truncated):
    """Six turns with a picture each in a context that holds two of them."""
    first = oracle.length((TOP_LEFT, pictures[:1]))
    said = right_answer(TOP_LEFT, pictures[:1])
    per_turn = oracle.length((TOP_LEFT, pictures[:1]), said, (TOP_LEFT, pictures[:1])) - first
    room = first + int(1.8 * per_turn) + NUM_NEW
    truncated(room)
    page.new_chat()
    for number, picture in enumerate(pictures):
        reply = page.send(TOP_LEFT, picture)
        seen = server.prompts[-1]
        held = keys(seen["prompt"])
        expected = [key(path) for path in pictures[: number + 1]]
        assert held == expected[len(expected) - len(held) :] and 1 <= len(held) <= 3
        assert len(seen["ids"]) + NUM_NEW <= room
        assert same(reply, oracle.of_ids(seen["ids"], pictures[number + 1 - len(held) : number + 1]))
        right(reply, TOP_LEFT, [picture])
    assert len(held) < number, "the first ones are gone"
    page.panel_says("dropped with its message", f"In context: {len(held)} picture")


def test_a_question_that_is_too_long_is_cut_and_keeps_its_picture(page, server, oracle, pictures, truncated):
    room = oracle.length((TOP_LEFT, pictures[:1])) + 20 + NUM_NEW
    truncated(room)
    page.new_chat()
    reply = page.send(TOP_LEFT + " And more?" * 60, pictures[1])
    seen = server.prompts[-1]
    assert keys(seen["prompt"]) == [key(pictures[1])] and len(seen["ids"]) + NUM_NEW <= room
    assert TOP_LEFT in seen["prompt"] and seen["prompt"].count("And more?") < 60
    assert same(reply, oracle.of_ids(seen["ids"], pictures[1:2]))


def test_a_picture_that_does_not_fit_is_refused_in_words(page, server, oracle, pictures, truncated):
    truncated(oracle.length((TOP_LEFT, [])) + NUM_NEW + 4)
    page.new_chat()
    count = len(server.prompts)
    assert not page.send(TOP_LEFT, pictures[0])
    assert any("one.png does not fit" in toast for toast in page.toasts()) and len(server.prompts) == count


def test_tokens_are_counted_with_the_pictures(page, server, pictures):
    """Never too few; too many by the blank line at most that the web UI writes after pictures and the prompt does not hold."""
    page.attach(*pictures[:2])
    page.page.fill("#chat-input textarea", RING)
    page.page.get_by_role("button", name="Count tokens").click()
    page.page.wait_for_function("() => document.querySelector('.token-display')?.innerText.includes('tokens')")
    page.settle()
    counted = page.page.inner_text(".token-display")
    with page.reply():
        page.page.click("#Generate")
    num_tokens = int(re.search(r"([\d,]+) / ", counted)[1].replace(",", ""))
    assert 0 <= num_tokens - len(server.prompts[-1]["ids"]) <= 2


@pytest.mark.parametrize("mode", ["chat", "chat-instruct"])
def test_other_modes_see_the_pictures(page, server, oracle, pictures, mode):
    one, two, *_ = pictures
    page.mode(mode)
    page.new_chat()
    try:
        for text, attached, held in [(TOP_LEFT, [one], [one]), (STAR, [], [one]), (TOP_LEFT, [two], [one, two])]:
            reply = page.send(text, *attached)
            seen = server.prompts[-1]
            assert keys(seen["prompt"]) == [key(path) for path in held] and "You: " in seen["prompt"]
            assert begins(reply, oracle.of_ids(seen["ids"], held))
        with page.reply():
            page.menu("Regenerate")
        assert keys(server.prompts[-1]["prompt"]) == [key(one), key(two)]
    finally:
        page.mode("instruct")


def test_impersonate_sees_the_pictures(page, server, oracle, pictures):
    page.send(TOP_LEFT, pictures[0])
    with page.reply():
        page.menu("Impersonate")
    seen = server.prompts[-1]
    written = page.page.input_value("#chat-input textarea")
    assert page.toasts() == [] and seen["has_embeds"] and begins(written, oracle.of_ids(seen["ids"], pictures[:1]))
    page.page.fill("#chat-input textarea", "")


def test_the_notebook_sees_the_pictures_of_the_chat(page, server, oracle, pictures):
    page.send(TOP_LEFT, pictures[0])
    page.send(TOP_LEFT, pictures[1])
    count = len(server.prompts)
    page.menu("Send to Notebook")
    box = page.page.locator("#textbox-notebook textarea")
    page.wait_until(lambda: TOP_LEFT in box.input_value())
    page.tab("Notebook")
    text = box.input_value()
    assert keys(text) == [key(path) for path in pictures[:2]]
    asked = text.index(TOP_LEFT, text.rindex(keys(text)[1])) + len(TOP_LEFT)
    box.fill(text[:asked] + "\n\n### Response:")
    page.settle()
    page.page.locator("button:visible", has_text=re.compile(r"^\s*Generate\s*$")).first.dispatch_event("click")
    page.wait_until(lambda: len(server.prompts) > count and server.log.count("Output generated") >= len(server.prompts))
    page.settle()
    seen = server.prompts[-1]
    assert keys(seen["prompt"]) == [key(path) for path in pictures[:2]] and seen["has_embeds"]
    reply = box.input_value().rpartition("### Response:")[2]
    assert same(reply, oracle.of_ids(seen["ids"], pictures[:2]))
    right(reply, TOP_LEFT, pictures[1:2])
    page.tab("Chat")


def test_the_camera_hands_its_picture_to_the_message(server, playwright, oracle, pictures, tmp_path):
    image = Image.open(pictures[0]).convert("RGB").resize((320, 240))
    luma, *chroma = image.convert("YCbCr").split()
    planes = [luma.point(lambda value: 16 + value * 219 // 255)]  # cameras do not use the whole range
    planes += [plane.resize((160, 120)).point(lambda value: 128 + (value - 128) * 224 // 255) for plane in chroma]
    frame = b"FRAME\n" + b"".join(plane.tobytes() for plane in planes)
    camera = tmp_path / "camera.y4m"
    camera.write_bytes(b"YUV4MPEG2 W320 H240 F10:1 Ip A1:1 C420jpeg\n" + frame * 20)
    with browser(playwright, camera) as chrome:
        page = Page(chrome, server.url)
        page.new_chat()
        page.page.click("#multimodal_vcla_snap")
        page.page.wait_for_selector("#multimodal_vcla_webcam.vcla-over")
        box = page.page.locator("#multimodal_vcla_camera")
        shows = "document.querySelector('#multimodal_vcla_camera video')?.videoWidth > 0"
        page.page.wait_for_function(shows)
        page.page.evaluate("window.track = document.querySelector('#multimodal_vcla_camera video').srcObject.getTracks()[0]")
        page.page.keyboard.press("Escape")
        page.page.wait_for_function("window.track.readyState === 'ended'")  # nobody is looked at unseen
        page.page.click("#multimodal_vcla_snap")
        page.page.wait_for_function(shows)
        box.get_by_label("capture photo").click()
        box.locator("img").wait_for()
        page.settle()
        page.page.click("#multimodal_vcla_take")
        page.page.wait_for_selector("#chat-input .thumbnail-item")
        page.page.wait_for_selector("#multimodal_vcla_webcam:not(.vcla-over)", state="attached")
        page.wait_until(lambda: not box.locator("img").count())  # the camera is free again
        reply = page.send(TOP_LEFT)
        assert page.page.locator("#chat-input .thumbnail-item").count() == 0
        saved = json.loads(max((server.user_data / "logs").rglob("*.json"), key=lambda path: path.stat().st_mtime).read_text())
        (attachment,) = saved["metadata"]["user_0"]["attachments"]
        assert attachment["name"] == "webcam.png" and attachment["image_data"].startswith("data:image/png;base64,")
        (tmp_path / "webcam.png").write_bytes(base64.b64decode(attachment["image_data"].partition(",")[2]))
        taken = Image.open(tmp_path / "webcam.png").convert("RGB")
        pairs = zip(taken.resize((32, 24)).tobytes(), image.resize((32, 24)).tobytes(), strict=True)
        assert taken.width > taken.height and sum(abs(a - b) for a, b in pairs) / (32 * 24 * 3) < 12, "not mirrored"
        assert same(reply, oracle((TOP_LEFT, [tmp_path / "webcam.png"])))
        right(reply, TOP_LEFT, pictures[:1])
