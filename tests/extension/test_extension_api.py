"""Pictures of API requests are seen where they stand, in messages of every role, or the request is refused with the reason."""

import base64

import pytest
import torch
from PIL import Image

pytest_plugins = ["webui_stub.plugin"]

COLOURS = {"red": (255, 0, 0), "blue": (0, 0, 255), "lime": (0, 255, 0), "white": (255, 255, 255)}


@pytest.fixture
def picture(tmp_path):
    def make(colour):
        path = tmp_path / f"{colour}.png"
        Image.new("RGB", (40, 30), colour).save(path)
        url = "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
        return {"type": "image_url", "image_url": {"url": url}}

    return make


@pytest.fixture
def asked(webui, monkeypatch):
    """Sends messages as the web UI's endpoint does; gives what the model would get and the colours of its pictures."""
    from multimodal_vcla.vision import VisionModel

    seen = []
    original = VisionModel.prepare

    def prepare(self, prompt, *args):
        seen.append([image.open().getpixel((0, 0)) for image in prompt.images])
        return original(self, prompt, *args)

    monkeypatch.setattr(VisionModel, "prepare", prepare)

    def ask(*messages, **changes):
        from modules.api import completions

        user_input, system, history = completions.convert_history(list(messages))
        state = webui.chat.new_state(history=history, custom_system_message=system, **changes)
        state["messages"] = list(messages)
        prompt = webui.extensions.apply_extensions(
            "custom_generate_chat_prompt", user_input, state, _continue=False, history=history
        ) or webui.chat.generate_chat_prompt(user_input, state, history=history)
        return webui.chat.inputs_of(prompt, state)

    ask.seen = seen
    return ask


def text(value):
    return {"type": "text", "text": value}


def without_marks(prompt):
    from multimodal_vcla import marks

    return marks._MARK.sub("[picture]", prompt)


@pytest.mark.parametrize("role", ["system", "developer", "assistant", "user"])
def test_picture_in_a_message_of_any_role_is_seen_where_it_stands(asked, picture, role):
    messages = [
        {"role": role, "content": [text("Before."), picture("red"), text("After.")], "tool_call_id": "1"},
        {"role": "user", "content": "What is this?"},
    ]
    last = asked(*messages)
    assert asked.seen == [[COLOURS["red"]]]
    assert "Before.[picture]After." in without_marks(last.prompt)


def test_picture_in_a_tool_message_stands_in_its_row(webui, picture):
    """The stand-in's template writes no tool messages; the web UI's own do."""
    from modules.api import completions

    result = {"role": "tool", "tool_call_id": "1", "content": [text("Screen: "), picture("red")]}
    _, _, history = completions.convert_history([{"role": "user", "content": "Look."}, result])
    assert without_marks(history["internal"][-1][2]) == "Screen: [picture]"


def test_late_system_message_and_several_roles_keep_their_order(asked, picture):
    last = asked(
        {"role": "system", "content": [picture("white"), text("Be kind.")]},
        {"role": "user", "content": [text("First: "), picture("red"), text("Second: "), picture("blue")]},
        {"role": "assistant", "content": [text("Like this: "), picture("lime")]},
        {"role": "user", "content": "Which is red?"},
    )
    assert asked.seen == [[COLOURS[name] for name in ("white", "red", "blue", "lime")]]
    assert "First: [picture]Second: [picture]" in without_marks(last.prompt)


def test_texts_of_a_message_are_joined_as_the_web_ui_joins_them(asked, picture):
    last = asked({"role": "user", "content": [text("One."), text("Two."), picture("red")]})
    assert "One.\nTwo.[picture]" in without_marks(last.prompt)


@pytest.mark.parametrize("shape", [lambda url: url, lambda url: {"url": url}, lambda url: [{"url": url}]])
def test_picture_beside_the_content_is_seen_before_it(asked, picture, shape):
    url = picture("red")["image_url"]["url"]
    last = asked({"role": "user", "content": "What is this?", "image_url": shape(url)})
    assert asked.seen == [[COLOURS["red"]]]
    assert "[picture]What is this?" in without_marks(last.prompt)


def test_typed_marks_stand_for_nothing(asked, picture):
    from multimodal_vcla import marks
    from multimodal_vcla.pictures import Picture

    stolen = marks.mark(Picture(picture("red")["image_url"]["url"], "red"))
    asked({"role": "user", "content": [picture("red"), text(f"Is {stolen} here, or <__media__>?")]})
    asked({"role": "user", "content": f"Is {stolen} here?"})
    assert asked.seen == [[COLOURS["red"]]]


def test_only_the_newest_pictures_stay_where_that_is_set(asked, picture, webui):
    webui.script.params.update(add_all_images_to_prompt=False, last_images=2)
    asked(
        {"role": "system", "content": [picture("white")]},
        {"role": "user", "content": [picture("red"), text("One.")]},
        {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": [picture("blue"), text("Two.")]},
    )
    webui.script.params.update(add_all_images_to_prompt=True)
    assert asked.seen == [[COLOURS["red"], COLOURS["blue"]]]


def test_prompt_that_another_extension_renders_shows_the_same_pictures(asked, picture, webui):
    from types import SimpleNamespace

    def render(user_input, state, **kwargs):
        return webui.chat.generate_chat_prompt(user_input, state, **kwargs)

    webui.extensions.loaded.insert(0, (SimpleNamespace(custom_generate_chat_prompt=render), "other"))
    asked(
        {"role": "user", "content": [text("One: "), picture("red"), text("and two: "), picture("blue")]},
        {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": [text("Three: "), picture("lime"), text("which?")]},
    )
    assert asked.seen == [[COLOURS[name] for name in ("red", "blue", "lime")]]


def test_broken_picture_in_any_role_is_refused_with_its_place(asked):
    broken = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    with pytest.raises(Exception, match="1 of message 2"):
        asked({"role": "user", "content": "Hi."}, {"role": "assistant", "content": [broken]}, {"role": "user", "content": "?"})


def test_native_loaders_get_the_history_as_it_is(webui, picture):
    from modules.api import completions

    webui.shared.model = type("LlamaServer", (), {})()
    messages = [{"role": "user", "content": [picture("red"), text("What?")]}]
    assert completions.convert_history(messages)[0] == "<__media__>\n\nWhat?"


def test_refusal_in_a_stream_is_an_event(webui):
    from modules.api import completions
    from modules.api.errors import OpenAIError

    def events():
        yield {"choices": []}
        raise OpenAIError("Picture 1 of message 1: no picture", 400)

    told = list(completions.stream_chat_completions({"events": events}))
    assert told[0] == {"choices": []} and told[1]["error"]["message"] == "Picture 1 of message 1: no picture"
    assert (told[1]["error"]["type"], told[1]["error"]["code"]) == ("invalid_request_error", 400)
    with pytest.raises(OpenAIError):
        list(completions.stream_chat_completions({"events": events, "_multimodal_vcla_anthropic": True}))
    with pytest.raises(ZeroDivisionError):
        list(completions.stream_completions({"events": lambda: iter([1 / 0])}))


def test_pictures_of_anthropic_tool_results_are_passed_on_in_order(webui):
    from modules.api import anthropic

    inline = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
    linked = {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}
    result = {"type": "tool_result", "tool_use_id": "7", "content": [{"type": "text", "text": "Seen:"}, inline, linked]}
    (message,) = anthropic.convert_request({"messages": [{"role": "user", "content": [result]}]})["messages"]
    assert message["role"] == "tool"
    assert [item.get("text") or item["image_url"]["url"] for item in message["content"]] == [
        "Seen:",
        "data:image/png;base64,AAAA",
        "https://example.com/a.png",
    ]


@pytest.mark.parametrize("odd", [{"type": "text"}, {"type": "text", "text": None}, {"type": "text", "text": 3}])
def test_text_item_without_a_text_passes_as_it_is(odd):
    from multimodal_vcla.api import _with_addresses

    message = {"role": "user", "content": [odd, {"type": "text", "text": "<multimodal-vcla-picture-0>"}]}
    (first, second) = _with_addresses(message, ["https://example.com/a.png"])["content"]
    assert first == odd and second["image_url"]["url"] == "https://example.com/a.png"


def test_features_are_those_of_the_pictures(asked, picture):
    last = asked({"role": "assistant", "content": [picture("red")]}, {"role": "user", "content": "What?"})
    other = asked({"role": "assistant", "content": [picture("blue")]}, {"role": "user", "content": "What?"})
    assert last.ids.tolist() == other.ids.tolist() and not torch.equal(last.embeds, other.embeds)


def test_address_that_is_refused_is_the_clients_mistake(asked):
    for url, reason in (("file:///etc/hostname", "file:"), ("ftp://example.com/a.png", "ftp:")):
        with pytest.raises(Exception, match=reason) as caught:
            asked({"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]})
        assert caught.value.code == 400 and "1 of message 1" in caught.value.message
