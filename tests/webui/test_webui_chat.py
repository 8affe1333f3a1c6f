"""Pictures in the browser: every action of the chat."""

import pytest
from PIL import Image

from .conftest import RING, STAR, TOP_LEFT, key, keys, right, right_answer, same
from .driver import Page

pytestmark = pytest.mark.browser


def shown(page) -> list[int]:
    """How many pictures each message of the user shows."""
    return [message["pictures"] for message in page.messages() if message["role"] == "user"]


def test_questions_about_pictures_over_turns(page, oracle, pictures):
    one, two, *_ = pictures
    turns = [(TOP_LEFT, [one])]
    turns.append(oracle.check(page.send(TOP_LEFT, one), *turns))
    turns.append((TOP_LEFT, [two]))
    turns.append(oracle.check(page.send(TOP_LEFT, two), *turns))
    turns.append((RING, []))
    oracle.check(page.send(RING), *turns)
    page.panel_says("In context: 2 pictures")


def test_two_pictures_in_one_message(page, oracle, pictures):
    oracle.check(page.send(RING, *pictures[:2]), (RING, pictures[:2]))


def test_the_first_question_is_edited(page, oracle, pictures):
    one = pictures[0]
    oracle.check(page.send(TOP_LEFT, one), (TOP_LEFT, [one]))
    page.edit(0, STAR)
    with page.reply():
        page.footer("refresh")
    oracle.check(page.last_reply(), (STAR, [one]))


def test_every_action_keeps_the_right_pictures(page, oracle, pictures):
    one, two, *_ = pictures
    first = page.send(TOP_LEFT, one)
    page.send("And this?", two)
    with page.reply():
        page.footer("refresh")
    oracle.check(page.last_reply(), (TOP_LEFT, [one]), first, ("And this?", [two]))
    page.edit(1, TOP_LEFT)
    with page.reply():
        page.footer("refresh")
    edited = oracle.check(page.last_reply(), (TOP_LEFT, [one]), first, (TOP_LEFT, [two]))
    with page.reply():
        page.footer("continue")
    assert page.last_reply().startswith(edited.rstrip()), "continued"
    page.page.locator("#chat .version-nav-button").first.dispatch_event("click")
    page.settle()
    page.footer("branch", row=0)
    page.wait_until(lambda: len(page.messages()) == 2)
    page.settle()
    oracle.check(page.send(STAR), (TOP_LEFT, [one]), first, (STAR, []))
    page.footer("remove")
    page.wait_until(lambda: len(page.messages()) == 2)
    page.settle()
    oracle.check(page.send(TOP_LEFT, two), (TOP_LEFT, [one]), first, (TOP_LEFT, [two]))
    page.load()
    page.wait_until(lambda: shown(page) == [1, 1])
    reply = page.last_reply()
    oracle.check(page.send(RING), (TOP_LEFT, [one]), first, (TOP_LEFT, [two]), reply, (RING, []))


def test_a_message_that_is_only_a_picture(page, oracle, pictures):
    one = pictures[0]
    first = oracle.check(page.send("", one), ("", [one]))
    assert [message["role"] for message in page.messages()] == ["user", "assistant"], "it is drawn"
    oracle.check(page.send(TOP_LEFT), ("", [one]), first, (TOP_LEFT, []))


def test_a_typed_marker_is_text(page, oracle, pictures):
    text = "What is <__media__> in this?"
    oracle.check(page.send(text, pictures[0]), (text, [pictures[0]]))


def test_start_reply_with_keeps_the_picture(page, server, oracle, pictures):
    field = page.page.get_by_label("Start reply with")
    field.fill(right_answer(TOP_LEFT, pictures[:1]).partition(" circle")[0])
    field.press("Tab")
    page.settle()
    try:
        for again in (False, True):
            if again:
                with page.reply():
                    page.footer("refresh")
                reply = page.last_reply()
            else:
                reply = page.send(TOP_LEFT, pictures[0])
            right(reply, TOP_LEFT, pictures[:1])
            assert shown(page) == [1] and keys(server.prompts[-1]["prompt"]) == [key(pictures[0])]
    finally:
        field.fill("")
        field.press("Tab")
        page.settle()


def test_a_dummy_message_keeps_its_picture(page, oracle, pictures):
    page.attach(pictures[0])
    page.page.fill("#chat-input textarea", TOP_LEFT)
    page.menu("Insert user message", "Send dummy message")
    page.page.wait_for_selector("#chat .image-attachment img")
    said = right_answer(TOP_LEFT, pictures[:1])
    page.page.fill("#chat-input textarea", said)
    page.menu("Insert assistant message", "Send dummy reply")
    page.page.wait_for_selector("#chat .assistant-message")
    page.settle()
    assert shown(page) == [1]
    oracle.check(page.send(STAR), (TOP_LEFT, pictures[:1]), said, (STAR, []))


@pytest.mark.parametrize("suffix", ["tiff", "webp", "bmp"])
def test_other_formats_are_taken(page, oracle, pictures, tmp_path, suffix):
    Image.open(pictures[0]).save(tmp_path / f"one.{suffix}", **({"lossless": True} if suffix == "webp" else {}))
    oracle.check(page.send(TOP_LEFT, tmp_path / f"one.{suffix}"), (TOP_LEFT, pictures[:1]))


@pytest.mark.parametrize("name", ["broken.png", "broken.tiff"])
def test_a_broken_picture_among_good_ones_is_refused_in_words(page, oracle, pictures, tmp_path, name):
    one, two, *_ = pictures
    (tmp_path / name).write_bytes(b"no picture")
    first = page.send(TOP_LEFT, one)
    page.attach(one, tmp_path / name, two)
    page.page.fill("#chat-input textarea", RING)
    with page.reply():
        page.page.click("#Generate")
    said = [toast for toast in page.toasts() if name in toast]
    assert said and all("leave this picture out in the panel" in toast for toast in said)
    page.load()
    page.wait_until(lambda: shown(page) == [1, 3])
    assert page.messages()[2]["raw"] == RING, "what was typed stays, also after a reload"
    assert not page.last_reply()
    page.panel_says("4. two.png")
    page.page.locator("#multimodal_vcla_which input").nth(2).click()
    page.panel_says("left out")
    with page.reply():
        page.menu("Regenerate")
    oracle.check(page.last_reply(), (TOP_LEFT, [one]), first, (RING, [one, two]))


def test_a_picture_left_out_in_the_panel_stays_out(page, oracle, pictures):
    one, two, *_ = pictures
    first = page.send(RING, one, two)
    page.panel_says("In context: 2 pictures")
    page.page.locator("#multimodal_vcla_which input").nth(0).click()
    page.panel_says("left out", "In context: 1 picture,")
    assert same(page.send(TOP_LEFT), oracle((RING, [two]), first, (TOP_LEFT, [])))


def test_the_strip_by_the_message_box_takes_pictures_out_and_in(page, oracle, pictures):
    one, two, *_ = pictures
    strip = page.page.locator("#multimodal_vcla_strip")
    says = lambda text: strip.get_by_text(text).wait_for()  # noqa: E731
    strip.wait_for(state="hidden")  # never in the way of a text chat
    first = page.send(RING, one, two)
    says("2 pictures, 32 of 2,048 tokens")
    box, input_box = strip.bounding_box(), page.page.locator("#chat-input").bounding_box()
    assert box["y"] + box["height"] <= input_box["y"] + 1 and box["height"] < 48
    strip.locator("button").nth(0).click()
    says("1 picture, 16 of 2,048 tokens")
    assert strip.locator("button").nth(0).get_attribute("aria-pressed") == "false"
    left_out = page.send(TOP_LEFT)
    assert same(left_out, oracle((RING, [two]), first, (TOP_LEFT, [])))
    strip.locator("button").nth(0).click()
    says("2 pictures")
    assert same(page.send(TOP_LEFT), oracle((RING, [one, two]), first, (TOP_LEFT, []), left_out, (TOP_LEFT, [])))
    page.new_chat()
    strip.wait_for(state="hidden")


def test_the_panel_unfolds_above_the_message_box(page, pictures):
    panel, more = page.page.locator("#multimodal_vcla"), page.page.locator("#multimodal_vcla_strip .vcla-more")
    page.send(RING, *pictures[:2])
    more.click()
    page.page.wait_for_selector("#multimodal_vcla.vcla-over")
    box, row = panel.bounding_box(), page.page.locator("#chat-input-row").bounding_box()
    assert box["y"] >= 0 and box["y"] + box["height"] <= row["y"]
    assert abs(box["x"] - row["x"]) < 2 and abs(box["width"] - row["width"]) < 2
    assert panel.get_by_text("In context: 2 pictures").is_visible()
    assert page.page.locator("#multimodal_vcla_policy").is_visible()
    page.page.keyboard.press("Escape")
    assert more.get_attribute("aria-expanded") == "false"
    assert panel.bounding_box()["y"] > row["y"], "in its place below the chat"


AT_THE_TOP = """() => {
    const row = document.getElementById("chat-input-row");
    row.style.translate = `0 ${8 - row.getBoundingClientRect().top}px`;
    document.querySelector("#multimodal_vcla_strip .vcla-more").click();
    const [box, above] = ["multimodal_vcla", "chat-input-row"].map((id) => document.getElementById(id).getBoundingClientRect());
    row.style.translate = "";
    return [above.bottom, box.top, box.bottom, innerHeight];
}"""


def test_the_panel_unfolds_below_a_message_box_at_the_top(page, pictures):
    page.send(RING, pictures[0])
    page.page.wait_for_selector("#multimodal_vcla_strip .vcla-more")
    row_ends, begins, ends, height = page.page.evaluate(AT_THE_TOP)
    assert row_ends <= begins < ends - 200 and ends <= height
    page.page.keyboard.press("Escape")


def test_two_browsers_with_different_pictures(server, oracle, pictures, chrome):
    one, two, *_ = pictures
    pages = [Page(chrome, server.url) for _ in range(2)]
    for page in pages:
        page.new_chat()
    for page, picture in zip(pages, (one, two), strict=True):
        page.attach(picture)
        page.page.fill("#chat-input textarea", TOP_LEFT)
    with pages[0].reply(), pages[1].reply():
        for page in pages:
            page.page.click("#Generate")
    for page, picture in zip(pages, (one, two), strict=True):
        oracle.check(page.last_reply(), (TOP_LEFT, [picture]))
        page.page.context.close()
