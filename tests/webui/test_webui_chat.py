"""Pictures in the browser: every action of the chat, each reply compared with the model asked directly."""

import json
import re

import pytest
from PIL import Image

from .conftest import same
from .driver import Page, Server, browser

pytestmark = pytest.mark.browser
WHAT = "What is in this picture?"


@pytest.fixture(scope="module")
def chrome():
    with browser() as chrome:
        yield chrome


@pytest.fixture(scope="module")
def window(chrome, server):
    window = Page(chrome, server.url)
    yield window
    window.page.context.close()


@pytest.fixture
def page(window):
    """A new chat, always in the same window: drawing the whole interface takes longer than anything else here."""
    window.page.click("#new-chat-btn")
    window.page.wait_for_function("() => !document.querySelector('#chat [data-index]')")
    window.settle(1000)
    window.page.evaluate("__toasts.length = 0")
    return window


def test_one_picture_then_a_question_then_two_more(page, oracle, pictures):
    one, two, three = pictures
    first = page.send(WHAT, one)
    assert same(first, oracle((WHAT, [one])))
    turns = [(WHAT, [one]), first, ("And where?", [])]
    second = page.send("And where?")
    assert same(second, oracle(*turns))
    turns += [second, ("Which picture shows more?", [two, three])]
    assert same(page.send("Which picture shows more?", two, three), oracle(*turns))
    assert "In context: 3 pictures" in page.panel()


def test_every_action_keeps_the_right_pictures(page, oracle, pictures):
    one, two, _ = pictures
    first = page.send(WHAT, one)
    page.send("And this?", two)
    expected = oracle((WHAT, [one]), first, ("And this?", [two]))
    with page.reply():
        page.footer("refresh")
    assert same(page.last_reply(), expected), "regenerated"
    page.edit(1, "Where is it?")
    with page.reply():
        page.footer("refresh")
    edited = page.last_reply()
    assert same(edited, oracle((WHAT, [one]), first, ("Where is it?", [two]))), "edited"
    with page.reply():
        page.footer("continue")
    assert page.last_reply().startswith(edited.rstrip()), "continued"
    page.footer("branch", row=0)
    page.settle(2500)
    third = page.send("And now?", two)
    assert same(third, oracle((WHAT, [one]), first, ("And now?", [two]))), "branched"
    page.footer("remove")
    page.settle(1500)
    assert same(page.send("And now?"), oracle((WHAT, [one]), first, ("And now?", []))), "removed"
    page.load()
    page.settle(2000)
    reply = page.last_reply()
    assert [message["pictures"] for message in page.messages() if message["role"] == "user"] == [1, 0], "reloaded"
    turns = [(WHAT, [one]), first, ("And now?", []), reply, ("More?", [])]
    assert same(page.send("More?"), oracle(*turns)), "after a reload"


def test_a_message_that_is_only_a_picture(page, oracle, pictures):
    one = pictures[0]
    first = page.send("", one)
    assert same(first, oracle(("", [one])))
    assert [message["role"] for message in page.messages()] == ["user", "assistant"], "it is drawn"
    assert same(page.send("What was it?"), oracle(("", [one]), first, ("What was it?", [])))


def test_a_typed_marker_is_text(page, oracle, pictures):
    text = "What is <__media__> in this?"
    assert same(page.send(text, pictures[0]), oracle((text, [pictures[0]])))


def test_start_reply_with_keeps_the_picture(page, pictures):
    page.page.fill("#chat-controls textarea >> nth=0", "The picture shows")
    page.page.keyboard.press("Tab")
    page.settle()
    page.send(WHAT, pictures[0])
    assert [message["pictures"] for message in page.messages() if message["role"] == "user"] == [1]
    assert "In context: 1 pictures" in page.panel()
    with page.reply():
        page.footer("refresh")
    assert [message["pictures"] for message in page.messages() if message["role"] == "user"] == [1]
    page.page.fill("#chat-controls textarea >> nth=0", "")


def test_other_formats_are_taken(page, oracle, pictures, tmp_path):
    Image.open(pictures[0]).save(tmp_path / "one.tiff")
    assert same(page.send(WHAT, tmp_path / "one.tiff"), oracle((WHAT, [pictures[0]])))


def test_a_broken_picture_is_refused_in_words(page, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    page.attach(tmp_path / "broken.png")
    page.page.fill("#chat-input textarea", WHAT)
    with page.reply():
        page.page.click("#Generate")
    assert any("broken.png" in toast for toast in page.toasts())
    assert not page.last_reply()


def test_a_picture_left_out_in_the_panel_stays_out(page, oracle, pictures):
    one, two, _ = pictures
    first = page.send(WHAT, one, two)
    assert "In context: 2 pictures" in page.panel()
    page.page.locator("#multimodal_vcla_which input").nth(0).click()
    page.settle(1500)
    assert "left out" in page.panel() and "In context: 1 pictures" in page.panel()
    assert same(page.send("And now?"), oracle((WHAT, [two]), first, ("And now?", [])))


def test_impersonate_and_count_tokens_see_the_pictures(page, pictures):
    page.send(WHAT, pictures[0])
    with page.reply():
        page.menu("Impersonate")
    assert page.toasts() == []


def test_the_notebook_sees_the_pictures_of_the_chat(page, server, pictures):
    page.send(WHAT, pictures[0])
    page.menu("Send to Notebook")
    page.settle(2000)
    contexts = server.log.count("Output generated")
    page.page.locator("button:visible", has_text=re.compile("^Generate$")).first.dispatch_event("click")
    for _ in range(200):
        if server.log.count("Output generated") > contexts:
            break
        page.settle(500)
    line = server.log.split("Output generated")[-1]
    assert int(line.split("context ")[1].split(",")[0]) > 60, "the picture's tokens are in the prompt"


def test_old_pictures_go_with_their_messages_when_the_context_is_full(page, oracle, pictures, server):
    page.send(WHAT, pictures[0])
    page.tab("Parameters")
    field = page.page.locator("label:visible", has_text="Truncate the prompt up to this length").locator("input").first
    length = len(oracle.processor.tokenizer(oracle.processor.apply_chat_template([], add_generation_prompt=True))["input_ids"])
    field.fill(str(length + 2 * oracle.processor.num_image_embeds + 40))
    field.press("Enter")
    page.settle(1000)
    page.tab("Chat")
    page.send("This one? " * 6, pictures[1])
    shown = page.panel()
    assert "dropped with its message" in shown and "In context: 1 pictures" in shown


def test_two_browsers_with_different_pictures(server, oracle, pictures, chrome):
    one, two, _ = pictures
    pages = [Page(chrome, server.url) for _ in range(2)]
    for page in pages:
        page.page.click("#new-chat-btn")
        page.settle(2000)
    for page, picture in zip(pages, (one, two), strict=True):
        page.attach(picture)
        page.page.fill("#chat-input textarea", WHAT)
    ends = [page.page.evaluate("__ends") for page in pages]
    for page in pages:
        page.page.click("#Generate")
    for page, end, picture in zip(pages, ends, (one, two), strict=True):
        page.page.wait_for_function("end => __ends > end", arg=end)
        page.settle(1000)
        assert same(page.last_reply(), oracle((WHAT, [picture])))
        page.page.context.close()


def test_the_webcam_hands_its_picture_to_the_message(server, pictures, tmp_path):
    frames = tmp_path / "camera.mjpeg"
    image = Image.open(pictures[0]).convert("RGB").resize((320, 240))
    image.save(tmp_path / "frame.jpg", quality=95)
    frames.write_bytes((tmp_path / "frame.jpg").read_bytes() * 30)
    with browser(frames) as chrome:
        page = Page(chrome, server.url)
        page.page.click("#new-chat-btn")
        page.settle(1500)
        page.page.locator("#multimodal_vcla_webcam .label-wrap").click()
        page.settle(2000)
        camera = page.page.locator("#multimodal_vcla_camera")
        for _ in range(2):  # the first press switches the camera on
            if camera.locator("img").count():
                break
            camera.locator("button").first.click(force=True)
            page.settle(4000)
        page.page.click("#multimodal_vcla_take")
        page.page.wait_for_selector("#chat-input .thumbnail-item")
        assert page.send(WHAT)
        assert [message["pictures"] for message in page.messages() if message["role"] == "user"] == [1]
        assert page.page.locator("#chat-input .thumbnail-item").count() == 0
        saved = json.loads(max((server.user_data / "logs").rglob("*.json"), key=lambda path: path.stat().st_mtime).read_text())
        (attachment,) = saved["metadata"]["user_0"]["attachments"]
        import base64
        import io

        taken = Image.open(io.BytesIO(base64.b64decode(attachment["image_data"].split(",")[1]))).convert("RGB")
        difference = [
            abs(a - b) for a, b in zip(taken.resize((32, 24)).tobytes(), image.resize((32, 24)).tobytes(), strict=True)
        ]
        assert attachment["name"] == "webcam.png" and sum(difference) / len(difference) < 12, (
            "the world's picture, not mirrored"
        )


def test_the_interface_can_be_restarted(tmp_path, model_folder, settings, oracle, pictures, chrome):
    with Server(tmp_path, model_folder, settings, where="system", flags=["--multi-user"]) as server:
        page = Page(chrome, server.url)
        first = page.send(WHAT, pictures[0])
        assert same(first, oracle((WHAT, [pictures[0]])))
        page.tab("Session")
        page.page.get_by_role("button", name="Apply flags/extensions and restart").click()
        page.settle(15000)
        page.load()
        assert same(page.send(WHAT, pictures[1]), oracle((WHAT, [pictures[1]])))
        assert page.page.locator("#multimodal_vcla").count() == 1
        page.page.context.close()
