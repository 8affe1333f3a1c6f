"""What happens at the web UI's hooks: which picture stands where, how long it is, and when a prompt is refused."""

import base64
import copy
import io
import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from pipelines.images import load_image
from pipelines.visualcla.processing_visualcla import plain_template

pytest_plugins = ["webui_stub.plugin"]
Q, IMAGE_TOKEN = 5, 703  # of the golden model


@pytest.fixture
def picture(tmp_path):
    """`picture("red")`: the path of a picture of one colour."""

    def make(colour, suffix=".png"):
        path = tmp_path / f"{colour}{suffix}"
        Image.new("RGB", (40, 30), colour).save(path)
        return path

    return make


@pytest.fixture
def seen(webui, monkeypatch):
    """The colours of each embedded prompt's pictures."""
    from multimodal_vcla.vision import VisionModel

    found = []
    original = VisionModel.prepare

    def prepare(self, prompt, *args):
        found.append([part.open().getpixel((0, 0)) for part in prompt.images])
        return original(self, prompt, *args)

    monkeypatch.setattr(VisionModel, "prepare", prepare)
    return found


RED, GREEN, BLUE = (255, 0, 0), (0, 128, 0), (0, 0, 255)


def talk(webui, state, *turns):
    """Several turns with a made-up reply each; gives the last."""
    for text, files in turns:
        last = webui.chat.one_turn(text, state, files)
        last.history["internal"][-1][1] = last.history["visible"][-1][1] = "I see."
        state["history"] = last.history
    return last


def url(path):
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def api_state(webui, *messages, **changes):
    """The state of a chat completion, rows made as the web UI makes them. Every message is the user's."""
    rows = []
    for content in messages:
        pictures = sum(item["type"] == "image_url" for item in content)
        text = " ".join(item["text"] for item in content if item["type"] == "text")
        rows.append("<__media__>" * pictures + ("\n\n" if pictures else "") + text)
    sent = [{"role": "user", "content": content} for content in messages]
    history = {"internal": [[row, "", "", {}] for row in rows[:-1]], "visible": [], "messages": sent}
    return webui.chat.new_state(history=history, messages=sent, **changes), rows[-1]


def ask(webui, *messages, **changes):
    state, user_input = api_state(webui, *messages, **changes)
    state["history"]["visible"] = copy.deepcopy(state["history"]["internal"])
    return webui.chat.one_turn(user_input, state)


def image_url(address):
    return {"type": "image_url", "image_url": {"url": address}}


def text_item(text):
    return {"type": "text", "text": text}


# --- which picture where --------------------------------------------------------------------------------------------


def test_pictures_stand_where_they_were_attached_over_turns(webui, seen, picture):
    state = webui.chat.new_state()
    red, green, blue = picture("red"), picture("green"), picture("blue")
    last = talk(webui, state, ("Two.", [red, green]), ("None.", []), ("One.", [blue]))
    assert seen == [[RED, GREEN], [RED, GREEN], [RED, GREEN, BLUE]]
    assert last.prompt.index("Two.") > last.prompt.index("<__vcla:") and last.prompt.count("<__vcla:") == 3


@pytest.mark.parametrize("action", ["regenerate", "_continue"])
def test_regenerate_and_continue_keep_the_pictures(webui, seen, picture, action):
    state = webui.chat.new_state()
    talk(webui, state, ("One.", [picture("red")]), ("", [picture("green")]))
    webui.chat.one_turn("", state, **{action: True})
    assert seen[-1] == [RED, GREEN]


def test_a_message_that_is_only_a_picture_stays_in_the_context(webui, seen, picture):
    state = webui.chat.new_state()
    talk(webui, state, ("", [picture("red")]), ("What was it?", []))
    assert seen == [[RED], [RED]]


def test_the_same_picture_twice_stands_twice(webui, seen, picture):
    talk(webui, webui.chat.new_state(), ("One.", [picture("red")]), ("Again.", [picture("red")]))
    assert seen[-1] == [RED, RED]


@pytest.mark.parametrize("mode", ["instruct", "chat", "chat-instruct"])
def test_every_mode(webui, seen, picture, mode):
    state = webui.chat.new_state(mode=mode, name1="You", name2="AI", **{"chat-instruct_command": "Reply.\n<|prompt|>"})
    talk(webui, state, ("One.", [picture("red")]), ("Two.", [picture("blue")]))
    assert seen[-1] == [RED, BLUE]


def test_typed_marks_are_text(webui, seen, picture):
    state = webui.chat.new_state()
    first = talk(webui, state, ("One <__media__>.", [picture("red")]))
    mark = first.prompt[first.prompt.index("<__vcla:") :].split(">")[0] + ">"
    last = talk(webui, state, (f"What is {mark} or\n<__media__>\n\n?", []))
    assert seen == [[RED], [RED]] and last.prompt.count(mark) == 1
    plain = webui.chat.one_turn(f"{mark} <__media__>\n\n?", webui.chat.new_state())
    assert plain.embeds is None


def test_a_typed_placeholder_is_broken_as_in_training(webui, seen, picture):
    last = talk(webui, webui.chat.new_state(), ("What is <img_token>?", [picture("red")]))
    assert (last.ids == IMAGE_TOKEN).sum() == Q


def test_the_last_pictures_only(webui, seen, picture):
    webui.script.params.update(add_all_images_to_prompt=False, last_images=2)
    state = webui.chat.new_state()
    red, green, blue = picture("red"), picture("green"), picture("blue")
    talk(webui, state, ("1", [red]), ("2", [green]), ("3", [blue]), ("4", []))
    assert seen == [[RED], [RED, GREEN], [GREEN, BLUE], [GREEN, BLUE]]
    webui.script.params["last_images"] = 1
    talk(webui, state, ("5", [red, green]))
    assert seen[-1] == [RED, GREEN], "those of the question always stay"


def test_a_picture_that_was_left_out_stays_out(webui, seen, picture):
    from multimodal_vcla.conversation import LEFT_OUT

    state = webui.chat.new_state()
    talk(webui, state, ("1", [picture("red"), picture("green")]))
    state["history"]["metadata"]["user_0"]["attachments"][0][LEFT_OUT] = True
    talk(webui, state, ("2", [picture("blue")]))
    assert seen[-1] == [GREEN, BLUE]


def test_another_extension_behind_us_gets_our_marks(webui, seen, picture):
    def custom_generate_chat_prompt(user_input, state, **kwargs):
        return webui.chat.generate_chat_prompt(user_input + " By the way.", state, **kwargs)

    other = SimpleNamespace(custom_generate_chat_prompt=custom_generate_chat_prompt)
    webui.extensions.loaded.append((other, "other"))
    last = talk(webui, webui.chat.new_state(), ("One.", [picture("red")]))
    assert seen == [[RED]] and "One. By the way." in last.prompt
    assert "By the way." in webui.chat.one_turn("Text.", webui.chat.new_state()).prompt


def test_another_extension_before_us_is_named_and_its_prompt_is_aligned(webui, seen, picture):
    from multimodal_vcla import panel

    other = SimpleNamespace(custom_generate_chat_prompt=lambda text, state, **kwargs: None)
    webui.extensions.loaded.insert(0, (other, "other"))
    talk(webui, webui.chat.new_state(), ("One.", [picture("red")]), ("Two.", [picture("blue")]))
    assert seen[-1] == [RED, BLUE]
    assert "'other'" in panel._neighbours()[0] and "custom_generate_chat_prompt" in panel._neighbours()[0]


@pytest.mark.parametrize(
    ("items", "prompt", "length"),
    [
        ("PT", "user: <__media__>\n\nOne.\n", 13),
        ("PPT", "user: <__media__><__media__>\n\nOne.\n", 13),
        ("P", "user: <__media__>\n\nassistant:", 11),
    ],
)
def test_the_blank_line_of_the_web_ui_goes_with_the_picture(webui, items, prompt, length):
    """But not what the template writes after a message that is only a picture."""
    from multimodal_vcla import marks
    from multimodal_vcla.conversation import Turn
    from multimodal_vcla.pictures import Picture

    pictures = [Picture(b"a", "a"), Picture(b"b", "b")][: items.count("P")]
    spans = marks.align(prompt, [Turn((*pictures, *(["One."] if "T" in items else [""])))], True)
    assert [picture for *_, picture in spans] == pictures
    assert [start for start, *_ in spans] == [6, 17][: len(pictures)] and spans[-1][1] - spans[-1][0] == length


def test_a_prompt_whose_marks_belong_to_no_message_is_refused(webui, picture):
    def render(text, state, **kwargs):
        return "assistant: <__media__>\n\nsomething else\nuser: <__media__>\n\nOne.\n"

    webui.extensions.loaded.insert(0, (SimpleNamespace(custom_generate_chat_prompt=render), "other"))
    with pytest.raises(Exception, match="cannot be told"):
        talk(webui, webui.chat.new_state(), ("One.", [picture("red")]))


def test_parallel_requests_do_not_mix(webui, seen, picture):
    colours = ["red", "green", "blue", "white", "black", "yellow", "cyan", "magenta"]
    paths = [picture(colour) for colour in colours]
    barrier = threading.Barrier(len(colours))

    def request(path):
        barrier.wait()
        last = ask(webui, [image_url(url(path)), text_item("Which colour?")])
        return [Image.open(path).getpixel((0, 0))], last.embeds[0, last.ids[0] == IMAGE_TOKEN]

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(request, paths))
    assert sorted(seen) == sorted(colour for colour, _ in results)
    for path, (_, features) in zip(paths, results, strict=True):
        alone = ask(webui, [image_url(url(path)), text_item("Which colour?")])
        assert torch.equal(alone.embeds[0, alone.ids[0] == IMAGE_TOKEN], features)


# --- lengths --------------------------------------------------------------------------------------------------------


def test_ids_are_those_of_the_training_template(webui, picture, merged_model):
    processor = merged_model.processor
    state = webui.chat.new_state(instruction_template_str=plain_template(processor.chat_template))
    red, green, blue = picture("red"), picture("green"), picture("blue")
    last = talk(webui, state, ("What are these?", [red, green]), ("And this?", [blue]))
    image = {"type": "image"}
    messages = [
        {"role": "user", "content": [image, image, text_item("What are these?")]},
        {"role": "assistant", "content": [text_item("I see.")]},
        {"role": "user", "content": [image, text_item("And this?")]},
    ]
    text = processor.apply_chat_template(messages, add_generation_prompt=True)
    inputs = processor(images=[load_image(path) for path in (red, green, blue)], text=text, return_tensors="pt")
    assert last.ids.tolist() == inputs["input_ids"].tolist()
    features = merged_model.get_image_features(inputs["pixel_values"]).pooler_output.flatten(0, 1)
    assert torch.allclose(last.embeds[last.ids == IMAGE_TOKEN], features, atol=1e-5)


def test_the_length_is_exact(webui, picture):
    state = webui.chat.new_state(instruction_template_str="{{ bos_token }}" + webui.chat.CHAT_TEMPLATE)
    last = talk(webui, state, ("What\n\n are 这些 these?", [picture("red"), picture("green")]), ("And?", [picture("blue")]))
    assert webui.script.custom_tokenized_length(last.prompt) == last.ids.shape[-1] == last.embeds.shape[1]


def test_text_is_measured_by_whoever_else_measures(webui):
    assert webui.script.custom_tokenized_length("Only text.") is None
    webui.extensions.loaded.append((SimpleNamespace(custom_tokenized_length=len), "other"))
    assert webui.script.custom_tokenized_length("Only text.") == 10


def test_old_messages_go_with_their_pictures(webui, seen, picture):
    state = webui.chat.new_state(truncation_length=120, max_new_tokens=60)
    long = "word " * 12
    last = talk(webui, state, (long, [picture("red")]), (long, [picture("green")]), (long, [picture("blue")]))
    assert seen[-1][-1] == BLUE and RED not in seen[-1]
    assert last.ids.shape[-1] <= 60


def test_old_messages_leave_by_blocks(webui, picture):
    """Several prompts in a row then begin alike, and their keys and values can be used again."""
    state, red, oldest = webui.chat.new_state(truncation_length=360, max_new_tokens=60), picture("red"), []
    for number in range(24):
        last = talk(webui, state, (f"[{number}] word word", [red]))
        assert last.ids.shape[-1] <= 300 and f"[{number}]" in last.prompt
        oldest.append(next(n for n in range(24) if f"[{n}]" in last.prompt))
    moves = [number for number in range(1, 24) if oldest[number] != oldest[number - 1]]
    assert oldest == sorted(oldest) and len(moves) >= 2
    assert all(later - earlier >= 2 for earlier, later in itertools.pairwise(moves)), oldest


def test_blocks_of_a_chat_stay_where_they_are_while_it_grows():
    from multimodal_vcla.conversation import block_ends

    sizes = [30, 50, 20, 70, 10, 200, 40]
    assert block_ends(sizes, 60) == [2, 4, 5, 6, 7]
    for count in range(len(sizes)):
        assert block_ends(sizes[:count], 60) == [end for end in block_ends(sizes, 60) if end <= count]


def test_rows_that_have_left_take_their_attachments_along():
    from multimodal_vcla.conversation import without_oldest

    metadata = {"user_0": {"attachments": [{}]}, "assistant_0": {"tool_sequence": []}, "user_1": {}}
    history = {"internal": [["a", "b", "c", {"tool_calls": "[]"}], ["d", "e"]], "visible": [], "metadata": metadata}
    assert without_oldest(history, 1) == {"internal": [["", ""], ["d", "e"]], "visible": [], "metadata": {"user_1": {}}}
    assert len(history["metadata"]) == 3


def test_a_picture_that_does_not_fit_is_an_error(webui, picture):
    state = webui.chat.new_state(truncation_length=40, max_new_tokens=30)
    with pytest.raises(
        Exception, match=r"red\.png does not fit: it takes 5 tokens, and the prompt may have 10 for pictures and text together"
    ):
        talk(webui, state, ("What is this?", [picture("red"), picture("green")]))


def test_a_reply_that_has_room_is_left_alone(webui, picture):
    state = webui.chat.new_state(truncation_length=200, max_new_tokens=20, auto_max_new_tokens=True)
    webui.script.params["max_images"] = 40
    before = copy.deepcopy({key: value for key, value in state.items() if key != "history"})
    many = [picture(colour) for colour in ("red", "green", "blue")] * 8
    last = talk(webui, state, ("x", many))
    assert {key: state[key] for key in before} == before, "nothing is written into the interface's state"
    assert last.ids.shape[-1] <= 200 - last.max_new_tokens, "marks are longer than pictures here, so there is room enough"
    assert last.processors == []


def test_a_reply_that_would_outgrow_the_context_is_ended(webui):
    from multimodal_vcla.hooks import _HandedOver

    handed_over, ids = _HandedOver(), torch.zeros(1, 90, dtype=torch.long)
    state = {"truncation_length": 100, "auto_max_new_tokens": True, "max_new_tokens": 5}
    handed_over.set(ids, state, torch.zeros(1, 30), None)
    (processor,), scores = handed_over.processors(ids), torch.zeros(1, 704)
    assert handed_over.processors(ids.clone()) == [], "another prompt"
    assert torch.equal(processor(torch.zeros(1, 98, dtype=torch.long), scores), scores)
    assert processor(torch.zeros(1, 99, dtype=torch.long), scores).argmax() == webui.shared.tokenizer.eos_token_id
    handed_over.set(ids, {**state, "auto_max_new_tokens": False}, torch.zeros(1, 30), None)
    assert handed_over.processors(ids) == [], "5 more fit"


def test_no_token_is_chosen_for_pictures_that_did_not_reach_the_model(webui):
    from multimodal_vcla.generate import Waiting
    from multimodal_vcla.hooks import _HandedOver

    handed_over, ids, waiting = _HandedOver(), torch.zeros(1, 9, dtype=torch.long), Waiting(None, None)
    handed_over.set(ids, {"truncation_length": 100, "max_new_tokens": 5}, ids, waiting)
    (guard,), scores = handed_over.processors(ids), torch.zeros(1, 704)
    with pytest.raises(RuntimeError, match="did not reach the model"):
        guard(ids, scores)
    waiting.is_taken = True
    assert guard(ids, scores) is scores


def test_a_completion_that_would_lose_its_picture_is_refused(webui, picture):
    messages = [{"role": "user", "content": [image_url(url(picture("red")))]}]
    state = webui.chat.new_state(messages=messages, truncation_length=60, max_new_tokens=20)
    del state["history"]
    webui.script.input_modifier("", state, is_chat=False)
    with pytest.raises(Exception, match="does not fit"):
        webui.chat.inputs_of("<__media__>" + "word " * 60, state)


# --- never blind ----------------------------------------------------------------------------------------------------


def test_a_model_without_eyes_refuses_pictures_and_answers_text(webui, picture):
    webui.shared.model_name = "text"
    with pytest.raises(Exception, match=r"'text' has no vision model.*multimodal_vcla-eyes") as caught:
        talk(webui, webui.chat.new_state(), ("What is this?", [picture("red")]))
    assert caught.value.code == 400 and caught.value.message == str(caught.value)
    assert isinstance(caught.value, sys_modules("modules.api.errors").OpenAIError)
    assert webui.chat.one_turn("Hello.", webui.chat.new_state()).embeds is None


def sys_modules(name):
    import sys

    return sys.modules[name]


def test_native_loaders_are_left_alone(webui, picture):
    webui.shared.model = type("LlamaServer", (), {})()
    state = webui.chat.new_state()
    assert webui.script.state_modifier(state) is state
    history = {"internal": [], "metadata": {"user_0": {"attachments": [{"type": "image", "image_data": "data:,"}]}}}
    assert webui.script.custom_generate_chat_prompt("x", state, history=history) is None
    assert webui.script.custom_tokenized_length("<__media__>\n\nx") is None
    assert webui.script.input_modifier("x", state, is_chat=False) == "x" and "_multimodal_vcla" not in state
    assert webui.chat.add_message_attachment(history, 1, picture("red", ".tiff")) is None


def test_a_loader_without_embeddings_is_refused(webui, picture, merged_model):
    webui.shared.model = type("Exllamav3HF", (), {})()
    with pytest.raises(Exception, match="ExLlamav3_HF cannot take pictures"):
        talk(webui, webui.chat.new_state(), ("One.", [picture("red")]))


def test_an_extension_that_replies_itself_is_named(webui, picture):
    webui.extensions.loaded.append((SimpleNamespace(custom_generate_reply=print), "other"))
    with pytest.raises(Exception, match="'other' makes the replies itself"):
        talk(webui, webui.chat.new_state(), ("One.", [picture("red")]))


def test_eyes_that_fail_are_an_error_of_the_server(webui, picture, monkeypatch):
    from multimodal_vcla.vision import VisionModel

    def see(self, pictures):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(VisionModel, "see", see)
    with pytest.raises(Exception, match="RuntimeError: out of memory") as caught:
        talk(webui, webui.chat.new_state(), ("One.", [picture("red")]))
    assert caught.value.code == 500


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("data:image/png;base64,c29tZSB3b3Jkcw==", "no format that is read"),
        ("file:///etc/hostname", "not 'file:'"),
        ("/etc/hostname", "addresses of pictures"),
        (None, "addresses of pictures"),
        ("http://127.0.0.1/x.png", "not-public|non-public"),
    ],
)
def test_a_bad_picture_among_good_ones_refuses_the_request_and_says_which(webui, seen, picture, address, why):
    good = [image_url(url(picture("red"))), text_item("One.")]
    with pytest.raises(Exception, match=why) as caught:
        ask(webui, good, [image_url(url(picture("green"))), image_url(address), text_item("Two.")])
    assert "2 of message 2" in str(caught.value) and caught.value.code == 400 and not seen


def test_public_addresses_are_fetched_through_the_guard(webui, seen, picture):
    webui.web.pages["https://example.com/a.png"] = picture("blue").read_bytes()
    ask(webui, [image_url("https://example.com/a.png"), text_item("What?")])
    assert seen == [[BLUE]] and webui.web.fetched == ["https://example.com/a.png"]


def test_limits_on_number_bytes_and_pixels(webui, picture):
    noise = io.BytesIO()
    Image.effect_noise((400, 400), 90).save(noise, "PNG")
    large = "data:image/png;base64," + base64.b64encode(noise.getvalue()).decode()
    for setting, value, why in (
        ("max_images", 1, "2 pictures"),
        ("max_image_mb", 0.05, "bytes"),
        ("max_image_megapixels", 0.1, "pixels"),
    ):
        default = webui.script.params[setting]
        webui.script.params[setting] = value
        with pytest.raises(Exception, match=why):
            ask(webui, [image_url(large), image_url(url(picture("red")))])
        webui.script.params[setting] = default
    assert ask(webui, [image_url(large), image_url(url(picture("red")))]).embeds is not None


def test_a_saved_chat_that_names_a_file_is_refused(webui, picture):
    attachment = {"type": "image", "name": "x.png", "image_data": str(picture("red"))}
    history = {"internal": [["Hi", "Yes"]], "visible": [["Hi", "Yes"]], "metadata": {"user_0": {"attachments": [attachment]}}}
    with pytest.raises(Exception, match=r"x\.png"):
        webui.chat.one_turn("And?", webui.chat.new_state(history=history))


def test_a_second_sight_encodes_nothing(webui, picture, monkeypatch):
    from pipelines.visualcla.pipeline import VisualCLAPipeline

    counts = []
    original = VisualCLAPipeline.encode_images

    def encode_images(self, images, lengths=None):
        counts.append(len(images))
        return original(self, images, lengths)

    monkeypatch.setattr(VisualCLAPipeline, "encode_images", encode_images)
    state = webui.chat.new_state()
    talk(webui, state, ("1", [picture("red"), picture("green")]), ("2", []), ("3", [picture("blue")]), ("4", []))
    assert counts == [2, 1]


# --- the notebook ---------------------------------------------------------------------------------------------------


def notebook(webui, prompt, history):
    state = webui.script.state_modifier(webui.chat.new_state(history=history))
    webui.script.input_modifier(prompt, state, is_chat=False)
    return webui.chat.inputs_of(prompt, state)


def test_the_notebook_sees_the_pictures_of_the_open_chat_by_our_marks(webui, seen, picture):
    state = webui.chat.new_state()
    talk(webui, state, ("One.", [picture("red")]), ("", [picture("blue")]))
    text = webui.chat.handle_send_chat_click(state)
    seen.clear()
    notebook(webui, text + " And?", state["history"])
    assert seen == [[RED, BLUE]]
    assert notebook(webui, "<__media__>\n\nOne.", state["history"]).embeds is None, "anybody may have written that"
    with pytest.raises(Exception, match="not in the current chat"):
        notebook(webui, text, {"internal": []})
