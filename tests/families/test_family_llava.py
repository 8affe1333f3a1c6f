"""LLaVA v0 and v1.5 from every file they were published as, against the originals' recorded numbers."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from parity import Record
from parity_llava import VERSIONS, compare_version, open_version, pictures
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    GenerationConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

from pipelines import llava, load_model
from pipelines.base import ImagePart
from pipelines.generation import ChatModel, message
from pipelines.llava.layouts import projector_from_original, projector_to_original
from pipelines.registry import find_family, load_pipeline, pipeline_of

GOLDEN = Path(__file__).parent.parent / "golden" / "llava"
EXPECTED = json.loads((GOLDEN / "expected.json").read_text(encoding="utf-8"))
IMAGES = pictures(GOLDEN)
QUESTION = [message("user", "What color is the boat?", 1)]


@pytest.fixture(scope="module", params=VERSIONS)
def version(request):
    return request.param


@pytest.fixture(scope="module")
def opened(version):
    return open_version(GOLDEN, version)


def parts_of(version, **kwargs):
    bases = {"text_model": GOLDEN / "llm_tiny", "vision_model": GOLDEN / "checkpoint" / VERSIONS[version]}
    return llava.FAMILY.read(GOLDEN / "checkpoint" / f"mm_projector_{version}.bin", **bases, **kwargs)


def written(version, folder, layout, **kwargs):
    llava.FAMILY.write(parts_of(version, **kwargs), folder, layout)
    return folder


def assert_golden(version, model, processor):
    record = Record("llava")
    compare_version(version, model, processor, IMAGES, EXPECTED, np.load(GOLDEN / "expected.npz"), record)
    assert len(record.comparisons) > 8
    assert not record.wrong, str(record)


def logits_of(model, processor):
    text = processor.apply_chat_template(QUESTION, add_generation_prompt=True)
    with torch.no_grad():
        return model(**processor(images=IMAGES[:1], text=text)).logits


def test_model_is_transformers_own(opened):
    assert type(opened[0]) is LlavaForConditionalGeneration


@pytest.mark.parametrize("layout", ["webui", "transformers", "original"])
def test_written_and_read_again_it_is_the_same_model(version, layout, tmp_path):
    parts = parts_of(version)
    llava.FAMILY.write(parts, tmp_path / "out", layout)
    assert find_family(tmp_path / "out") == "llava"
    assert_golden(version, *load_model(tmp_path / "out", dtype=torch.float32))
    back = llava.FAMILY.read(tmp_path / "out")
    for name in ("vision", "language"):
        before, after = getattr(parts, name), getattr(back, name)
        assert before.keys() == after.keys()
        assert all(torch.equal(before[key], after[key]) for key in before)
    llava.FAMILY.write(back, tmp_path / "again", "webui")
    again = llava.FAMILY.read(tmp_path / "again")
    assert again.config.to_dict() | {"architectures": None} == back.config.to_dict() | {"architectures": None}


def test_web_ui_folder_is_a_language_model_with_a_vision_model_beside_it(version, opened, tmp_path):
    folder = written(version, tmp_path / "out", "webui")
    language_model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    pipeline = load_pipeline(folder)
    features = torch.stack([each.embeds for each in pipeline.encode_images(IMAGES)])
    np.testing.assert_allclose(features, np.load(GOLDEN / "expected.npz")[f"{version}.image_embeds"], atol=5e-5, rtol=0)
    model, processor = opened
    answers = []
    for each, vision in ((model, None), (language_model, pipeline)):
        chat = ChatModel(each, processor, vision)
        config = GenerationConfig(do_sample=False, max_new_tokens=8)
        answers.append(chat.answer(QUESTION, [ImagePart.of(IMAGES[0])], config))
    assert answers[0] == answers[1] != ""


def test_pipeline_reads_no_language_model(tmp_path):
    folder = written("v0", tmp_path / "out", "webui")
    (folder / "model.safetensors").unlink()
    assert len(load_pipeline(folder).encode_images(IMAGES)) == 2


@pytest.mark.parametrize("layout", ["webui", "transformers"])
def test_transformers_own_classes_open_the_composite_folder_and_we_what_they_write(version, opened, layout, tmp_path):
    folder = written(version, tmp_path / "out", "transformers")
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    assert_golden(version, model, opened[1])
    model.save_pretrained(tmp_path / "theirs")
    processor = AutoProcessor.from_pretrained(folder)
    processor.save_pretrained(tmp_path / "theirs")
    torch.testing.assert_close(
        logits_of(*load_model(tmp_path / "theirs", dtype=torch.float32)), logits_of(*opened), atol=1e-5, rtol=1e-5
    )
    llava.FAMILY.write(llava.FAMILY.read(tmp_path / "theirs"), tmp_path / "converted", layout)
    torch.testing.assert_close(
        logits_of(*load_model(tmp_path / "converted", dtype=torch.float32)), logits_of(*opened), atol=1e-5, rtol=1e-5
    )


def test_auto_processor_gives_the_ids_and_pixels_that_ours_gives(version, opened, tmp_path):
    theirs = AutoProcessor.from_pretrained(written(version, tmp_path / "out", "transformers"))
    ours = opened[1]
    messages = [message("user", "Compare the pictures.", 2)]
    text = theirs.apply_chat_template(messages, add_generation_prompt=True)
    found = theirs(images=IMAGES, text=text, return_tensors="pt", add_special_tokens=False)
    expected = ours(images=IMAGES, text=ours.apply_chat_template(messages, add_generation_prompt=True))
    assert torch.equal(found["input_ids"], expected["input_ids"])
    torch.testing.assert_close(found["pixel_values"], expected["pixel_values"])


@pytest.fixture
def lora_folder(version, opened, tmp_path):
    """What LLaVA's `train.py --lora_enable` writes: LoRA of the language model, the projector beside it."""
    folder = tmp_path / "lora"
    base = AutoModelForCausalLM.from_pretrained(GOLDEN / "llm_tiny", dtype=torch.float32)
    adapted = get_peft_model(base, LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "up_proj"], init_lora_weights=False))
    adapted.save_pretrained(folder, safe_serialization=False)
    projector = torch.load(GOLDEN / "checkpoint" / f"mm_projector_{version}.bin", weights_only=True)
    other = {f"base_model.model.{name}": tensor + 0.1 for name, tensor in projector.items()}
    torch.save(other, folder / "non_lora_trainables.bin")
    original = written(version, tmp_path / "original", "original")
    settings = json.loads((original / "config.json").read_text(encoding="utf-8"))
    settings.pop("mm_vision_config")
    (folder / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder, original


def test_lora_brings_its_projector_both_over_a_model_and_over_its_bases(version, opened, lora_folder, tmp_path):
    folder, original = lora_folder
    assert find_family(folder) == "llava"
    bases = {"text_model": GOLDEN / "llm_tiny", "vision_model": GOLDEN / "checkpoint" / VERSIONS[version]}
    by_itself = logits_of(*load_model(folder, **bases, dtype=torch.float32))
    over_model = logits_of(*load_model(original, lora_model=folder, dtype=torch.float32))
    torch.testing.assert_close(by_itself, over_model)
    assert (by_itself - logits_of(*opened)).abs().max() > 1e-3
    llava.FAMILY.write(llava.FAMILY.read(folder, **bases), tmp_path / "merged", "webui")
    merged = load_model(tmp_path / "merged", dtype=torch.float32)
    torch.testing.assert_close(logits_of(*merged), by_itself, atol=1e-4, rtol=1e-4)
    (folder / "non_lora_trainables.bin").unlink()
    without = logits_of(*load_model(original, lora_model=folder, dtype=torch.float32))
    assert (without - by_itself).abs().max() > 1e-3, "the projector of the LoRA is in the one and not in the other"
    with pytest.raises(ValueError, match="Copy its non_lora_trainables.bin into it"):
        load_model(folder, **bases)


def test_folder_in_the_published_names_opens(tmp_path):
    """llava-hf's names of transformers 4 (`language_model.model.*`), an `<image>` token, `<pad>` rows, a chat template of its own."""
    model, processor = open_version(GOLDEN, "v1.5")
    folder = written("v1.5", tmp_path / "out", "transformers")
    from safetensors.torch import load_file

    names = set(load_file(folder / "model.safetensors"))
    assert {"language_model.lm_head.weight", "multi_modal_projector.linear_1.weight"} <= names
    assert any(name.startswith("vision_tower.vision_model.encoder.layers.0") for name in names)
    again, own = load_model(folder, dtype=torch.float32)
    own.tokenizer.add_tokens(["<image>"], special_tokens=True)
    again.resize_token_embeddings(len(own.tokenizer) + 3, mean_resizing=False)
    again.config.image_token_id = own.tokenizer.convert_tokens_to_ids("<image>")
    again.save_pretrained(tmp_path / "hf")
    own.tokenizer.chat_template = (
        "USER: {% for item in messages[0].content %}{% if item.type == 'image' %}<image>\n{% endif %}{% endfor %}"
    )
    own.tokenizer.save_pretrained(tmp_path / "hf")
    own.image_processor.save_pretrained(tmp_path / "hf")
    model_hf, processor_hf = load_model(tmp_path / "hf", dtype=torch.float32)
    assert processor_hf.image_token_id == again.config.image_token_id
    assert processor_hf.apply_chat_template(QUESTION) == "USER: <image>\n"
    text = "USER: <image>\nWhat? ASSISTANT:"
    with torch.no_grad():
        one, two = (
            each(**own(images=IMAGES[:1], text=text)).logits for each, own in ((model, processor), (model_hf, processor_hf))
        )
    torch.testing.assert_close(two[..., : one.shape[-1]], one, atol=1e-5, rtol=1e-5)


def test_linear_projector_survives_training_of_its_second_layer():
    torch.manual_seed(0)
    stored = {"weight": torch.randn(6, 4), "bias": torch.randn(6)}
    vision = projector_from_original(stored, "x")
    assert all(torch.equal(tensor, stored[name]) for name, tensor in projector_to_original(vision, True).items())
    vision["multi_modal_projector.linear_2.weight"] = torch.randn(6, 6)
    one = projector_to_original(vision, True)
    x = torch.randn(3, 4)
    first = x @ vision["multi_modal_projector.linear_1.weight"].T + vision["multi_modal_projector.linear_1.bias"]
    both = first @ vision["multi_modal_projector.linear_2.weight"].T + vision["multi_modal_projector.linear_2.bias"]
    torch.testing.assert_close(x @ one["weight"].T + one["bias"], both)


def test_prompts_are_the_originals(version, opened):
    text = opened[1].apply_chat_template(
        [*QUESTION, {"role": "assistant", "content": "Red."}, message("user", "Sure?")], add_generation_prompt=True
    )
    assert (
        text
        == {
            "v0": "<s>A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, detailed, and "
            "polite answers to the human's questions.###Human: <image>\nWhat color is the boat?###Assistant: Red.###Human: Sure?###"
            "Assistant:",
            "v1.5": "<s>A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, and "
            "polite answers to the user's questions. USER: <image>\nWhat color is the boat? ASSISTANT: Red.</s>USER: Sure? ASSISTANT:",
        }[version]
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_answers(version, dtype):
    bases = {"text_model": GOLDEN / "llm_tiny", "vision_model": GOLDEN / "checkpoint" / VERSIONS[version]}
    model, processor = load_model(GOLDEN / "checkpoint" / f"mm_projector_{version}.bin", **bases, dtype=dtype)
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    assert torch.isfinite(logits_of(model, processor)).all()


def test_changed_weights_and_adapters_change_the_fingerprint():
    model, processor = open_version(GOLDEN, "v0")
    pipeline = pipeline_of(model, processor)
    before = pipeline.fingerprint
    assert pipeline.fingerprint == before
    with torch.no_grad():
        model.model.multi_modal_projector.linear_1.bias.add_(1)
    assert pipeline.fingerprint != before


def fails(*args, **kwargs) -> str:
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        load_model(*args, **kwargs)
    assert "\n" not in str(error.value)
    return str(error.value)


PROJECTOR, TEXT, VISION = GOLDEN / "checkpoint/mm_projector_v0.bin", GOLDEN / "llm_tiny", GOLDEN / "checkpoint/clip_224"


def test_what_is_missing_is_named(tmp_path):
    assert "Give text_model (--text_model)" in fails(PROJECTOR, vision_model=VISION)
    assert "Give vision_model (--vision_model)" in fails(PROJECTOR, text_model=TEXT)
    original = written("v1.5", tmp_path / "original", "original")
    assert "leave text_model out" in fails(original, text_model=TEXT)
    settings = json.loads((original / "config.json").read_text(encoding="utf-8"))
    (original / "config.json").write_text(json.dumps(settings | {"image_aspect_ratio": "anyres"}), encoding="utf-8")
    assert "LLaVA-NeXT" in fails(original)
    (original / "config.json").write_text(json.dumps(settings | {"architectures": ["LlavaMptForCausalLM"]}), encoding="utf-8")
    assert "LlavaMptForCausalLM" in fails(original)


def test_encoder_that_is_neither_there_nor_cached_is_named(tmp_path):
    original = written("v1.5", tmp_path / "original", "original")
    tensors = torch.load(original / "pytorch_model.bin", weights_only=True)
    torch.save({name: t for name, t in tensors.items() if "vision_tower" not in name}, original / "pytorch_model.bin")
    settings = json.loads((original / "config.json").read_text(encoding="utf-8"))
    settings["mm_vision_tower"] = "nobody/clip-vit-tiny"
    (original / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    assert "'nobody/clip-vit-tiny', which is not in it. Give its folder as vision_model" in fails(original)
    assert_golden("v1.5", *load_model(original, vision_model=GOLDEN / "checkpoint/clip_336", dtype=torch.float32))


def test_parts_that_do_not_fit_are_named(tmp_path):
    assert "have another shape" in fails(
        GOLDEN / "checkpoint/mm_projector_v1.5.bin", text_model=TEXT, vision_model=wide_encoder(tmp_path)
    )
    folder = written("v0", tmp_path / "out", "webui")
    shutil.copy(folder / "model.safetensors", folder / "vision/model.safetensors")
    assert "does not fit" in fails(folder)
    torch.save({"model.mm_projector.5.weight": torch.zeros(2, 2)}, tmp_path / "mm_projector.bin")
    assert "mlp2x_gelu, LLaVA 1.5" in fails(tmp_path / "mm_projector.bin", text_model=TEXT, vision_model=VISION)


def wide_encoder(tmp_path):
    from transformers import CLIPVisionConfig, CLIPVisionModel

    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "patch_size": 14}
    folder = tmp_path / "wide"
    CLIPVisionModel(CLIPVisionConfig(**sizes, image_size=336)).save_pretrained(folder)
    return folder


def test_other_language_models_are_saved_and_opened(tmp_path):
    """llava-hf folders stand on other language models, too."""
    from transformers import CLIPVisionConfig, Qwen3Config

    text = Qwen3Config(hidden_size=48, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                       head_dim=12, vocab_size=484, tie_word_embeddings=True)  # fmt: skip
    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, image_size=224, patch_size=14
    )
    model = LlavaForConditionalGeneration(LlavaConfig(text_config=text, vision_config=vision, image_token_index=3)).eval()
    model.save_pretrained(tmp_path / "hf")
    _, processor = open_version(GOLDEN, "v1.5")
    processor.tokenizer.save_pretrained(tmp_path / "hf")
    opened, own = load_model(tmp_path / "hf", dtype=torch.float32)
    text = "USER: <image>\nWhat?"
    inputs = own(images=IMAGES[:1], text=text)
    with torch.no_grad():
        expected = model(**inputs).logits
        torch.testing.assert_close(opened(**inputs).logits, expected)
        llava.FAMILY.write(llava.FAMILY.read(tmp_path / "hf"), tmp_path / "out", "webui")
        torch.testing.assert_close(load_model(tmp_path / "out", dtype=torch.float32)[0](**inputs).logits, expected)
