"""Prompts to embeddings: each picture once, in one batch, bounded in memory, never stale."""

import threading

import pytest
import torch
from models import make_model
from PIL import Image

from pipelines.base import ImageFeatures, ImagePart, ImageSpan
from pipelines.embedder import Embedder, ImageFeatureCache
from pipelines.prompt import Prompt, PromptEncoder
from pipelines.visualcla.pipeline import VisualCLAPipeline

PICTURES = {
    name: ImagePart.of(Image.new("RGB", (20, 20), name)) for name in ("red", "green", "blue", "white", "black", "yellow")
}


RED = ImageSpan(0, 5, PICTURES["red"])


@pytest.fixture
def model():
    return make_model()


@pytest.fixture
def embedder(model):
    pipeline = VisualCLAPipeline(model, model.processor.image_processor, "tiny")
    embedder = Embedder(PromptEncoder(model.processor.tokenizer, pipeline))
    embedder.batches = []
    encode_images = pipeline.encode_images
    pipeline.encode_images = lambda images, lengths: embedder.batches.append(len(images)) or encode_images(images)
    return embedder


def prompt(*parts):
    return Prompt(tuple(PICTURES.get(part, part) for part in parts))


@torch.no_grad()
def test_embeddings_are_those_of_the_model_with_pixels(model, embedder):
    """The seam: plugin's way and processor's way give the same ids and the same logits."""
    embedded = embedder.prepare(prompt("what ", "red", "is ", "blue", "where"), model)
    mark = model.processor.tokenizer
    text = "what <img><img_token></img>\nis <img><img_token></img>\nwhere"
    inputs = model.processor(images=[PICTURES["red"].open(), PICTURES["blue"].open()], text=text, return_tensors="pt")
    assert torch.equal(embedded.input_ids, inputs["input_ids"])
    torch.testing.assert_close(model(inputs_embeds=embedded.inputs["inputs_embeds"]).logits, model(**inputs).logits)
    assert mark.pad_token_id not in embedded.input_ids


def test_all_new_pictures_go_in_one_batch_and_each_once(model, embedder):
    embedder.prepare(prompt("red", "what", "blue", "red"), model)
    embedder.prepare(prompt("red", "green", "white", "blue"), model)
    embedder.prepare(prompt("green", "red"), model)
    assert embedder.batches == [2, 2]


def test_text_only_needs_no_vision_model(model, embedder):
    prepared = embedder.prepare(prompt("what is red circle"), model)
    assert embedder.batches == [] and prepared.inputs == {} and prepared.image_spans == []


def test_a_budget_drops_old_pictures_and_does_not_encode_them(model, embedder):
    whole = embedder.prepare(prompt("what", "red", "is", "blue", "where"), model)
    length = whole.input_ids.shape[1]
    embedder.cache.clear()
    embedder.batches.clear()
    cut = embedder.prepare(prompt("what", "red", "is", "blue", "where"), model, max_tokens=length - 3)
    assert cut.truncated.dropped_images == [PICTURES["red"]]
    assert [span.image for span in cut.image_spans] == [PICTURES["blue"]]
    assert embedder.batches == [1]


def test_changed_weights_are_looked_at_again(model, embedder):
    before = embedder.image_features([RED])[0].embeds
    with torch.no_grad():
        model.visual_resampler.query_embeddding.mul_(2)
    after = embedder.image_features([RED])[0].embeds
    assert embedder.batches == [1, 1]
    assert not torch.equal(before, after)


def test_an_adapter_switched_off_is_noticed(model):
    from peft import LoraConfig, get_peft_model

    peft_model = get_peft_model(model, LoraConfig(target_modules=r".*vision_model.*q_proj", init_lora_weights=False))
    embedder = Embedder(PromptEncoder(model.processor.tokenizer, VisualCLAPipeline(model, model.processor.image_processor)))
    on = embedder.image_features([RED])[0].embeds
    with peft_model.disable_adapter():
        off = embedder.image_features([RED])[0].embeds
    assert not torch.equal(on, off)
    assert torch.equal(on, embedder.image_features([RED])[0].embeds)


def test_many_threads_encode_a_picture_once(model, embedder):
    threads = [threading.Thread(target=embedder.prepare, args=(prompt("red", "what", "blue"), model)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert embedder.batches == [2]


def test_eyes_of_another_width_are_refused(model, embedder):
    other = make_model(hidden_size=96, num_attention_heads=6)
    with pytest.raises(ValueError, match="tiny gives embeddings of width 64, but the language model's width is 96"):
        embedder.prepare(prompt("red"), other.text_model)


def test_features_that_are_not_finite_are_refused(model, embedder):
    with torch.no_grad():
        model.image_projection_layer.bias.fill_(float("inf"))
    with pytest.raises(ValueError, match="image features that are not finite"):
        embedder.prepare(prompt("red"), model)


def test_the_language_model_is_not_kept(embedder):
    import gc
    import weakref

    model = make_model()
    embedder.prepare(prompt("what", "red"), model.text_model)
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


def test_cache_is_bounded_and_the_least_recently_used_goes_first():
    cache = ImageFeatureCache(max_bytes=3 * 4 * 10)

    def features(size):
        return ImageFeatures(embeds=torch.zeros(size // 2), inputs={"pixel_values": torch.zeros(size - size // 2)})

    for key in "abc":
        cache.put(("weights", key, 5), features(10))
    assert cache.get(("weights", "a", 5)) is not None
    cache.put(("weights", "d", 5), features(10))
    assert cache.get(("weights", "b", 5)) is None
    assert all(cache.get(("weights", key, 5)) is not None for key in "acd")
    assert cache.num_bytes == 120
    cache.put(("weights", "a", 5), features(5))
    assert cache.num_bytes == 100
    cache.put(("weights", "huge", 5), features(1000))
    assert cache.get(("weights", "huge", 5)) is None and len(cache) == 3
    assert cache.get(("other weights", "a", 5)) is None and cache.get(("weights", "a", 6)) is None
    cache.clear()
    assert (len(cache), cache.num_bytes) == (0, 0)


def test_embeddings_of_pictures_as_one_tensor(model):
    """The name and the shape of the web UI's former contract."""
    pipeline = VisualCLAPipeline(model, model.processor.image_processor, "tiny")
    images = [PICTURES["red"].open(), PICTURES["blue"].open()]
    embeds = pipeline.embed_images(images)
    assert embeds.shape == (2, pipeline.num_image_embeds, pipeline.embedding_width)
    assert torch.equal(embeds[1], pipeline.encode_images(images)[1].embeds)
