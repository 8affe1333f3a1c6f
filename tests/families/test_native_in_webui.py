"""Models of transformers in the web UI's hands: loaded by its loader, asked through its hooks, answering as without it."""

import native_models
import numpy as np
import pytest
import torch
from PIL import Image

from pipelines.base import ImagePart
from pipelines.registry import is_whole

pytest_plugins = ["webui_stub.plugin"]
FAMILIES = sorted(native_models.FAMILIES)
NEW_TOKENS = 6
GREEDY = {"do_sample": False, "max_new_tokens": NEW_TOKENS}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    noise, folder = np.random.default_rng(0), tmp_path_factory.mktemp("pictures")
    for number, (width, height) in enumerate([(60, 40), (30, 80), (90, 90), (48, 32)]):
        Image.fromarray(noise.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return sorted(folder.iterdir())


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request, tmp_path_factory):
    return native_models.write(request.param, tmp_path_factory.mktemp("models") / request.param)


@pytest.fixture(scope="module")
def smolvlm(tmp_path_factory):
    return native_models.write("smolvlm", tmp_path_factory.mktemp("models") / "smolvlm")


@pytest.fixture
def load(webui):
    from multimodal_vcla import vision

    def load(folder):
        webui.shared.args.model_dir = str(folder.parent)
        webui.shared.model, webui.shared.tokenizer = webui.models.load_model(folder.name, loader="Transformers")
        template, webui.shared.bos_token = webui.shared.tokenizer.chat_template, webui.shared.tokenizer.bos_token
        return webui.chat.new_state(instruction_template_str=template, max_new_tokens=NEW_TOKENS)

    yield load
    webui.shared.model, webui.shared.bos_token = None, "<s>"
    vision.look_again()


def generated(webui, last) -> str:
    ids = webui.shared.model.generate(inputs=last.ids, logits_processor=last.processors, pad_token_id=0, **GREEDY)[0]
    return webui.shared.tokenizer.decode(ids[last.ids.shape[1] :], skip_special_tokens=True)


def expected(webui, folder, turns) -> tuple[list[int], str]:
    """What the processor and `generate` make of a conversation, without anything of ours or of the web UI."""
    from pipelines.native import load_processor

    processor, messages, images = load_processor(folder), [], []
    for turn in turns:
        text, files = turn if isinstance(turn, tuple) else (turn, [])
        items = [{"type": "image"}] * len(files) + ([{"type": "text", "text": text}] if text else [])
        messages.append({"role": "user" if isinstance(turn, tuple) else "assistant", "content": items})
        images += [Image.open(file).convert("RGB") for file in files]
    text = processor.apply_chat_template(messages, add_generation_prompt=True)
    take = processor if images else processor.tokenizer
    bos = processor.tokenizer.bos_token
    given = take(
        **({"images": [images]} if images else {}),
        text=[text],
        return_tensors="pt",
        add_special_tokens=not text.startswith(bos),
    )
    model = webui.shared.model
    tokens = type(model).generate(model, **given, pad_token_id=0, **GREEDY)[0]
    length = given["input_ids"].shape[1]
    return given["input_ids"][0].tolist(), processor.tokenizer.decode(tokens[length:], skip_special_tokens=True)


def test_turns_are_those_of_the_model_itself(webui, load, folder, files):
    state = load(folder)
    assert is_whole(folder) and type(webui.shared.model).__name__.endswith("ForConditionalGeneration")
    said: list = []
    for text, shown in [("What is this?", files[:1]), ("And these?", files[1:3]), ("Sure?", [])]:
        last = webui.chat.one_turn(text, state, shown)
        said.append((text, shown))
        ids, answer = expected(webui, folder, said)
        assert last.ids[0].tolist() == ids and last.embeds is None
        assert generated(webui, last) == answer
        said.append("Noise.")
        last.history["internal"][-1][1] = last.history["visible"][-1][1] = "Noise."
        state["history"] = last.history
    text = webui.chat.one_turn("Hello", {**state, "history": webui.chat.new_state()["history"]})
    ids, answer = expected(webui, folder, [("Hello", [])])
    assert text.ids[0].tolist() == ids and generated(webui, text) == answer


def test_pictures_stand_where_they_were_in_every_mode(webui, load, folder, files):
    for mode in ("chat", "chat-instruct"):
        state = {**load(folder), "mode": mode, "chat-instruct_command": "Go on:\n<|prompt|>"}
        state["history"] = webui.chat.one_turn("One", state, files[:1]).history
        state["history"]["internal"][-1][1] = "Noise."
        last = webui.chat.one_turn("Two", state, files[1:3])
        text = webui.shared.tokenizer.decode(last.ids[0])
        from multimodal_vcla import vision

        pipeline = vision.current().pipeline
        token = webui.shared.tokenizer.convert_ids_to_tokens(pipeline.placeholder_token_id)
        sizes = [Image.open(file).size for file in files[:3]]
        counts = [ids.count(pipeline.placeholder_token_id) for ids in pipeline.image_ids(sizes, None)]
        between = text[text.index("One") : text.index("Two")]
        assert text.count(token) == sum(counts) and text.partition("One")[0].count(token) == counts[0]
        assert between.index("Noise.") < between.index(token)
        generated(webui, last)


def test_another_picture_is_another_answer(webui, load, folder, files):
    """By the scores of the next token, as tiny models of noise often say the same."""
    state = load(folder)

    def scores(file):
        last = webui.chat.one_turn("What is this?", state, [file])
        out = webui.shared.model.generate(
            inputs=last.ids, max_new_tokens=1, pad_token_id=0, output_logits=True, return_dict_in_generate=True
        )
        return out.logits[0]

    one, other = scores(files[0]), scores(files[3])
    assert torch.allclose(one, scores(files[0]), atol=1e-4) and not torch.allclose(one, other, atol=1e-3)


def test_prompts_are_cut_between_pictures(webui, load, smolvlm, files):
    state = load(smolvlm)
    full = webui.chat.one_turn("One", state, files[:1])
    state["history"] = full.history
    full.history["internal"][-1][1] = "Noise."
    whole = webui.chat.one_turn("Two", state, files[1:2])
    room = whole.ids.shape[1] + 1 + NEW_TOKENS  # the web UI counts a BOS whether it writes one or not
    assert webui.chat.one_turn("Two", {**state, "truncation_length": room}, files[1:2]).ids.shape == whole.ids.shape
    cut = webui.chat.one_turn("Two", {**state, "truncation_length": room - 1}, files[1:2])
    ids, _ = expected(webui, smolvlm, [("Two", files[1:2])])  # a turn leaves with its answer
    assert cut.ids[0].tolist() == ids
    with pytest.raises(Exception, match="does not fit"):
        webui.chat.one_turn("Two", {**state, "truncation_length": 20 + NEW_TOKENS}, files[1:2])


def test_typed_tokens_of_pictures_stay_text(webui, load, smolvlm, files):
    from multimodal_vcla import vision

    state = load(smolvlm)
    last = webui.chat.one_turn("Is <image> a mark?", state, files[:1])
    pipeline = vision.current().pipeline
    (ids,) = pipeline.image_ids([Image.open(files[0]).size], None)
    assert last.ids[0].tolist().count(pipeline.placeholder_token_id) == ids.count(pipeline.placeholder_token_id)
    text = webui.chat.one_turn("Is <image> a mark?", state)
    assert pipeline.placeholder_token_id not in text.ids and "mark?" in text.prompt


def test_pictures_can_be_made_to_cost_less(webui, load, smolvlm, files):
    from multimodal_vcla import panel, vision

    state = load(smolvlm)
    own = webui.chat.one_turn("What?", state, files[:1])
    history = own.history
    cost = vision.current().costs([picture for picture, _ in panel._pictures(history)])[0]
    assert f"{cost} tokens" in panel.show(history)
    webui.script.params.update(use_tiles=False, projector_bits=16, vision_device="meta")  # the last two are for others
    try:
        less = webui.chat.one_turn("What?", state, files[:1])
        (cheaper,) = vision.current().costs([picture for picture, _ in panel._pictures(history)])
        assert own.ids.shape[1] - less.ids.shape[1] == cost - cheaper > 0
        assert f"{cheaper} tokens instead of {cost}" in panel.show(history)
        generated(webui, less)
    finally:
        webui.script.params.update(use_tiles=None, projector_bits=None, vision_device=None)


@pytest.fixture
def refresh(webui):
    """The panel's controls of what pictures may cost: `{value: tokens of a photo}` of pixels and of tiles, and what is chosen."""
    pytest.importorskip("gradio")
    from multimodal_vcla import panel

    def refresh(pixels=None, tiles=None):
        given = ({"internal": []}, "chat 1", "", "instruct", 4096)
        controls = (panel._set_limits(pixels, tiles, *given) if pixels or tiles else panel._refresh(*given))[2:]
        assert all(bool(control["choices"]) == control["visible"] for control in controls)
        prices = [{v: int(label.split(": ")[1].split()[0].replace(",", "")) for label, v in c["choices"]} for c in controls]
        return *prices, [control["value"] for control in controls]

    yield refresh
    webui.script.params.update(max_pixels=None, use_tiles=None)


def test_the_panel_offers_what_can_be_chosen_with_its_price(webui, load, refresh, smolvlm, tmp_path):
    from multimodal_vcla import vision

    def costs():
        return vision.current().costs([ImagePart.of(Image.new("RGB", (1600, 1200)))])

    load(smolvlm)
    pixels, tiles, chosen = refresh()
    assert chosen == [None, "own"] and tiles["own"] == tiles["tiles"] > tiles["whole"] > 0 and pixels == {}
    assert refresh(tiles="whole") == (pixels, tiles, [None, "whole"]) and costs() == [tiles["whole"]]
    refresh(tiles="own")
    webui.script.params.update(max_pixels=10_000)
    load(native_models.write("qwen2_5_vl", tmp_path / "qwen2_5_vl"))
    pixels, tiles, chosen = refresh()
    assert chosen == ["10000", None] and tiles == {} and pixels["10000"] < pixels["100000"] == pixels["own"]
    assert costs() == [pixels["10000"]]
    refresh(pixels="own")
    assert costs() == [pixels["own"]] and webui.script.params["max_pixels"] is None


def test_parts_of_pictures_that_cannot_be_left_out_are_refused_with_the_reason(webui, load, refresh, tmp_path):
    from multimodal_vcla import vision

    webui.script.params.update(use_tiles=False)
    load(native_models.write("llava_next", tmp_path / "llava_next"))
    pytest.importorskip("gradio")
    from multimodal_vcla import panel

    given = ({"internal": []}, "chat 1", "", "instruct", 4096)
    shown, _, _, tiles = panel._refresh(*given)
    assert "always shown parts of large pictures: its grids are fixed" in shown
    assert [value for _, value in tiles["choices"]] == ["own", "whole"] and tiles["value"] == "whole"
    shown, _, _, tiles = panel._set_limits(None, "own", *given)
    assert vision.status()[0] == "ready" and tiles["choices"] == [] and "cannot be seen" not in shown


def test_text_models_are_loaded_as_ever(webui, load, models_folder, smolvlm):
    import modules.transformers_loader as loader
    from transformers import AutoModelForCausalLM

    for folder in (models_folder / "text", smolvlm, models_folder / "vcla"):
        load(folder)
        assert type(webui.shared.model).__name__ == (
            "LlamaForCausalLM" if folder != smolvlm else "SmolVLMForConditionalGeneration"
        )
        assert loader.AutoModelForCausalLM is AutoModelForCausalLM


def test_models_that_cannot_chat_are_refused_by_the_loader(webui, load, smolvlm, tmp_path):
    import json

    (tmp_path / "read").mkdir()
    config = json.loads((smolvlm / "config.json").read_text())
    (tmp_path / "read" / "config.json").write_text(json.dumps({**config, "model_type": "mistral4"}))
    with pytest.raises(ValueError, match="takes no pictures"):
        load(tmp_path / "read")


def test_a_model_is_loaded_at_start(webui, load, smolvlm):
    from multimodal_vcla import panel
    from multimodal_vcla import webui as ours

    shared, params = webui.shared, webui.script.params
    shared.model, shared.args.model_dir = None, str(smolvlm.parent)
    ours.load_at_start.cache_clear()
    try:
        params["model"] = "absent"
        webui.script.setup()
        assert shared.model is None and any("absent" in notice for notice in panel.notices)
        params["model"] = "smolvlm"
        webui.script.setup()
        assert type(shared.model).__name__ == "SmolVLMForConditionalGeneration" and panel.notices == []
        shared.model = None  # taken out by the user
        webui.script.setup()
        assert shared.model is None, "only once"
    finally:
        params["model"] = ""
        ours.load_at_start.cache_clear()
