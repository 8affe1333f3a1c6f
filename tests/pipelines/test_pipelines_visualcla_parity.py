"""The original's numbers, stage by stage and token by token, on every recorded golden case.

Tolerances: the original's own noise in fp32 is 1e-5 in the stages and 7e-5 in the logits (golden README).
"""

import pytest
import torch
from conftest import GOLDEN, GREEDY, IMAGES, golden_tensors
from transformers import GenerationConfig

from pipelines.generation import ChatModel
from pipelines.visualcla import DEFAULT_GENERATION_CONFIG, VisualCLAVisionModel, chat, chat_in_stream

STAGES, LOGITS = {"atol": 5e-5, "rtol": 0}, {"atol": 3e-4, "rtol": 0}
CHATS = ["single_0", "single_1", "single_2", "turn_0", "turn_1", "turn_2"]
CHATS += ["penalty_default_1.1_ngram15", "penalty_repetition_1.5", "penalty_no_repeat_ngram_1"]


@pytest.fixture(scope="module")
def pixel_values(merged_model):
    return merged_model.processor.preprocess_images([GOLDEN / "images" / name for name in IMAGES])


def pixels_of(case: str, pixel_values):
    """turn_n and the penalties are about the first picture."""
    return pixel_values[int(case[-1])][None] if case.startswith("single") else pixel_values[:1]


def test_pixel_values_are_equal(golden, pixel_values):
    _, _, expected, _ = golden
    assert torch.equal(pixel_values, expected["pixel_values"])


@torch.no_grad()
def test_stages_are_the_originals(golden, pixel_values):
    _, model, expected, _ = golden
    seen = model.encode_images(pixel_values, output_attentions=False)
    torch.testing.assert_close(seen.image_tokens, expected["vision.post_layernorm"], **STAGES)
    torch.testing.assert_close(seen.last_hidden_state, expected["resampler.last_hidden_state"], **STAGES)
    torch.testing.assert_close(seen.image_features, expected["projected"], **STAGES)


@torch.no_grad()
def test_attention_maps_change_nothing_and_sum_to_one(golden, pixel_values):
    _, model, expected, _ = golden
    seen = model.encode_images(pixel_values, output_attentions=True)
    torch.testing.assert_close(seen.image_features, expected["projected"], **STAGES)
    queries, image_tokens = expected["resampler.last_hidden_state"].shape[1], expected["vision.post_layernorm"].shape[1]
    assert len(seen.attentions) == model.config.visual_resampler_config.num_hidden_layers
    for weights in seen.attentions:
        assert weights.shape == (len(IMAGES), 4, queries, queries + image_tokens)
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))


@torch.no_grad()
def test_embedding_rows_of_the_image_tokens(golden):
    _, model, expected, _ = golden
    rows = model.get_input_embeddings()(torch.arange(700, 704))
    torch.testing.assert_close(rows, expected["image_token_embedding_rows"], atol=0, rtol=0)


@pytest.mark.parametrize("case", ["single_0", "single_1", "single_2", "turn_2", "text_only"])
@torch.no_grad()
def test_logits_are_the_originals(golden, pixel_values, case):
    _, model, expected, _ = golden
    input_ids = expected[f"forward.{case}.input_ids"]
    pixels = None if case == "text_only" else pixels_of(case, pixel_values)
    logits = model(input_ids=input_ids, attention_mask=torch.ones_like(input_ids), pixel_values=pixels).logits
    recorded = expected[f"forward.{case}.logits"]
    torch.testing.assert_close(logits[:, -recorded.shape[1] :], recorded, **LOGITS)
    assert torch.equal(logits[:, -1].argmax(-1), recorded[:, -1].argmax(-1))


@torch.no_grad()
def test_right_padded_batch_has_the_originals_logits(golden, pixel_values):
    _, model, expected, _ = golden
    input_ids = expected["forward.batch_right_padded.input_ids"]
    mask = expected["forward.batch_right_padded.attention_mask"]
    logits = model(input_ids=input_ids, attention_mask=mask, pixel_values=pixel_values[:2]).logits
    last = logits[torch.arange(2), mask.sum(1) - 1]
    torch.testing.assert_close(last, expected["forward.batch_right_padded.logits_last_valid"], **LOGITS)


@pytest.mark.parametrize("case", CHATS)
def test_chat_answers_token_for_token(golden, case):
    _, model, _, generations = golden
    recorded = generations[case]
    history = [dict(item) for item in recorded.get("history_before", [])]
    config = GenerationConfig(**recorded["generation"])
    response, history = chat(model, GOLDEN / "images" / recorded["image"], recorded["text"], history, config)
    assert response == recorded["response"]
    if "history_after" in recorded:
        plain = [{key: value for key, value in item.items() if key != "images"} for item in history]
        assert plain == recorded["history_after"]


def test_chat_without_an_image_answers_as_the_model_without_one(golden):
    _, model, _, generations = golden
    recorded = generations["text_only"]
    tokens = model.generate(torch.tensor([recorded["input_ids"]]), generation_config=greedy_with_ids(model))
    assert tokens[0, len(recorded["input_ids"]) :].tolist() == recorded["new_token_ids"]


def test_image_placeholders_without_pixels_stay_what_they_are(golden):
    _, model, _, generations = golden
    recorded = generations["text_only_with_image_tokens"]
    tokens = model.generate(torch.tensor([recorded["input_ids"]]), generation_config=greedy_with_ids(model))
    assert tokens[0, len(recorded["input_ids"]) :].tolist() == recorded["new_token_ids"]


def test_left_padded_batch_generates_what_was_recorded(golden, pixel_values):
    _, model, _, generations = golden
    recorded = generations["batch_left_padded"]
    input_ids, mask = torch.tensor(recorded["input_ids"]), torch.tensor(recorded["attention_mask"])
    pixels = pixel_values[[IMAGES.index(name) for name in recorded["images"]]]
    tokens = model.generate(input_ids, attention_mask=mask, pixel_values=pixels, generation_config=greedy_with_ids(model))
    for row, new in zip(tokens[:, input_ids.shape[1] :].tolist(), recorded["new_token_ids"], strict=True):
        assert row[: len(new)] == new


def test_stream_yields_what_the_original_yielded(golden):
    """Also the last token, which the original loses when max_new_tokens ends the answer (QUIRKS)."""
    _, model, _, generations = golden
    recorded = generations["stream_single_2"]
    image = GOLDEN / "images" / recorded["image"]
    yields = list(chat_in_stream(model, image, recorded["text"], [], GREEDY))
    assert [response for response, _ in yields][: len(recorded["yields"])] == recorded["yields"]
    response, history = yields[-1]
    assert response == chat(model, image, recorded["text"], None, GREEDY)[0] == history[-1]["value"]


def test_default_sampling_filters_the_originals_tokens(golden, pixel_values):
    _, model, expected, _ = golden
    input_ids = expected["forward.single_0.input_ids"]
    config, penalties = ChatModel(model, model.processor)._settings(DEFAULT_GENERATION_CONFIG, prompt_length=0)
    config.max_new_tokens = 1
    output = model.generate(
        inputs_embeds=fused(model, input_ids, pixel_values[:1]),
        generation_config=config,
        logits_processor=penalties,
        return_dict_in_generate=True,
        output_scores=True,
    )
    scores = expected["default_sampling.first_step_scores"]
    assert torch.equal(output.scores[0].isinf(), scores.isinf())
    kept = ~scores.isinf()
    torch.testing.assert_close(output.scores[0][kept], scores[kept], atol=1e-3, rtol=0)


@torch.no_grad()
def test_eyes_alone_of_the_webui_split_give_its_recorded_embeddings():
    expected = golden_tensors("webui")
    folder = GOLDEN / "merged/visualcla-tiny-merged"
    eyes = VisualCLAVisionModel.from_pretrained(folder, dtype=torch.float32)
    assert not any(name.startswith("text_model") for name, _ in eyes.named_parameters())
    pixels = golden_tensors("merged")["pixel_values"]
    torch.testing.assert_close(eyes.get_image_features(pixels).pooler_output, expected["merged.embed_images"], **STAGES)


def greedy_with_ids(model) -> GenerationConfig:
    tokenizer = model.processor.tokenizer
    ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    return GenerationConfig(do_sample=False, max_new_tokens=24, **ids)


def fused(model, input_ids, pixel_values):
    embeds = model.get_input_embeddings()(input_ids)
    features = model.get_image_features(pixel_values).pooler_output
    return embeds.masked_scatter(model.get_placeholder_mask(input_ids, embeds, features), features)
