"""What the page shows when the browser is slow, and when models come and go."""

import pytest

from .conftest import STAR, TOP_LEFT
from .driver import Page

pytestmark = pytest.mark.browser

HOLD_FRAMES = """() => {
    const request = window.requestAnimationFrame.bind(window);
    let held = [], until = 0;
    window.__hold = (ms) => { until = performance.now() + ms; setTimeout(() => held.splice(0).forEach((call) => request(call)), ms); };
    window.requestAnimationFrame = (call) => performance.now() < until ? held.push(call) : request(call);
}"""
"""The first drawing of a message and the first words of its reply then come in one frame, of which gradio keeps the last."""


def test_a_reply_is_drawn_below_its_question_though_frames_are_held_back(chrome, server, oracle, pictures):
    page = Page(chrome, server.url)
    try:
        page.new_chat()
        page.page.evaluate(HOLD_FRAMES)
        turns = []
        for text, attached in ((TOP_LEFT, pictures[:1]), (STAR, []), (TOP_LEFT, pictures[1:2])):
            if attached:
                page.attach(*attached)
            page.page.fill("#chat-input textarea", text)
            turns.append((text, attached))
            with page.reply():
                page.page.evaluate("() => { __hold(1200); document.querySelector('#Generate').click(); }")
            count = len(turns)
            page.page.wait_for_function(
                "rows => document.querySelectorAll('#chat [data-index]').length === rows", arg=count + 1
            )
            assert [message["role"] for message in page.messages()] == ["user", "assistant"] * ((count + 1) // 2)
            turns.append(oracle.check(page.last_reply(), *turns))
    finally:
        page.page.context.close()


def test_the_panel_follows_a_model_that_is_unloaded_and_loaded(page, server, oracle, pictures):
    oracle.check(page.send(TOP_LEFT, pictures[0]), (TOP_LEFT, pictures[:1]))
    page.panel_says("In context: 1 picture")
    page.tab("Model")
    page.page.get_by_role("button", name="Unload", exact=True).first.click()
    page.tab("Chat")
    page.panel_says("No model is loaded.")
    page.tab("Model")
    page.page.get_by_role("button", name="Load", exact=True).first.click()
    page.tab("Chat")
    page.panel_says("the vision model is loaded with the first picture")
    oracle.check(
        page.send(TOP_LEFT, pictures[1]), (TOP_LEFT, pictures[:1]), page.messages()[1]["raw"], (TOP_LEFT, pictures[1:2])
    )
    page.panel_says("In context: 2 pictures")
