"""Conversations: many pictures over many turns, nothing shared, nothing lost, streams that end."""

import itertools
import threading

import pytest
from conftest import GOLDEN, GREEDY, IMAGES
from PIL import Image
from transformers import GenerationConfig

from pipelines.images import ImageError
from pipelines.visualcla import DEFAULT_GENERATION_CONFIG, chat, chat_in_stream
from pipelines.visualcla.chat import _ask, _chat_model

SCENE, SHAPES, STRIPES = (GOLDEN / "images" / name for name in IMAGES)
SHORT = GenerationConfig(do_sample=False, max_new_tokens=4)


@pytest.fixture
def model(merged_model):
    _chat_model(merged_model).embedder.cache.clear()
    return merged_model


@pytest.fixture
def encoded_images(model, monkeypatch):
    """The pictures that go through the vision encoder, call by call."""
    calls = []
    encode = type(model).encode_images
    monkeypatch.setattr(type(model), "encode_images", lambda self, p, a=False: calls.append(len(p)) or encode(self, p, a))
    return calls


def prompt_of(model, image, text, history):
    _, messages, images = _ask(image, text, history)
    prepared = _chat_model(model).prepare(messages, images, SHORT.max_new_tokens)
    return model.processor.tokenizer.decode(prepared.input_ids[0]), [span.image.key for span in prepared.image_spans]


def key(image):
    from pipelines.images import image_key, load_image

    return image_key(load_image(image))


def test_text_without_an_image_works(model):
    response, history = chat(model, None, "你好", None, SHORT)
    assert response
    assert history[0] == {"type": "instruction", "value": "你好", "first_instruction": True, "images": []}
    prompt, images = prompt_of(model, None, "what", history)
    assert images == []
    assert "<img" not in prompt


def test_later_turns_bring_more_pictures_and_the_first_stays_first(model):
    _, history = chat(model, SCENE, "first", None, SHORT)
    _, history = chat(model, SHAPES, "second", history, SHORT)
    _, history = chat(model, None, "third", history, SHORT)
    prompt, images = prompt_of(model, [STRIPES, SCENE], "fourth", history)
    assert images == [key(SCENE), key(SHAPES), key(STRIPES)], "a picture that is there already is not added again"
    assert prompt.index("first") < prompt.index("second") < prompt.rindex("<img>") < prompt.index("fourth")
    assert [len(item.get("images", [])) for item in history if item["type"] == "instruction"] == [1, 1, 0]


def test_several_pictures_in_one_message(model):
    prompt, images = prompt_of(model, [SCENE, STRIPES], "both", [])
    assert images == [key(SCENE), key(STRIPES)]
    assert prompt.count("<img>") == 2


@pytest.mark.parametrize("kind", ["path", "str", "PIL", "bytes"])
def test_every_way_to_give_a_picture_gives_the_same_answer(model, kind):
    image = {"path": SCENE, "str": str(SCENE), "PIL": Image.open(SCENE), "bytes": SCENE.read_bytes()}[kind]
    assert chat(model, image, "what", None, GREEDY)[0] == chat(model, SCENE, "what", None, GREEDY)[0]


def test_a_history_of_the_originals_making_is_about_the_picture_given_now(model):
    history = [{"type": "instruction", "value": "what", "first_instruction": True}, {"type": "response", "value": "a"}]
    prompt, images = prompt_of(model, SCENE, "more", history)
    assert images == [key(SCENE)]
    assert prompt.index("<img>") < prompt.index("what")


def test_nothing_is_shared_between_calls(model):
    chat(model, SCENE, "first", None, SHORT)
    _, history = chat(model, SCENE, "second", None, SHORT)
    assert [item["value"] for item in history if item["type"] == "instruction"] == ["second"]
    before = DEFAULT_GENERATION_CONFIG.to_dict()
    config = GenerationConfig(max_new_tokens=3, repetition_penalty=1.2)
    chat(model, None, "x", None, config)
    assert DEFAULT_GENERATION_CONFIG.to_dict() == before
    assert (config.repetition_penalty, config.eos_token_id, config.bos_token_id) == (1.2, None, None)


def test_nothing_is_printed(model, capsys):
    chat(model, SCENE, "what", None, SHORT)
    assert capsys.readouterr().out == ""


def test_a_passed_history_grows_in_place_after_success_only(model):
    history = []
    _, returned = chat(model, SCENE, "first", history, SHORT)
    assert returned is history and len(history) == 2
    before = [dict(item) for item in history]
    with pytest.raises(ImageError):
        chat(model, GOLDEN / "README.md", "second", history, SHORT)
    with pytest.raises(ValueError, match="Ask about fewer pictures"):
        chat(model, None, "word " * 3000, [], SHORT)
    assert history == before


def test_an_error_while_generating_leaves_the_history_and_reaches_the_caller(model, monkeypatch):
    history = [{"type": "instruction", "value": "a", "first_instruction": True}, {"type": "response", "value": "b"}]
    monkeypatch.setattr(
        type(model), "generate", lambda self, *args, **kwargs: (_ for _ in ()).throw(RuntimeError("out of memory"))
    )
    with pytest.raises(RuntimeError, match="out of memory"):
        chat(model, None, "c", history, SHORT)
    assert len(history) == 2


def test_a_picture_is_encoded_once_in_its_life(model, encoded_images):
    _, history = chat(model, [SCENE, SHAPES], "first", None, SHORT)
    _, history = chat(model, STRIPES, "second", history, SHORT)
    chat(model, [SCENE, STRIPES], "third", history, SHORT)
    assert encoded_images == [2, 1]


def test_changed_weights_are_noticed(model, encoded_images):
    first, _ = chat(model, SCENE, "what", None, GREEDY)
    import torch

    with torch.no_grad():
        model.image_projection_layer.bias.add_(1.0)
    changed, _ = chat(model, SCENE, "what", None, GREEDY)
    with torch.no_grad():
        model.image_projection_layer.bias.sub_(1.0)
    assert changed != first
    assert len(encoded_images) == 2


def test_dropout_is_off_and_the_mode_comes_back(model):
    first, _ = chat(model, SCENE, "what", None, GREEDY)
    model.train()
    _chat_model(model).embedder.cache.clear()
    try:
        assert chat(model, SCENE, "what", None, GREEDY)[0] == first
        assert model.training
    finally:
        model.eval()


def test_stream_grows_the_answer_and_extends_the_history_at_its_end(model):
    history = []
    answers = []
    for response, so_far in chat_in_stream(model, SCENE, "what", history, SHORT):
        assert history == []
        assert so_far[-1] == {"type": "response", "value": response}
        answers.append(response)
    assert len(answers) == SHORT.max_new_tokens
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(answers))
    assert history == so_far


def test_a_stream_left_early_stops_generating(model):
    config = GenerationConfig(do_sample=False, max_new_tokens=400, min_new_tokens=400)
    stream = chat_in_stream(model, SCENE, "what", [], config)
    next(stream)
    threads = threading.active_count()
    stream.close()
    assert threading.active_count() < threads


def test_two_conversations_at_once_do_not_mix(model):
    questions = [(SCENE, "what"), (STRIPES, "where"), (SHAPES, "请描述这张图片。")]
    expected = [chat(model, image, text, None, GREEDY)[0] for image, text in questions]
    found = [None] * 6

    def ask(index):
        image, text = questions[index % 3]
        found[index] = chat(model, image, text, None, GREEDY)[0]

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == expected * 2


def test_a_full_context_drops_the_oldest_turns_with_their_pictures(model, caplog):
    history = []
    for index in range(3):
        history += [
            {"type": "instruction", "value": f"number{index} " + "word " * 170, "images": [[SCENE, SHAPES, STRIPES][index]]},
            {"type": "response", "value": "yes"},
        ]
    history[0]["first_instruction"] = True
    prompt, images = prompt_of(model, None, "last", history)
    assert images == [key(STRIPES)]
    assert "number1" not in prompt and "number2" in prompt and prompt.startswith("<s>Below is an instruction")
    assert "the oldest 2 turns and 2 pictures were left out" in caplog.text
    assert len(history) == 6, "the history itself stays whole"


def test_typed_image_tokens_are_text(model):
    _, images = prompt_of(model, SCENE, "is <img_token> or <img><img_token></img> a picture?", [])
    assert images == [key(SCENE)]
    assert chat(model, SCENE, "is <img_token> a picture?", None, SHORT)[0]
