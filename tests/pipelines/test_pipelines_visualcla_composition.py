"""VisualCLA as serving engines, trainers and transformers' own tools take a composite model."""

import json

import pytest
import torch
from models import TEXT, VISION, make_model, make_tokenizer
from PIL import Image
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    CLIPVisionConfig,
    FalconH1Config,
    GPT2Config,
    GPTNeoXConfig,
    MambaConfig,
    Siglip2VisionConfig,
    pipeline,
)

from pipelines.visualcla import VisualCLAConfig, VisualCLAForConditionalGeneration, VisualCLAModel, load_config, load_pretrained
from pipelines.visualcla.processing_visualcla import CHAT_TEMPLATE, plain_template
from pipelines.visualcla.saving import save_model_folder

MARK = "<img><img_token></img>\n"
PICTURES = [Image.new("RGB", (40, 30), colour) for colour in ("red", "green", "blue")]
MESSAGES = [
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what is"}]},
    {"role": "assistant", "content": [{"type": "text", "text": "a red circle"}]},
]


@pytest.fixture
def model():
    return make_model()


def inputs_of(model, images=PICTURES[:1], text=f"{MARK}what"):
    return model.processor(images=list(images), text=text, return_tensors="pt")


def saved(model, folder):
    model.save_pretrained(folder)
    model.processor.save_pretrained(folder)
    return folder


def test_members_are_the_fields(model):
    assert model.base_model_prefix == "model" and type(model.base_model) is VisualCLAModel
    assert {name for name, _ in model.named_children()} == {"model", "lm_head"}
    assert model.get_decoder() is model.model.text_model is model.model.get_decoder()
    names = [name for name, _ in model.named_parameters()]
    assert len(names) == len({id(parameter) for parameter in model.parameters()})
    assert all(name.startswith(("model.", "lm_head.")) for name in names)


@torch.no_grad()
def test_headless_model_gives_the_hidden_states_that_the_head_reads(model):
    inputs = inputs_of(model)
    hidden = model.model(**inputs, return_dict=False)[0]
    torch.testing.assert_close(model.lm_head(hidden), model(**inputs).logits)


@torch.no_grad()
def test_language_model_by_itself_has_the_same_weights_and_logits(model):
    inputs = inputs_of(model)
    embeds = model.model.embed(**{key: inputs[key] for key in ("input_ids", "pixel_values")})
    torch.testing.assert_close(model.text_model(inputs_embeds=embeds).logits, model(**inputs).logits)
    assert model.text_model.lm_head is model.lm_head


@torch.no_grad()
def test_auto_model_from_a_configuration_is_headless(model):
    made = AutoModel.from_config(model.config)
    assert type(made) is VisualCLAModel and made.get_input_embeddings() is made.text_model.get_input_embeddings()
    made.load_state_dict(model.model.state_dict())
    torch.testing.assert_close(made.eval()(**inputs_of(model))[0], model.model(**inputs_of(model))[0])


@torch.no_grad()
def test_image_features_are_the_pooler_output(model):
    pixels = model.processor.preprocess_images(PICTURES)
    output = model.get_image_features(pixels, return_dict=True)
    assert output.pooler_output.shape == (3, 5, 64)
    assert torch.equal(output.pooler_output, model.get_image_features(pixels, return_dict=False)[1])


def test_number_of_tokens_is_told_to_engines(model):
    data = model.processor._get_num_multimodal_tokens(image_sizes=[(30, 40), (10, 10)])
    assert (data.num_image_tokens, data.num_image_patches) == ([5, 5], [1, 1])


def test_files_have_the_released_names(model, tmp_path):
    from safetensors import safe_open

    saved(model, tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        names = set(file.keys())
    assert names == set(map(model.stored_name, model.state_dict()))
    assert "text_model.model.layers.0.mlp.up_proj.weight" in names and "text_model.lm_head.weight" in names
    again = AutoModelForImageTextToText.from_pretrained(tmp_path)
    again.save_pretrained(tmp_path / "again")
    with safe_open(tmp_path / "again/model.safetensors", "pt") as file:
        assert set(file.keys()) == names


@pytest.mark.parametrize("kind", ["gpt2", "gpt_neox"])
@torch.no_grad()
def test_language_models_with_other_names_are_saved_and_opened(kind, tmp_path):
    tokenizer = make_tokenizer()
    text = {
        "gpt2": GPT2Config(vocab_size=len(tokenizer), n_embd=64, n_layer=2, n_head=4, n_positions=256),
        "gpt_neox": GPTNeoXConfig(**{key: TEXT[key] for key in ("hidden_size", "intermediate_size", "num_hidden_layers")},
                                  num_attention_heads=4, vocab_size=len(tokenizer)),
    }[kind]  # fmt: skip
    reference = make_model()
    config = VisualCLAConfig(
        text_config=text, vision_config=CLIPVisionConfig(**VISION), image_token_id=reference.config.image_token_id,
        visual_resampler_config=reference.config.visual_resampler_config,
    )  # fmt: skip
    model = VisualCLAForConditionalGeneration(config).eval()
    model.processor = reference.processor
    expected = model(**inputs_of(model)).logits
    for opened in (load_pretrained(saved(model, tmp_path / "whole")),):
        torch.testing.assert_close(opened(**inputs_of(model)).logits, expected)
    opened = load_pretrained(save_model_folder(model, model.processor, tmp_path / "webui"))
    torch.testing.assert_close(opened(**inputs_of(model)).logits, expected)
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "webui").config.model_type == kind


def test_short_rows_of_a_batch_answer_as_alone(model, tmp_path):
    saved(model, tmp_path)
    chats = [
        [{"role": "user", "content": [{"type": "image", "image": PICTURES[0]}, {"type": "text", "text": text}]}]
        for text in ("what", "where is the red circle what is the green square")
    ]
    run = pipeline("image-text-to-text", model=str(tmp_path), torch_dtype=torch.float32)
    settings = {"max_new_tokens": 6, "do_sample": False, "return_full_text": False}
    together = run(text=chats, batch_size=2, **settings)
    alone = [run(text=[chat], **settings) for chat in chats]
    text = [[answer["generated_text"] for answer in (row if isinstance(row, list) else [row])] for row in together]
    assert text == [[answer["generated_text"] for answer in (row[0] if isinstance(row[0], list) else row)] for row in alone]


def test_processor_by_itself_opens_again(model, tmp_path):
    model.processor.save_pretrained(tmp_path)
    again = type(model.processor).from_pretrained(tmp_path)
    assert again.num_image_embeds == model.processor.num_image_embeds
    images, text = PICTURES[:1], f"{MARK}what"
    before, after = (each(images=images, text=text, return_tensors="pt") for each in (model.processor, again))
    assert torch.equal(before["input_ids"], after["input_ids"]) and torch.equal(before["pixel_values"], after["pixel_values"])


@pytest.mark.parametrize("place", ["cpu", "disk"])
@torch.no_grad()
def test_offloaded_vision_model_encodes_images(model, tmp_path, place):
    saved(model, tmp_path)
    from accelerate import cpu_offload, disk_offload

    opened = load_pretrained(tmp_path, dtype=torch.float32)
    device = torch.device("cpu")
    if place == "cpu":
        cpu_offload(opened.model.vision_model, device)
        cpu_offload(opened.model.image_projection_layer, device)
    else:
        disk_offload(opened.model.vision_model, str(tmp_path / "offload"), device)
    assert opened.model.vision_model.device.type == "meta"
    torch.testing.assert_close(opened(**inputs_of(model)).logits, model(**inputs_of(model)).logits)


def test_infinite_numbers_of_a_configuration_are_read(tmp_path):
    text = FalconH1Config(time_step_limit=(0.0, float("inf")))
    VisualCLAConfig(text_config=text, vision_config=CLIPVisionConfig(**VISION)).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").touch()
    assert tuple(load_config(tmp_path).text_config.time_step_limit) == (0.0, float("inf"))


def test_vision_encoders_without_an_image_size_are_refused():
    with pytest.raises(ValueError, match="'siglip2_vision_model' has no image_size"):
        VisualCLAConfig(vision_config=Siglip2VisionConfig())


def test_language_models_that_cannot_continue_from_embeddings_are_refused():
    config = VisualCLAConfig(text_config=MambaConfig(hidden_size=64, num_hidden_layers=1), vision_config=VISION)
    with pytest.raises(ValueError, match="MambaForCausalLM cannot be the language model"):
        VisualCLAForConditionalGeneration(config)


def test_template_marks_answers_and_plain_renderers_get_one_without(model, tmp_path):
    assert model.processor.chat_template == CHAT_TEMPLATE
    mask = model.processor.tokenizer.apply_chat_template(
        MESSAGES, chat_template=CHAT_TEMPLATE, return_assistant_tokens_mask=True, return_dict=True
    )
    answer = [id for id, is_answer in zip(mask["input_ids"], mask["assistant_masks"], strict=True) if is_answer]
    assert "".join(model.processor.tokenizer.decode(answer).split()) == "aredcircle"
    save_model_folder(model, model.processor, tmp_path / "webui")
    assert "generation" not in plain_template(CHAT_TEMPLATE).replace("add_generation_prompt", "")
    assert (tmp_path / "webui/chat_template.jinja").read_text(encoding="utf-8") == plain_template(CHAT_TEMPLATE)
    assert load_pretrained(tmp_path / "webui").processor.chat_template == CHAT_TEMPLATE


def test_folder_opens_by_its_auto_map(model, tmp_path, monkeypatch):
    saved(model, tmp_path)
    values = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert values["auto_map"]["AutoModel"] == "auto_visualcla.VisualCLAModel"
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    config = AutoConfig.from_pretrained(tmp_path, trust_remote_code=True)
    assert type(config) is VisualCLAConfig
    assert (
        type(AutoModelForImageTextToText.from_pretrained(tmp_path, trust_remote_code=True)) is VisualCLAForConditionalGeneration
    )
    assert type(AutoProcessor.from_pretrained(tmp_path)) is type(model.processor)
