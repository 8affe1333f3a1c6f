"""Every recorded scenario, replayed: which picture stands where, and that nothing else is touched."""

import pytest
import torch
from traces import replay

pytest_plugins = ["webui_stub.plugin"]

REFUSED = {"34_api_bad_base64", "41_api_non_public_url"}  # a picture among them cannot or must not be opened
REPORTED = {"15b_truncation_image_cost", "16_truncation_bisects", "36_api_completions_messages_only"}
"""A picture of the question has no mark in the recorded prompt."""


@pytest.fixture
def seen(webui, monkeypatch):
    """Every prompt that was embedded, as the names of its pictures; the language model is not needed for it."""
    from multimodal_vcla.vision import VisionModel

    found = []
    original = VisionModel.prepare

    def prepare(self, prompt, *args):
        found.append([replay.name_of(picture.source) for picture in prompt.images])
        return original(self, prompt, *args)

    monkeypatch.setattr(VisionModel, "prepare", prepare)
    return found


def truth(call):
    return [name for name in call["truth"]["markers"] if name is not None]


@pytest.mark.parametrize("name", replay.NAMES)
def test_stock_prompts_get_the_pictures_that_they_show(webui, seen, name):
    """As when another extension renders the prompts: `<__media__>` has to be read against the conversation. On the recorded
    threads: nothing may hang on which one calls."""
    trace = replay.load(name)
    for call, result in replay.run(trace, webui.script, ("custom_generate_chat_prompt",), threads=True):
        if call["hook"] != "tokenizer_modifier":
            assert call["hook"] != "state_modifier" or not isinstance(result, Exception)
            continue
        expected = truth(call)
        if isinstance(result, Exception):
            assert type(result).__name__ == "PictureRefused" and str(result)
            assert name in REFUSED | REPORTED and not seen
            continue
        prompt, ids, embeds = result
        assert prompt == call["args"]["prompt"]
        if not expected:
            assert embeds is None and ids.tolist() == call["args"]["input_ids"] and not seen
            continue
        assert seen.pop() == expected
        assert ids.shape == embeds.shape[:2] and torch.isfinite(embeds).all()
        assert (ids == 703).sum() == 5 * len(expected)


def is_comparable(name):
    """It holds a conversation whose prompt was recorded for the same rendering of the same request, and with the same lengths."""
    others = ("11", "12", "15", "16", "17", "20", "23", "32", "35", "36", "39", "42", "50", "51")
    return name not in REFUSED and not name.startswith(others)


@pytest.mark.parametrize("name", [name for name in replay.NAMES if is_comparable(name)])
def test_our_prompts_mark_every_picture_and_render_the_same_text(webui, seen, name):
    """`custom_generate_chat_prompt` on the recorded conversations, and `tokenizer_modifier` on what it rendered."""
    from multimodal_vcla import marks

    trace = replay.load(name)
    recorded, compared = {}, 0
    for call in replay.calls(trace, "tokenizer_modifier"):
        recorded.setdefault(call["ids"].get("request"), call)
    for call, result in replay.run(trace, webui.script, ("tokenizer_modifier", "custom_tokenized_length")):
        if call["hook"] != "custom_generate_chat_prompt" or call["ids"]["request"] not in recorded:
            continue
        if result is None:
            continue
        compared += 1
        expected = recorded[call["ids"]["request"]]
        if expected["truth"]["images_without_marker"]:  # the web UI forgot an image-only message; we do not
            assert [replay.name_of(source) for source in sources(webui, call)] == ["red_circle.png"]
            continue
        plain = marks._MARK.sub(marks.STOCK, result)
        assert plain.replace("\n\n", "") == expected["args"]["prompt"].replace("\n\n", "")
        assert len(marks.keys(result)) == len(truth(expected))
    assert compared


def test_text_between_pictures_stays_between_them(webui):
    call = replay.calls(replay.load("32_api_two_interleaved"), "custom_generate_chat_prompt")[0]
    arguments, keywords = replay.Replayer().arguments(call)
    prompt = webui.script.custom_generate_chat_prompt(*arguments, **keywords)
    texts = [item["text"] for item in arguments[1]["messages"][0]["content"] if item["type"] == "text"]
    from multimodal_vcla import marks

    pieces = marks._MARK.split(prompt)[::4]
    assert len(pieces) == 3 and pieces[0].endswith(texts[0]) and pieces[1] == texts[1] and pieces[2].startswith(texts[2])


def sources(webui, call):
    attached = [item for row in call["args"]["kwargs"]["history"]["metadata"].values() for item in row.get("attachments", [])]
    return [item["image_data"] for item in attached if item["type"] == "image"]


@pytest.mark.parametrize("name", replay.NAMES)
def test_lengths_are_the_same_at_any_time(webui, name):
    """For a full prompt, a bare message, a cut mark; and once known also while no tokenizer is loaded."""
    prompts = [call["args"]["prompt"] for call in replay.calls(replay.load(name), "custom_tokenized_length")]
    first = [webui.script.custom_tokenized_length(prompt) for prompt in prompts]
    webui.shared.tokenizer, tokenizer = None, webui.shared.tokenizer
    assert [webui.script.custom_tokenized_length(prompt) for prompt in prompts] == first
    webui.shared.tokenizer = tokenizer
    assert [webui.script.custom_tokenized_length(prompt) for prompt in reversed(prompts)] == first[::-1]
    for prompt, length in zip(prompts, first, strict=True):
        assert (length is None) == ("<__media__>" not in prompt)
