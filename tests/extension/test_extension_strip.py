"""The strip by the message box: what the panel writes for it."""

import re

import pytest
from PIL import Image

pytest_plugins = ["webui_stub.plugin"]


@pytest.fixture
def panel(webui):
    from multimodal_vcla import panel

    return panel


@pytest.fixture
def history(webui, tmp_path):
    for colour in ("red", "blue"):
        Image.new("RGB", (40, 30), colour).save(tmp_path / f"{colour}.png")
    return webui.chat.one_turn("What?", webui.chat.new_state(), [tmp_path / "red.png", tmp_path / "blue.png"]).history


def strip_of(shown: str) -> str:
    return re.search(r'<div id="multimodal_vcla_source" hidden[^>]*>(.*?)</div>', shown)[1]


def test_a_chat_without_pictures_has_none(panel):
    assert strip_of(panel.show({"internal": []})) == ""


def test_it_sums_up_and_offers_each_picture(panel, history):
    strip = strip_of(panel.show(history, "chat 1", 4096))
    assert "2 pictures, 10 of 4,096 tokens" in strip
    assert re.findall(r'data-number="(\d)" aria-pressed="(\w+)" title="([^"]*)"', strip) == [
        ("1", "true", "1. red.png: 5 tokens. Click to leave it out of the prompt."),
        ("2", "true", "2. blue.png: 5 tokens. Click to leave it out of the prompt."),
    ]


def test_a_picture_that_is_left_out_can_be_taken_in(panel, history):
    _, shown = panel._leave_out(["2"], history, "chat 1", "", "instruct", 2048)
    assert "1 picture, 5 of 2,048 tokens" in strip_of(shown)
    assert 'aria-pressed="false" title="1. red.png: left out. Click to take it into the prompt again."' in strip_of(shown)


def test_it_says_why_no_picture_is_seen(webui, panel, history):
    webui.shared.model_name = "text"
    assert "&#x27;text&#x27; has no vision model" in strip_of(panel.show(history))


def test_a_camera_is_offered_where_the_model_sees(webui, panel, history):
    assert 'hidden data-camera="Webcam"' in panel.show({"internal": []})
    webui.shared.model_name = "text"
    assert "data-camera" not in panel.show(history)


def test_names_of_files_are_escaped(panel, history):
    history["metadata"]["user_0"]["attachments"][0]["name"] = '"><img src=x>'
    assert "<img src=x>" not in strip_of(panel.show(history))
