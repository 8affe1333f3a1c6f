"""Families of every kind of injection, and pictures of different lengths, move in without a change anywhere else."""

import copy
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from toys import Cross, Native, NativeModel, Tiles
from transformers import GenerationConfig

from pipelines.base import ImagePart
from pipelines.embedder import Embedder, ImageFeatureCache
from pipelines.generation import ChatModel, message
from pipelines.prompt import Prompt, PromptEncoder

pytest_plugins = ["webui_stub.plugin"]

FAMILIES = [Tiles, Cross, Native]
SHORT = GenerationConfig(do_sample=False, max_new_tokens=6)
RED, BLUE = Image.new("RGB", (40, 20), "red"), Image.new("RGB", (20, 30), "blue")
SPLIT = Image.new("RGB", (40, 20), "red")
SPLIT.paste("lime", (0, 0, 20, 20))
PARTS = {name: ImagePart.of(image) for name, image in (("red", RED), ("blue", BLUE), ("split", SPLIT))}


@pytest.fixture(scope="session")
def language_model(merged_model):
    return merged_model.text_model


@pytest.fixture(scope="session")
def native_model(language_model, golden_tokenizer):
    model = NativeModel(copy.deepcopy(language_model.config))
    model.load_state_dict(language_model.state_dict())
    model.placeholder_token_id = golden_tokenizer.convert_tokens_to_ids("<img_token>")
    return model.eval()


@pytest.fixture(params=FAMILIES, ids=lambda family: family.__name__)
def pipeline(request, golden_tokenizer, language_model):
    return request.param(golden_tokenizer, language_model.config.hidden_size)


@pytest.fixture
def model(pipeline, language_model, native_model):
    return native_model if isinstance(pipeline, Native) else language_model


@pytest.fixture
def chat(pipeline, model, merged_model):
    return ChatModel(model, merged_model.processor, pipeline)


@torch.no_grad()
def scores(chat, messages, images):
    """Log-probabilities of the first new token."""
    prepared = chat.prepare(messages, images).prompt
    with chat.pipeline.attach(chat.model):
        inputs = chat.pipeline.model_inputs(chat.model, prepared.input_ids, None, [prepared.image_spans], [prepared.features])
        out = chat.model.generate(
            prepared.input_ids, max_new_tokens=1, do_sample=False, output_scores=True, return_dict_in_generate=True,
            pad_token_id=0, **inputs,
        )  # fmt: skip
    return out.scores[0][0].log_softmax(0)


def about(*images, text="what"):
    return [message("user", text, len(images))], [PARTS[name] for name in images]


def test_answer_depends_on_the_picture_and_on_nothing_else(chat):
    red, again, blue = scores(chat, *about("red")), scores(chat, *about("red")), scores(chat, *about("blue"))
    assert torch.equal(red, again)
    assert not torch.allclose(red, blue, atol=1e-3)


def test_nothing_of_an_earlier_prompt_stays_in_force(chat):
    before = scores(chat, *about())
    scores(chat, *about("red"))
    assert torch.equal(scores(chat, *about()), before)
    assert not chat.model.get_decoder().layers[0]._forward_hooks, "the language model is as it was"
    assert "toy_states" not in vars(chat.model)


def test_streamed_answers_are_those_of_the_batch(chat):
    asked = [about("red"), about("blue", "split", text="which picture"), about(text="what is this")]
    streamed = []
    for messages, images in asked:
        *_, last = chat.stream(messages, images, SHORT)
        streamed.append(last)
    if not isinstance(chat.pipeline, Cross):  # a row of this toy without pictures sees blank ones
        assert chat.answer_batch(asked, SHORT) == streamed
    assert chat.answer_batch(asked[:1], SHORT) == streamed[:1] == [chat.answer(*asked[0], SHORT)]


def test_a_picture_is_encoded_once_over_turns(chat):
    messages, images = about("red")
    chat.prepare(messages, images)
    chat.prepare([*messages, message("assistant", "yes"), *about()[0]], images)
    assert chat.pipeline.batches == [1]


def test_full_context_drops_the_oldest_turn_with_its_picture(chat, monkeypatch):
    text = "word " * 30
    messages = [message("user", text, 1), message("assistant", "yes"), message("user", text, 1)]
    whole = chat.embedder.encoder.length(chat.render(messages, [PARTS["red"], PARTS["blue"]]))
    monkeypatch.setattr(chat.model.config.get_text_config(), "max_position_embeddings", whole - 1)
    prepared = chat.prepare(messages, [PARTS["red"], PARTS["blue"]])
    assert [span.image for span in prepared.image_spans] == [PARTS["blue"]] and prepared.num_dropped_images == 1


@pytest.mark.parametrize("sizes", [[(40, 20)], [(40, 20), (20, 30)], [(10, 10)] * 3])
def test_lengths_are_exact_before_anything_is_decoded(pipeline, golden_tokenizer, sizes):
    encoder = PromptEncoder(golden_tokenizer, pipeline)
    parts = [ImagePart(f"{number:032x}", size, pytest.fail) for number, size in enumerate(sizes)]
    prompt = Prompt(tuple(part for image in parts for part in ("what ", image)))
    encoded = encoder.encode(prompt)
    assert encoder.length(prompt) == len(encoded.input_ids)
    assert [encoded.input_ids[span.start : span.end] for span in encoded.image_spans] == pipeline.image_ids(
        sizes, golden_tokenizer
    )


def test_a_picture_that_is_shorter_among_others_is_another_entry_of_the_cache(golden_tokenizer, language_model):
    pipeline = Tiles(golden_tokenizer, language_model.config.hidden_size)
    cache = ImageFeatureCache()
    embedder = Embedder(PromptEncoder(golden_tokenizer, pipeline), cache)
    alone = embedder.prepare(Prompt((PARTS["red"],)), language_model)
    several = embedder.prepare(Prompt((PARTS["red"], PARTS["blue"])), language_model)
    assert len(alone.features[0].embeds) == 8 and len(several.features[0].embeds) == 4
    assert len(cache) == 3
    assert alone.inputs["inputs_embeds"].shape[1] == alone.input_ids.shape[1]


# --- through the plugin -----------------------------------------------------------------------------------------------


@pytest.fixture
def plugin(webui, pipeline, model, monkeypatch):
    from multimodal_vcla import vision

    monkeypatch.setattr(vision, "load_pipeline", lambda *args, **kwargs: pipeline)
    webui.shared.model = model
    yield webui
    vars(model).pop("generate", None)
    vars(model).pop("_multimodal_vcla_wrapped", None)


def ask(webui, tmp_path, *names, state=None):
    """One turn as the web UI makes it, with the first new token's scores."""
    files = []
    for name in names:
        PARTS[name].open().save(tmp_path / f"{name}.png")
        files.append(tmp_path / f"{name}.png")
    last = webui.chat.one_turn("what", state or webui.chat.new_state(), files)
    given = {} if last.embeds is None else {"inputs_embeds": last.embeds}
    with torch.no_grad():
        out = webui.shared.model.generate(
            inputs=last.ids, max_new_tokens=1, do_sample=False, output_scores=True, return_dict_in_generate=True, pad_token_id=0,
            logits_processor=list(last.processors), **given,
        )  # fmt: skip
    return SimpleNamespace(scores=out.scores[0][0].log_softmax(0), **vars(last))


def test_plugin_sees_and_keeps_nothing_in_force(plugin, tmp_path):
    text = ask(plugin, tmp_path)
    red, blue, again = (ask(plugin, tmp_path, name) for name in ("red", "blue", "red"))
    assert not torch.allclose(red.scores, blue.scores, atol=1e-3)
    assert torch.allclose(red.scores, again.scores, atol=1e-4)  # keys and values of what was there before are kept
    assert torch.equal(ask(plugin, tmp_path).scores, text.scores)


def test_plugin_looks_at_all_pictures_of_a_prompt_together(plugin, pipeline, model, merged_model, tmp_path):
    last = ask(plugin, tmp_path, "red", "split")
    chat = ChatModel(
        model, merged_model.processor, type(pipeline)(merged_model.processor.tokenizer, pipeline.projector.shape[1])
    )
    sizes = [PARTS[name].size for name in ("red", "split")]
    expected = [token for ids in chat.pipeline.image_ids(sizes, chat.tokenizer) for token in ids]
    placeholders = [token for token in last.ids[0].tolist() if token == pipeline.placeholder_token_id]
    assert len(placeholders) == expected.count(pipeline.placeholder_token_id)
    spans = PromptEncoder(chat.tokenizer, chat.pipeline).encode(Prompt((PARTS["red"], PARTS["split"]))).image_spans
    assert [span.length for span in spans] == [len(ids) for ids in chat.pipeline.image_ids(sizes, chat.tokenizer)]


def test_plugin_counts_marks_exactly(plugin, pipeline, tmp_path):
    """`custom_tokenized_length` of the rendered prompt, which names pictures by key and size only."""
    last = ask(plugin, tmp_path, "red", "blue")
    assert plugin.script.custom_tokenized_length(last.prompt) == last.ids.shape[-1]
    assert "40x20" in last.prompt and "20x30" in last.prompt


def test_pictures_that_do_not_reach_the_model_stop_the_generation(plugin, pipeline, model, tmp_path):
    """Another extension has put a `generate` of its own over ours."""
    if pipeline.embedding_width is not None:
        pytest.skip("embeddings go by the web UI's own hook")
    ask(plugin, tmp_path, "red")
    model.generate = lambda inputs, **kwargs: type(model).generate(model, inputs, **kwargs)
    with pytest.raises(RuntimeError, match="did not reach the model"):
        ask(plugin, tmp_path, "red")


def test_embeddings_as_one_tensor_are_refused_where_there_are_none(golden_tokenizer, language_model):
    with pytest.raises(ValueError, match="toy-cross has no fixed number of embeddings per picture; call encode_images"):
        Cross(golden_tokenizer, language_model.config.hidden_size).embed_images([RED])
