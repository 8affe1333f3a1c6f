"""The panel: what it shows of a chat, and what its controls do."""

import copy
import html
import shutil

import pytest
from PIL import Image

from pipelines import doctor

pytest_plugins = ["webui_stub.plugin"]


@pytest.fixture
def panel(webui):
    from multimodal_vcla import panel

    return panel


@pytest.fixture
def history(webui, tmp_path):
    for colour in ("red", "blue"):
        Image.new("RGB", (40, 30), colour).save(tmp_path / f"{colour}.png")
    state = webui.chat.new_state()
    last = webui.chat.one_turn("What?", state, [tmp_path / "red.png", tmp_path / "blue.png"])
    return last.history


def test_it_says_what_sees_and_what_each_picture_costs(panel, history):
    shown = panel.show(history, "chat 1")
    assert "vcla on cpu. In context: 2 pictures, 10 of 2048 tokens." in shown
    assert shown.count("<figure") == 2 and "1. red.png<br>5 tokens" in shown and "data:image/jpeg" in shown


def test_it_says_why_pictures_cannot_be_seen(webui, panel):
    webui.shared.model_name = "text"
    assert "&#x27;text&#x27; has no vision model" in panel.show({"internal": []})
    webui.shared.model = None
    webui.shared.model_name = "None"
    assert "No model is loaded" in panel.show({"internal": []})
    webui.shared.model = type("LlamaServer", (), {})()
    assert "does nothing" in panel.show({"internal": []})


def test_before_the_first_picture_the_eyes_are_not_loaded(panel):
    assert "vcla: the vision model is loaded with the first picture." in panel.show({"internal": []})


def test_it_tells_what_the_doctor_knows_of_the_model_folder(webui, panel, models_folder):
    shown = panel.show({"internal": []})
    parts = [line for line in doctor.examine(models_folder / "vcla").lines() if "on the disk" in line]
    assert [part.split(":")[0].strip() for part in parts] == ["language model", "eyes in vision/"]
    assert all(html.escape(line) in shown for line in parts) and "vcla: VisualCLA" in shown
    assert "GiB free" not in shown and "next:" not in shown, "the model is loaded already"
    webui.shared.args.multi_user = True
    assert "on the disk" not in panel.show({"internal": []})


def test_what_a_model_folder_lacks_is_said_before_the_first_picture(webui, panel, models_folder, tmp_path):
    folder = shutil.copytree(models_folder / "vcla", tmp_path / "half")
    (folder / "vision" / "preprocessor_config.json").unlink()
    webui.shared.model_name, webui.shared.args.model_dir = "half", str(tmp_path)
    (missing,) = doctor.examine(folder).missing
    assert "preprocessor_config.json" in missing
    assert f'<div class="vcla-error">{html.escape(missing)}</div>' in panel.show({"internal": []})


def test_it_speaks_chinese(webui, panel):
    webui.script.params["language"] = "zh"
    assert "收到第一张图片时加载视觉模块" in panel.show({"internal": []})


def test_every_text_has_the_same_values_in_both_languages():
    import string

    from multimodal_vcla.texts import _TEXTS

    def fields(text):
        return {field for _, field, _, _ in string.Formatter().parse(text) if field}

    assert all({f.split("!")[0] for f in fields(en)} == {f.split("!")[0] for f in fields(zh)} for en, zh in _TEXTS.values())


def test_names_of_files_are_escaped(panel, history):
    history["metadata"]["user_0"]["attachments"][0]["name"] = "<img src=x>"
    assert "<img src=x>" not in panel.show(history)


def test_leaving_out_is_written_into_the_chat_and_shown(webui, panel, history):
    before = copy.deepcopy(history)
    changed, shown = panel._leave_out(["2"], history, "chat 1", "", "instruct", 2048)
    first, second = changed["metadata"]["user_0"]["attachments"]
    assert first["multimodal_vcla_left_out"] is True and "multimodal_vcla_left_out" not in second
    assert "1. red.png<br>left out" in shown and "In context: 1 picture" in shown
    assert webui.chat.saved[-1][0] == "chat 1"
    changed, _ = panel._leave_out(["1", "2"], changed, "chat 1", "", "instruct", 2048)
    assert changed == before


def test_pictures_that_no_longer_fit_are_shown(webui, panel, history):
    state = webui.chat.new_state(history=history, truncation_length=90, max_new_tokens=60)
    history["internal"][0][1] = "I see."
    webui.chat.one_turn("word " * 8, state)
    assert panel.show(history, "chat 1").count("<br>dropped with its message") == 2


def test_the_policy_is_a_setting(webui, panel, history):
    pytest.importorskip("gradio")
    panel._set_policy("last N", 3, history, "chat 1", "", "instruct", 2048)
    assert webui.script.params["add_all_images_to_prompt"] is False and webui.script.params["last_images"] == 3
    panel._set_policy("last only", 3, history, "chat 1", "", "instruct", 2048)
    assert webui.script.params["last_images"] == 1 and panel._policy() == "last only"
    panel._set_policy("all", 1, history, "chat 1", "", "instruct", 2048)
    assert panel._policy() == "all"


def test_a_capture_is_handed_to_the_message_box_as_a_png(webui, panel):
    pytest.importorskip("gradio")
    camera, message = panel._to_message(Image.new("RGB", (40, 30), "red"), {"text": "Hi", "files": ["a.png"]})
    assert camera is None and message["text"] == "Hi" and message["files"][0] == "a.png"
    assert Image.open(message["files"][1]).format == "PNG"


def test_an_error_is_for_the_browser_and_for_the_api(webui, panel):
    gradio = pytest.importorskip("gradio")
    from modules.api.errors import OpenAIError

    error = panel.visible_error("Why.", 400)
    assert isinstance(error, gradio.Error) and isinstance(error, OpenAIError)
    assert error.message == str(error) == "Why." and error.code == 400 and error.visible


def test_one_picture_is_one_picture_and_the_context_is_the_sessions(panel, history):
    del history["metadata"]["user_0"]["attachments"][1:]
    assert "In context: 1 picture, 5 of 620 tokens." in panel.show(history, "chat 1", 620)


def test_picture_that_no_prompt_was_built_with_is_not_called_dropped(panel, history):
    keys = [picture.key for picture, _ in panel._pictures(history)]
    panel.remember("chat 1", keys[:1], keys[:1])
    assert "dropped" not in panel.show(history, "chat 1")
    panel.remember("chat 1", keys, keys[:1])
    assert panel.show(history, "chat 1").count("<br>dropped") == 1
