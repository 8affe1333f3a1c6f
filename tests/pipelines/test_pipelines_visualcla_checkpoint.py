"""Every layout opens; whatever does not fit is named, and nothing of a checkpoint runs."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import GOLDEN, GREEDY, IMAGES, golden_json, load_golden
from models import make_model
from peft import PeftModel
from safetensors.torch import load_file, save_file

from pipelines import visualcla
from pipelines.images import load_image
from pipelines.visualcla import VisualCLAVisionModel, chat, detect_layout, load_eyes, load_pretrained
from pipelines.visualcla.adapter import apply_adapter

MERGED, RELEASE = GOLDEN / "merged/visualcla-tiny-merged", GOLDEN / "release/visualcla-tiny"
BASES = {"text_model": GOLDEN / "base/text_model", "vision_model": GOLDEN / "base/vision_model"}
QUESTION = (GOLDEN / "images" / IMAGES[0], "请描述这张图片。")
ANSWERS = {variant: cases["single_0"]["response"] for variant, cases in golden_json("generation").items()}


def answer(model) -> str:
    return chat(model, *QUESTION, None, GREEDY)[0]


@pytest.fixture
def release(tmp_path):
    """A copy of the release to break."""
    return Path(shutil.copytree(RELEASE, tmp_path / "release"))


@pytest.fixture
def merged(tmp_path):
    return Path(shutil.copytree(MERGED, tmp_path / "merged"))


@pytest.fixture
def webui(tmp_path, merged_model):
    folder = tmp_path / "webui"
    merged_model.text_model.save_pretrained(folder)
    merged_model.processor.tokenizer.save_pretrained(folder)
    merged_model.processor.image_processor.save_pretrained(folder / "vision")
    load_eyes(MERGED, dtype=torch.float32).save_pretrained(folder / "vision")
    return folder


def test_layouts_are_told_apart(webui, merged_model, tmp_path):
    merged_model.save_pretrained(tmp_path / "composite")
    assert detect_layout(MERGED) == "original"
    assert detect_layout(RELEASE) == "release"
    assert detect_layout(webui) == "webui"
    assert detect_layout(tmp_path / "composite") == "transformers"


def test_webui_folder_answers_as_the_original(webui):
    assert answer(load_pretrained(webui)) == ANSWERS["merged"]


def test_eyes_of_every_layout_are_the_same(webui, tmp_path, merged_model):
    merged_model.save_pretrained(tmp_path / "composite")
    merged_model.processor.save_pretrained(tmp_path / "composite")
    reference = load_eyes(MERGED, dtype=torch.float32).state_dict()
    for folder in (webui, webui / "vision", tmp_path / "composite"):
        state = load_eyes(folder).state_dict()
        assert state.keys() == reference.keys()
        assert all(torch.equal(state[name], reference[name]) for name in state)


def test_eyes_of_a_release_are_those_of_the_whole_model():
    eyes = load_eyes(RELEASE, vision_model=BASES["vision_model"], dtype=torch.float32)
    whole = load_golden("unmerged_fp32")
    pixels = whole.processor.preprocess_images([QUESTION[0]])
    with torch.no_grad():
        assert torch.equal(eyes.get_image_features(pixels).pooler_output, whole.get_image_features(pixels).pooler_output)


@pytest.mark.parametrize("container", ["adapter_model.flat_storage.bin", "adapter_model.legacy_nonzip.bin"])
def test_release_opens_from_every_container(release, container):
    shutil.copy(GOLDEN / "release/variants" / container, release / "adapter_model.bin")
    assert answer(load_pretrained(release, **BASES, dtype=torch.float32)) == ANSWERS["unmerged_fp32"]


def test_release_over_a_whole_clip_model():
    bases = {**BASES, "vision_model": GOLDEN / "base/clip_full"}
    assert answer(load_pretrained(RELEASE, **bases, dtype=torch.float32)) == ANSWERS["unmerged_fp32"]


def test_release_config_written_by_peft_itself(release):
    shutil.copy(GOLDEN / "release/variants/adapter_config.as_written_by_peft-0.3.0.json", release / "adapter_config.json")
    assert answer(load_pretrained(release, **BASES, dtype=torch.float32)) == ANSWERS["unmerged_fp32"]


def test_snippet_of_the_original_readme_for_a_merged_model():
    model, tokenizer, image_processor = visualcla.get_model_and_tokenizer_and_processor(
        visualcla_model=MERGED, torch_dtype=torch.float16, load_in_8bit=True
    )
    model.to("cpu")
    history = []
    visualcla.chat(model=model, image=str(QUESTION[0]), text=QUESTION[1], history=history, generation_config=GREEDY)
    assert [item["type"] for item in history] == ["instruction", "response"]
    assert len(tokenizer) == 704
    assert image_processor(load_image(QUESTION[0]), return_tensors="pt")["pixel_values"].shape == (1, 3, 32, 32)


def test_snippet_of_the_original_readme_for_an_unmerged_model():
    base_model, tokenizer, _ = visualcla.get_model_and_tokenizer_and_processor(
        text_model=BASES["text_model"], vision_model=BASES["vision_model"], lora_model=RELEASE, torch_dtype=torch.float32
    )
    base_model.resize_token_embeddings(len(tokenizer))
    model = PeftModel.from_pretrained(base_model, str(RELEASE), torch_dtype=torch.float32)
    model.to("cpu")
    arrived = [parameter for name, parameter in model.named_parameters() if "lora_B" in name]
    assert len(arrived) == 18 + 21
    assert all(parameter.abs().sum() > 0 for parameter in arrived), "a LoRA stayed empty: its name did not match"
    history = []
    response, _ = visualcla.chat(
        model=model, image=str(QUESTION[0]), text=QUESTION[1], history=history, generation_config=GREEDY
    )
    assert response == ANSWERS["unmerged_fp32"] == history[-1]["value"]


def test_every_lora_of_the_release_arrives():
    model = load_golden("unmerged_fp32")
    arrived = {name: parameter for name, parameter in model.named_parameters() if "lora_B" in name}
    assert sum(name.startswith("model.vision_model") for name in arrived) == 18
    assert sum(name.startswith("model.text_model") for name in arrived) == 21
    assert all(parameter.abs().sum() > 0 for parameter in arrived.values())


def test_stale_vocabulary_of_the_original_merge_is_mended():
    assert json.loads((MERGED / "text_encoder/config.json").read_text())["vocab_size"] == 700
    model = load_golden("merged")
    assert model.config.text_config.vocab_size == model.text_model.config.vocab_size == 704


def test_loaded_models_do_not_drop_out():
    for variant in ("merged", "unmerged_fp32"):
        assert not any(module.training for module in load_golden(variant).modules())


def test_a_device_map_is_followed():
    model = load_pretrained(MERGED, dtype=torch.float32, device_map={"": "cpu"})
    assert answer(model) == ANSWERS["merged"]


def test_quantised_release_answers(release):
    model = load_pretrained(release, **BASES, dtype=torch.float32, load_in_8bit=True)
    kinds = {type(module).__name__ for name, module in model.text_model.named_modules() if name.endswith("base_layer")}
    assert kinds == {"Linear8bitLt"}
    assert all(parameter.dtype == torch.float32 for name, parameter in model.named_parameters() if name.startswith("vision"))
    assert answer(model)


# What does not fit


def test_widths_that_4_bits_cannot_have_on_a_cpu_are_told_when_loading():
    """The golden model's 172 is no multiple of 32. A processor without bitsandbytes' packed kernels can do it."""
    try:
        model = load_pretrained(MERGED, dtype=torch.float32, load_in_4bit=True)
    except ValueError as error:
        assert "cannot be computed in 4 bits on this processor" in str(error)
    else:
        assert answer(model)


def test_a_folder_that_is_no_checkpoint(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(ValueError, match=r"is not a VisualCLA checkpoint: missing \['config.json', .*it holds \['notes.txt'\]"):
        load_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match="'/no/such/folder' is not a folder"):
        load_pretrained("/no/such/folder")
    with pytest.raises(FileNotFoundError, match="'nobody/nothing' is neither a folder here nor to be had from the hub"):
        load_pretrained("nobody/nothing")


def test_a_release_without_its_bases():
    with pytest.raises(ValueError, match="is an adapter: it needs the language model and the vision encoder"):
        load_pretrained(RELEASE)
    with pytest.raises(ValueError, match=r"Missing \['vision_model', 'lora_model'\]"):
        visualcla.get_model_and_tokenizer_and_processor(text_model=BASES["text_model"])


def test_an_adapter_for_another_language_model(release, tmp_path):
    other = tmp_path / "other"
    make_model(num_hidden_layers=3).text_model.save_pretrained(other)
    with pytest.raises(ValueError, match="have another shape than the model: text_model.*Was it made for another base model"):
        load_pretrained(release, text_model=other, vision_model=BASES["vision_model"])


def test_an_adapter_with_fewer_layers_than_the_model(release):
    adapter = torch.load(release / "adapter_model.bin", weights_only=True)
    less = {name: tensor for name, tensor in adapter.items() if "text_model.model.layers.2" not in name}
    torch.save(less, release / "adapter_model.bin")
    with pytest.raises(ValueError, match="targets 39 modules of this model, and 7 of them have no LoRA"):
        load_pretrained(release, **BASES)


def test_an_adapter_tensor_without_a_place_is_named(release):
    adapter = torch.load(release / "adapter_model.bin", weights_only=True)
    adapter["base_model.model.text_model.model.layers.9.mlp.up_proj.lora_A.weight"] = torch.zeros(4, 64)
    torch.save(adapter, release / "adapter_model.bin")
    with pytest.raises(ValueError, match=r"has no .*lora_B.* for text_model.model.layers\.9\.mlp\.up_proj"):
        load_pretrained(release, **BASES)


def test_an_adapter_that_is_no_lora(merged_model, release):
    config = json.loads((release / "adapter_config.json").read_text())
    (release / "adapter_config.json").write_text(json.dumps({**config, "peft_type": "IA3"}))
    with pytest.raises(ValueError, match="peft_type 'IA3'; only 'LORA' can be merged"):
        apply_adapter(merged_model, release)


def test_eyes_of_another_width(webui, tmp_path):
    other = make_model(hidden_size=96, num_attention_heads=6)
    VisualCLAVisionModel.from_pretrained(webui).save_pretrained(tmp_path / "eyes")
    for part in ("vision/config.json", "vision/model.safetensors"):
        (webui / part).unlink()
    other.save_pretrained(tmp_path / "composite")
    other.processor.save_pretrained(tmp_path / "composite")
    load_eyes(tmp_path / "composite").save_pretrained(webui / "vision")
    with pytest.raises(ValueError, match="The eyes give embeddings of width 96, but the language model's width is 64"):
        load_pretrained(webui)


def test_a_missing_tokenizer(merged):
    (merged / "tokenizer.model").unlink()
    with pytest.raises(FileNotFoundError, match="holds no tokenizer"):
        load_pretrained(merged)


def test_a_missing_image_processor(merged):
    (merged / "preprocessor_config.json").unlink()
    with pytest.raises(FileNotFoundError, match="holds no 'preprocessor_config.json'"):
        load_pretrained(merged)


def test_a_vocabulary_that_does_not_fit(webui):
    tokenizer = visualcla.load_tokenizer(webui)
    tokenizer.add_tokens(["zzq1", "zzq2"])
    tokenizer.save_pretrained(webui)
    with pytest.raises(ValueError, match="has 706 tokens but the language model only 704 embeddings"):
        load_pretrained(webui)


def test_a_half_written_weight_file(merged, webui):
    for file in (merged / "pytorch_model.bin", merged / "vision_encoder/pytorch_model.bin", webui / "vision/model.safetensors"):
        whole = file.read_bytes()
        file.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(ValueError, match=rf"{file.name}' (is broken or half-written|was not opened: it is broken)"):
            load_pretrained(merged if merged in file.parents else webui)
        file.write_bytes(whole)


def test_missing_and_unknown_tensors_are_named(merged):
    tensors = torch.load(merged / "pytorch_model.bin", weights_only=True)
    tensors["image_projection_layer.weights"] = tensors.pop("image_projection_layer.weight")
    torch.save(tensors, merged / "pytorch_model.bin")
    expected = r"1 tensors missing \['image_projection_layer.weight'\], 1 unknown \['image_projection_layer.weights'\]"
    with pytest.raises(ValueError, match=expected):
        load_pretrained(merged)


class Evil:
    def __reduce__(self):
        return (Path.touch, (Path("evil-was-here"),))


@pytest.mark.parametrize("file", ["pytorch_model.bin", "vision_encoder/pytorch_model.bin"])
def test_a_pickle_that_would_run_code_is_not_opened(merged, monkeypatch, tmp_path, file):
    monkeypatch.chdir(tmp_path)
    torch.save({"image_projection_layer.bias": Evil()}, merged / file)
    with pytest.raises(ValueError, match="could run code"):
        load_pretrained(merged)
    assert not (tmp_path / "evil-was-here").exists()


def test_a_broken_config(merged):
    (merged / "config.json").write_text('{"model_type": "visual')
    with pytest.raises(ValueError, match=r"config.json' is not valid JSON .*Copy the file again"):
        load_pretrained(merged)


def test_safetensors_are_preferred_and_give_the_same(merged):
    tensors = torch.load(merged / "pytorch_model.bin", weights_only=True)
    save_file(tensors, merged / "model.safetensors")
    (merged / "pytorch_model.bin").write_bytes(b"not read")
    assert set(load_file(merged / "model.safetensors")) == set(tensors)
    assert answer(load_pretrained(merged, dtype=torch.float32)) == ANSWERS["merged"]


def test_adapter_is_served_with_the_tokenizer_that_it_was_trained_with(tmp_path):
    adapter = tmp_path / "adapter"
    shutil.copytree("tests/golden/demo_adapter", adapter)

    def load(**adapter):
        return load_pretrained("demo/model", dtype=torch.float32, **adapter)

    own = load(lora_model="tests/golden/demo_adapter").processor.tokenizer
    tokenizer = load().processor.tokenizer
    assert own.eos_token == tokenizer.eos_token == "</s>"
    tokenizer.eos_token = tokenizer.bos_token
    tokenizer.save_pretrained(adapter)
    assert load(lora_model=adapter).processor.tokenizer.eos_token == tokenizer.bos_token
