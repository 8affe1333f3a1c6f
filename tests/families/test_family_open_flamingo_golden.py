"""OpenFlamingo and Multimodal-GPT against what the original code computed of the same files (tests/golden/mmgpt)."""

import pytest
import torch
from open_flamingo_files import CASES, GOLDEN, IMAGE_TOKEN_ID, NUM_OLD_TOKENS, answer, expected, inputs_of, published

from pipelines.open_flamingo import load_model

FEATURES, LOGITS = 5e-5, 3e-4
PLAIN = ["of_single", "of_two", "of_fewshot", "of_text_only"]
TUNED = ["single", "two", "multi_turn", "text_only"]
TRAINED = ["train_llava", "train_llava_dial", "train_dolly", "train_baize"]
EXPECTED = expected()


@pytest.fixture(scope="module")
def loaded():
    models = {lora: published(lora) for lora in (False, True)}
    new_rows = torch.load(GOLDEN / "checkpoint" / "lm_head_new_rows.pt", weights_only=True)
    with torch.no_grad():
        for model, _ in models.values():
            model.language_model.lm_head.weight[NUM_OLD_TOKENS:] = new_rows
    return {case: models[case in (*TUNED, *TRAINED, "app_two_turns")] for case in (*PLAIN, *TUNED, *TRAINED, "app_two_turns")}


def difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max())


def hidden_states_at_gated_layers(model, **inputs):
    """What goes into the decoder layers that have a gated layer before them, and the logits."""
    seen = {}

    def keep(index):
        return lambda layer, args, kwargs: seen.__setitem__(index, args[0].detach())

    layers = model.get_decoder().layers
    hooks = [
        layers[index].register_forward_pre_hook(keep(index), with_kwargs=True) for index in model.config.gated_layers
    ]
    try:
        with torch.no_grad():
            logits = model(**inputs).logits
    finally:
        for hook in hooks:
            hook.remove()
    return seen, logits


def test_pictures_and_their_states_are_the_originals(loaded):
    model, processor = loaded["two"]
    pixel_values = inputs_of(processor, "two")["pixel_values"]
    assert torch.equal(pixel_values, EXPECTED["pixel_values"])
    with torch.no_grad():
        tokens = model.vision_model(pixel_values).last_hidden_state[:, 1:]
        assert difference(tokens, EXPECTED["vision.tokens"]) < FEATURES
        assert difference(model.get_image_features(pixel_values), EXPECTED["perceiver"][0]) < FEATURES


@pytest.mark.parametrize("case", [*PLAIN, *TUNED])
def test_ids_hidden_states_logits_and_greedy_tokens_are_the_originals(loaded, case):
    model, processor = loaded[case]
    inputs = inputs_of(processor, case)
    assert torch.equal(inputs["input_ids"], EXPECTED[f"{case}.input_ids"])
    assert processor.tokenizer.convert_ids_to_tokens(inputs["input_ids"][0]) == CASES[case]["tokens"]
    seen, logits = hidden_states_at_gated_layers(model, **inputs)
    for index in model.config.gated_layers:
        name = f"{case}.after_gated_layer{index}"
        if CASES[case]["n_images"]:
            assert difference(seen[index], EXPECTED[name]) < LOGITS
    if f"{case}.logits" in EXPECTED:
        assert difference(logits, EXPECTED[f"{case}.logits"]) < LOGITS
    else:
        assert difference(logits[:, -1], EXPECTED[f"{case}.last_logits"]) < LOGITS
    assert answer(model, inputs) == CASES[case]["greedy"]
    assert answer(model, inputs, use_cache=False) == CASES[case]["greedy"]


def test_more_image_tokens_than_pictures_as_in_the_originals_demo(loaded):
    """The demo writes `<image>` for every picture of a chat but passes the last one only; ours gives each its own."""
    model, _ = loaded["app_two_turns"]
    ids = EXPECTED["app_two_turns.input_ids"]
    with torch.no_grad():
        states = model.get_image_features(EXPECTED["pixel_values"][1:])

    def show():
        model.conditioning.show(ids, ids == IMAGE_TOKEN_ID, [states])

    show()
    seen, logits = hidden_states_at_gated_layers(model, input_ids=ids)
    for index in model.config.gated_layers:
        assert difference(seen[index], EXPECTED[f"app_two_turns.after_gated_layer{index}"]) < LOGITS
    assert difference(logits[:, -1], EXPECTED["app_two_turns.last_logits"]) < LOGITS
    show()
    assert answer(model, {"input_ids": ids}) == CASES["app_two_turns"]["greedy"]
    model.conditioning.clear()


@pytest.mark.parametrize("case", TRAINED)
def test_loss_of_a_training_record_is_the_originals(loaded, case):
    model, _ = loaded[case]
    ids, labels = EXPECTED[f"{case}.input_ids"], EXPECTED[f"{case}.labels"]
    pixel_values = EXPECTED["pixel_values"][: int((ids == IMAGE_TOKEN_ID).sum())]
    loss = model(input_ids=ids, labels=labels, pixel_values=pixel_values if len(pixel_values) else None).loss
    assert float(loss) == pytest.approx(float(EXPECTED[f"{case}.loss"]), abs=LOGITS)
    model.conditioning.clear()


@pytest.mark.parametrize("lora", ["mmgpt-lora-v0-release.pt", "final_weights.pt"])
@pytest.mark.parametrize("clip", ["clip_hf", "ViT-tiny-14.pt"])
def test_every_published_form_gives_the_same_answer(lora, clip):
    folder = GOLDEN / "checkpoint"
    model, processor = load_model(
        folder / "checkpoint.pt",
        text_model=GOLDEN / "llama_tiny",
        vision_model=folder / clip,
        lora_model=folder / lora,
        dtype=torch.float32,
    )
    inputs = inputs_of(processor, "single")
    with torch.no_grad():
        logits = model(**inputs).logits
    assert difference(logits[..., :NUM_OLD_TOKENS], EXPECTED["single.logits"][..., :NUM_OLD_TOKENS]) < LOGITS
    assert answer(model, inputs) == CASES["single"]["greedy"]
