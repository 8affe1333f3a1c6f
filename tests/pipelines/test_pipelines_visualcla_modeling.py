"""The model as a transformers model: any language model, any encoder, batches, images anywhere, training, saving."""

import pytest
import torch
from conftest import GOLDEN, GREEDY, IMAGES
from models import make_model
from peft import LoraConfig, PeftModel, get_peft_model
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, Trainer, TrainingArguments, pipeline

from pipelines.visualcla import VisualCLAForConditionalGeneration, VisualCLAVisionModel, chat, load_pretrained

COLOURS = ["red", "green", "blue", "white"]
MARK = "<img><img_token></img>\n"


@pytest.fixture(scope="module")
def pictures():
    return [Image.new("RGB", (40, 30), colour) for colour in COLOURS]


@pytest.fixture(
    scope="module",
    params=[("llama", "clip", True), ("qwen3", "clip", True), ("llama", "siglip", True), ("qwen3", "siglip", False)],
    ids=lambda kinds: f"{kinds[0]}-{kinds[1]}-{'resampler' if kinds[2] else 'no resampler'}",
)
def model(request):
    text, vision, resampler = request.param
    return make_model(text, vision, resampler)


@torch.no_grad()
def logits_of(model, text, images):
    return model(**model.processor(images=images, text=text, return_tensors="pt")).logits


def test_number_of_placeholders_is_known_from_the_configuration(model, pictures):
    inputs = model.processor(images=pictures[:2], text=f"{MARK}{MARK}what", return_tensors="pt")
    features = model.get_image_features(inputs["pixel_values"]).pooler_output
    assert features.shape == (2, model.config.num_image_embeds, 64)
    assert int((inputs["input_ids"] == model.config.image_token_id).sum()) == 2 * model.config.num_image_embeds


@torch.no_grad()
def test_image_features_stand_where_the_image_stands(model, pictures):
    inputs = model.processor(images=pictures[:2], text=f"what {MARK} is {MARK}", return_tensors="pt")
    by_hand = model.get_input_embeddings()(inputs["input_ids"])
    features = model.get_image_features(inputs["pixel_values"]).pooler_output
    places = (inputs["input_ids"][0] == model.config.image_token_id).nonzero().flatten()
    by_hand[0, places] = features.flatten(0, 1)
    torch.testing.assert_close(model(inputs_embeds=by_hand).logits, model(**inputs).logits)


def test_exchanged_images_give_another_answer(model, pictures):
    text = f"what {MARK} is {MARK} where"
    first, second = logits_of(model, text, pictures[:2]), logits_of(model, text, pictures[1::-1])
    assert (first - second).abs().max() > 1e-3


@pytest.mark.parametrize("side", ["left", "right"])
@torch.no_grad()
def test_rows_of_a_batch_with_0_1_and_3_images_are_as_alone(model, pictures, side):
    rows = ["what is the red circle", f"{MARK}where is a", f"{MARK}which {MARK} picture {MARK}shows the green square no"]
    images = [[], pictures[:1], pictures[1:]]
    inputs = model.processor(images=images, text=rows, return_tensors="pt", padding=True, padding_side=side)
    together = model(**inputs).logits
    for row, own_images, logits, mask in zip(rows, images, together, inputs["attention_mask"], strict=True):
        alone = logits_of(model, row, own_images)[0]
        torch.testing.assert_close(logits[mask.bool()], alone, atol=1e-4, rtol=1e-4)


def test_batch_of_text_only_rows_needs_no_pixels(model):
    inputs = model.processor(text=["what is", "where is the circle"], return_tensors="pt", padding=True)
    assert "pixel_values" not in inputs
    assert model(**inputs).logits.shape[:2] == inputs["input_ids"].shape


@torch.no_grad()
def test_cached_generation_is_the_same_as_uncached(model, pictures):
    inputs = model.processor(images=pictures[:2], text=f"what {MARK} is {MARK} where", return_tensors="pt")
    settings = {"do_sample": False, "max_new_tokens": 8, "min_new_tokens": 8, "pad_token_id": 3}
    cached = model.generate(**inputs, use_cache=True, **settings)
    assert torch.equal(cached, model.generate(**inputs, use_cache=False, **settings))
    assert torch.equal(cached[:, : inputs["input_ids"].shape[1]], inputs["input_ids"])


@torch.no_grad()
def test_generation_in_a_left_padded_batch_is_as_alone(model, pictures):
    rows, images = [f"{MARK}what", f"{MARK}where is {MARK}the red"], [pictures[:1], pictures[1:3]]
    settings = {"do_sample": False, "max_new_tokens": 6, "min_new_tokens": 6, "pad_token_id": 3}
    inputs = model.processor(images=images, text=rows, return_tensors="pt", padding=True, padding_side="left")
    together = model.generate(**inputs, **settings)[:, inputs["input_ids"].shape[1] :]
    for row, own, tokens in zip(rows, images, together, strict=True):
        alone = model.processor(images=own, text=row, return_tensors="pt")
        assert torch.equal(model.generate(**alone, **settings)[0, alone["input_ids"].shape[1] :], tokens)


def test_too_few_and_too_many_placeholders_are_refused(model, pictures):
    inputs = model.processor(images=pictures[:1], text=f"{MARK}what", return_tensors="pt")
    embeds = model.config.num_image_embeds
    with pytest.raises(ValueError, match=f"{embeds} image tokens in the prompt but {2 * embeds} image features"):
        model(input_ids=inputs["input_ids"], pixel_values=inputs["pixel_values"].repeat(2, 1, 1, 1))
    with pytest.raises(ValueError, match=f"{embeds - 1} image tokens in the prompt but {embeds} image features"):
        model(input_ids=inputs["input_ids"][:, 2:], pixel_values=inputs["pixel_values"])


def test_pixels_of_another_size_are_refused(model):
    with pytest.raises(ValueError, match=r"shape \(1, 3, 30, 30\), but the vision encoder takes \(images, 3, 32, 32\)"):
        model.get_image_features(torch.zeros(1, 3, 30, 30))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@torch.no_grad()
def test_half_precision_says_about_the_same(pictures, dtype):
    model = make_model()
    full = logits_of(model, f"{MARK}what", pictures[:1])
    half = logits_of(make_model().to(dtype), f"{MARK}what", pictures[:1])
    assert half.dtype == dtype
    torch.testing.assert_close(half.float(), full, atol=0.15, rtol=0.1)


def test_labels_give_the_language_models_loss_also_after_the_vocabulary_has_grown(pictures):
    """The original fails here: the language model's vocab_size stays stale after a resize (QUIRKS)."""
    model = make_model()
    model.resize_token_embeddings(len(model.processor.tokenizer) + 7)
    assert model.config.text_config.vocab_size == model.text_model.config.vocab_size == len(model.processor.tokenizer) + 7
    inputs = model.processor(images=pictures[:1], text=f"{MARK}what is", return_tensors="pt")
    labels = inputs["input_ids"].masked_fill(inputs["input_ids"] == model.config.image_token_id, -100)
    output = model(**inputs, labels=labels)
    shifted = torch.nn.functional.cross_entropy(output.logits[0, :-1], labels[0, 1:])
    torch.testing.assert_close(output.loss, shifted)


def test_every_part_learns_also_with_gradient_checkpointing(pictures):
    model = make_model().train()
    inputs = model.processor(images=pictures[:1], text=f"{MARK}what is", return_tensors="pt")
    torch.manual_seed(0)
    model(**inputs, labels=inputs["input_ids"]).loss.backward()
    plain = {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}
    for part in ("vision_model", "visual_resampler", "image_projection_layer", "text_model"):
        assert any(name.startswith(f"model.{part}.") and grad.abs().sum() > 0 for name, grad in plain.items()), part
    unused = {name for name, parameter in model.named_parameters() if parameter.requires_grad and parameter.grad is None}
    assert not unused, "parameters without gradient stop distributed training"

    model.zero_grad()
    model.gradient_checkpointing_enable()
    torch.manual_seed(0)
    model(**inputs, labels=inputs["input_ids"], use_cache=False).loss.backward()
    for name, parameter in model.named_parameters():
        if name in plain:
            torch.testing.assert_close(parameter.grad, plain[name], atol=1e-5, rtol=1e-4)


def test_trainer_and_peft_train_it(pictures, tmp_path):
    model = make_model()
    targets = r".*(text_model|vision_model).*\.(q_proj|v_proj)"
    peft_model = get_peft_model(model, LoraConfig(target_modules=targets, modules_to_save=["image_projection_layer"]))
    row = model.processor(images=pictures[:1], text=f"{MARK}the red circle is left", return_tensors="pt")
    batch = {"input_ids": row["input_ids"][0], "attention_mask": row["attention_mask"][0], "labels": row["input_ids"][0]}
    rows = [{**batch, "pixel_values": row["pixel_values"][0]}] * 8
    arguments = TrainingArguments(
        str(tmp_path), max_steps=12, learning_rate=1e-2, report_to=[], use_cpu=True, save_strategy="no", logging_steps=1
    )
    trainer = Trainer(peft_model, arguments, train_dataset=rows)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0] - 0.5

    peft_model.save_pretrained(tmp_path / "adapter")
    again = PeftModel.from_pretrained(make_model(), tmp_path / "adapter").eval()
    with torch.no_grad():
        torch.testing.assert_close(again(**row).logits, peft_model.eval()(**row).logits)


def test_saved_and_opened_again_it_is_the_same(model, pictures, tmp_path):
    model.save_pretrained(tmp_path)
    model.processor.save_pretrained(tmp_path)
    text = f"what {MARK} is {MARK} where"
    for opened in (
        VisualCLAForConditionalGeneration.from_pretrained(tmp_path),
        AutoModelForImageTextToText.from_pretrained(tmp_path),
    ):
        opened.processor = AutoProcessor.from_pretrained(tmp_path)
        assert not opened.training
        torch.testing.assert_close(logits_of(opened, text, pictures[:2]), logits_of(model, text, pictures[:2]))


@torch.no_grad()
def test_eyes_alone_give_the_same_features_and_hold_no_language_model(model, pictures, tmp_path):
    model.save_pretrained(tmp_path)
    model.processor.save_pretrained(tmp_path)
    eyes = VisualCLAVisionModel.from_pretrained(tmp_path)
    eyes.save_pretrained(tmp_path / "eyes")
    model.processor.tokenizer.save_pretrained(tmp_path / "eyes")
    again = VisualCLAVisionModel.from_pretrained(tmp_path / "eyes")
    stored = set(map(model.stored_name, model.state_dict()))
    assert set(again.state_dict()) == {name for name in stored if not name.startswith("text_model.")}
    pixels = model.processor.preprocess_images(pictures)
    torch.testing.assert_close(again.get_image_features(pixels).pooler_output, model.get_image_features(pixels).pooler_output)


def test_tied_embeddings_of_the_language_model_stay_tied(tmp_path):
    model = make_model("qwen3", tie_word_embeddings=True)
    model.save_pretrained(tmp_path)
    model.processor.save_pretrained(tmp_path)
    opened = VisualCLAForConditionalGeneration.from_pretrained(tmp_path)
    assert opened.get_output_embeddings().weight is opened.get_input_embeddings().weight


def test_transformers_pipeline_answers_as_chat(merged_model, tmp_path):
    merged_model.save_pretrained(tmp_path)
    merged_model.processor.save_pretrained(tmp_path)
    image = str(GOLDEN / "images" / IMAGES[0])
    content = [{"type": "image", "url": image}, {"type": "text", "text": "请描述这张图片。"}]
    answers = pipeline("image-text-to-text", model=str(tmp_path))(
        text=[{"role": "user", "content": content}], max_new_tokens=24, do_sample=False, return_full_text=False
    )
    assert answers[0]["generated_text"] == chat(merged_model, image, "请描述这张图片。", None, GREEDY)[0]


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("layout", ["transformers", "original"])
@torch.no_grad()
def test_quantised_language_model_keeps_the_eyes_whole(bits, layout, pictures, tmp_path):
    if layout == "original" and bits == 4:
        pytest.skip("4 bits on a CPU need widths that are multiples of 32; the golden model's is 172")
    folder = GOLDEN / "merged/visualcla-tiny-merged"
    if layout == "transformers":
        model, folder = make_model(), tmp_path
        model.save_pretrained(folder)
        model.processor.save_pretrained(folder)
    whole = load_pretrained(folder, dtype=torch.float32)
    model = load_pretrained(folder, dtype=torch.float32, **{f"load_in_{bits}bit": True})
    linear = {8: "Linear8bitLt", 4: "Linear4bit"}[bits]
    assert {type(module).__name__ for name, module in model.text_model.named_modules() if name.endswith("_proj")} == {linear}
    assert not any("bit" in type(module).__name__.lower() for module in model.vision_model.modules())
    assert type(model.image_projection_layer) is torch.nn.Linear
    pixels = model.processor.preprocess_images(pictures)
    torch.testing.assert_close(
        model.get_image_features(pixels).pooler_output, whole.get_image_features(pixels).pooler_output, atol=1e-5, rtol=1e-5
    )
    quantised, full = logits_of(model, f"{MARK}what", pictures[:1]), logits_of(whole, f"{MARK}what", pictures[:1])
    assert torch.isfinite(quantised).all()
    similarity = torch.nn.functional.cosine_similarity(quantised.flatten(), full.flatten(), dim=0)
    assert similarity > (0.99 if bits == 8 else 0.9)
