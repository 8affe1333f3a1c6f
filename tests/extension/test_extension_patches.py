"""What is wrapped of the web UI: each for one thing, once, and only while its parameters are the ones known."""

import copy
from types import ModuleType

import pytest
from PIL import Image

pytest_plugins = ["webui_stub.plugin"]


@pytest.fixture
def red(tmp_path):
    Image.new("RGB", (40, 30), "red").save(tmp_path / "red.png")
    return tmp_path / "red.png"


def attached(history, row=0):
    return [item["name"] for item in history["metadata"].get(f"user_{row}", {}).get("attachments", [])]


def test_other_formats_become_pictures_with_their_name(webui, tmp_path):
    Image.new("RGB", (40, 30), "red").save(tmp_path / "a.tiff")
    state = webui.chat.new_state()
    last = webui.chat.one_turn("What?", state, [tmp_path / "a.tiff"])
    assert attached(last.history) == ["a.tiff"] and last.embeds is not None


def test_a_file_that_is_no_picture_is_kept_with_its_message_and_refused_when_it_is_sent(webui, tmp_path):
    (tmp_path / "b.tiff").write_bytes(b"no picture")
    history = {"metadata": {}}
    webui.chat.add_message_attachment(history, 0, tmp_path / "b.tiff", is_user=True)
    assert attached(history) == ["b.tiff"]
    with pytest.raises(Exception, match=r"b\.tiff: .*leave this picture out in the panel"):
        webui.chat.one_turn("What?", webui.chat.new_state(), [tmp_path / "b.tiff"])


def test_dummy_messages_keep_their_pictures(webui, red):
    history = webui.chat.send_dummy_message({"text": "Look.", "files": [str(red)]}, webui.chat.new_state())
    assert attached(history) == ["red.png"]


def test_start_reply_with_keeps_the_pictures_also_on_regenerate(webui, red):
    state = webui.chat.new_state(start_with="Sure:")
    (history,) = webui.chat.generate_chat_reply_wrapper({"text": "Look.", "files": [str(red)]}, state)
    assert attached(history) == ["red.png"]
    state = {**state, "history": copy.deepcopy(history)}
    (again,) = webui.chat.generate_chat_reply_wrapper("", state, regenerate=True)
    assert attached(again) == ["red.png"] and len(again["internal"]) == 1
    assert not any(key.startswith("_multimodal_vcla") for key in state)


def test_the_reply_wrapper_stays_a_generator_function(webui):
    import inspect

    assert inspect.isgeneratorfunction(webui.chat.generate_chat_reply_wrapper)


def test_messages_that_are_only_a_picture_are_drawn(webui, red):
    last = webui.chat.one_turn("", webui.chat.new_state(), [red])
    drawn = webui.chat.chat_html_wrapper(last.history, "", "", "instruct", "", "")
    assert "&nbsp;" in drawn["html"] and last.history["visible"][0][0] == ""


def test_addresses_in_anthropic_requests_are_kept(webui):
    import modules.api.anthropic as anthropic

    source = {"type": "url", "url": "https://example.com/a.png"}
    content = [{"type": "image", "source": source}, {"type": "text", "text": "What?"}]
    body = {"messages": [{"role": "user", "content": content}]}
    (message,) = anthropic.convert_request(body)["messages"]
    assert message["content"][0]["image_url"]["url"] == "https://example.com/a.png"
    assert body["messages"][0]["content"][0]["source"] is source


def test_installing_again_wraps_nothing_twice(webui):
    before = {name: getattr(webui.chat, name) for name in vars(webui.chat)}
    webui.script.setup()
    assert {name: getattr(webui.chat, name) for name in vars(webui.chat)} == before


def test_a_function_that_has_changed_is_left_alone_and_said(webui):
    from multimodal_vcla import patches

    changed = ModuleType("changed")
    changed.send_dummy_message = original = lambda text, state, more: None
    problems = patches.install(
        changed, {"send_dummy_message": patches.CHAT["send_dummy_message"], "gone": patches.CHAT["send_dummy_message"]}
    )
    assert changed.send_dummy_message is original
    assert len(problems) == 2 and "changed.send_dummy_message" in problems[0] and "changed.gone" in problems[1]


def test_native_loaders_get_the_original(webui, tmp_path):
    webui.shared.model = type("LlamaServer", (), {})()
    Image.new("RGB", (4, 3)).save(tmp_path / "a.tiff")
    assert webui.chat.add_message_attachment({"metadata": {}}, 0, tmp_path / "a.tiff") is None
