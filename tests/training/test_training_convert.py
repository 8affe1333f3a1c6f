"""Between all layouts without loss, the original's split as it made it, and no conversion that cannot be."""

import json
import re
import warnings

import pytest
import torch
from conftest import GOLDEN, golden_json, golden_tensors
from merging import (
    MERGED,
    RELEASE,
    TEXT,
    VISION,
    assert_same_tensors,
    composite_tensors,
    copy,
    error_of,
    run_convert,
    run_merge,
)
from models import make_model
from peft import PeftModel
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from pipelines.visualcla import detect_layout, load_pretrained, load_tokenizer
from pipelines.visualcla.adapter_forms import target_pattern
from pipelines.weights import load_tensors

LAYOUTS = ("webui", "transformers", "original")
SPLIT = GOLDEN / "tgwebui"
TEXT_HALF, VISION_HALF = "visualcla-tiny_text_lora_model_tgwebui", "visualcla-tiny_vision_lora_model_tgwebui"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The golden merged model in each layout."""
    root = tmp_path_factory.mktemp("layouts")
    for layout in LAYOUTS:
        assert run_convert(MERGED, root / layout, layout) == 0
    return {layout: root / layout for layout in LAYOUTS}


@pytest.mark.parametrize("target", LAYOUTS)
@pytest.mark.parametrize("source", LAYOUTS)
@pytest.mark.parametrize("flags", [[], ["--hardlink"], ["--max_shard_size", "60KB"]], ids=["copy", "hardlink", "shards"])
def test_every_layout_becomes_every_other_without_loss(folders, tmp_path, source, target, flags):
    assert run_convert(folders[source], tmp_path / "out", target, *flags) == 0
    assert detect_layout(tmp_path / "out") == target
    assert_same_tensors(composite_tensors(tmp_path / "out"), composite_tensors(MERGED))
    before, after = (load_tokenizer(folder) for folder in (folders[source], tmp_path / "out"))
    case = golden_json("prompts")[0] if isinstance(golden_json("prompts"), list) else None
    text = case["prompt"] if case else "<s>图 <img><img_token></img>\n什么？"
    assert before(text, add_special_tokens=False)["input_ids"] == after(text, add_special_tokens=False)["input_ids"]


def test_round_trip_over_all_layouts_answers_the_same(folders, tmp_path):
    assert run_convert(folders["original"], tmp_path / "a", "transformers") == 0
    assert run_convert(tmp_path / "a", tmp_path / "b", "webui") == 0
    assert run_convert(tmp_path / "b", tmp_path / "c", "original") == 0
    for path in (tmp_path / "a", tmp_path / "b", tmp_path / "c"):
        model = load_pretrained(path, dtype=torch.float32)
        expected = golden_tensors("merged")
        assert torch.allclose(
            model.get_image_features(expected["pixel_values"]).pooler_output, expected["projected"], atol=1e-4
        )


def test_weights_of_other_types_keep_them(tmp_path):
    model = make_model(text="qwen", vision="siglip")
    model.text_model.to(torch.bfloat16)
    model.save_pretrained(tmp_path / "model")
    model.processor.tokenizer.save_pretrained(tmp_path / "model")
    model.processor.image_processor.save_pretrained(tmp_path / "model")
    assert run_convert(tmp_path / "model", tmp_path / "webui", "webui") == 0
    assert run_convert(tmp_path / "webui", tmp_path / "back", "transformers") == 0
    assert_same_tensors(load_tensors(tmp_path / "back"), load_tensors(tmp_path / "model"))


def test_only_llama_and_clip_become_original(tmp_path, capsys):
    model = make_model(text="qwen", vision="siglip")
    model.save_pretrained(tmp_path / "model")
    model.processor.tokenizer.save_pretrained(tmp_path / "model")
    model.processor.image_processor.save_pretrained(tmp_path / "model")
    assert run_convert(tmp_path / "model", tmp_path / "out", "original") == 2
    assert "cannot hold language model 'qwen3'" in error_of(capsys)


def test_hardlink_shares_files_whose_bytes_stay(folders, tmp_path):
    assert run_convert(folders["webui"], tmp_path / "out", "transformers", "--hardlink") == 0
    shared = (folders["webui"] / "vision/model.safetensors").stat().st_ino
    assert shared in {path.stat().st_ino for path in (tmp_path / "out").glob("*.safetensors")}
    assert run_convert(folders["webui"], tmp_path / "plain", "transformers") == 0
    assert shared not in {path.stat().st_ino for path in (tmp_path / "plain").glob("*.safetensors")}


def test_release_with_its_bases_becomes_what_merge_makes(tmp_path):
    bases = ["--text_model", TEXT, "--vision_model", VISION]
    assert run_convert(RELEASE, tmp_path / "out", "webui", *bases) == 0
    assert_same_tensors(composite_tensors(tmp_path / "out"), composite_tensors(MERGED))


def test_release_without_bases_says_what_to_give(tmp_path, capsys):
    assert run_convert(RELEASE, tmp_path / "out", "webui") == 2
    assert "--text_model and --vision_model" in error_of(capsys)


@pytest.mark.parametrize("form", ["release", "split"])
def test_a_whole_model_has_no_way_back_to_an_adapter(tmp_path, capsys, form):
    assert run_convert(MERGED, tmp_path / "out", form) == 2
    assert "cannot be told any more" in error_of(capsys)


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    folder = tmp_path_factory.mktemp("split") / "out"
    assert run_convert(RELEASE, folder, "split") == 0
    return folder


def test_split_is_the_originals(split):
    keys = golden_json("webui_converted_keys")
    for half, name in (("text", TEXT_HALF), ("vision", VISION_HALF)):
        assert {path.name for path in (split / name).iterdir()} == set(keys[half])
        for golden in (SPLIT / name).glob("*.bin"):
            load = {"map_location": "cpu", "weights_only": True}
            found, expected = torch.load(split / name / golden.name, **load), torch.load(golden, **load)
            assert_same_tensors(found, expected)
            assert {key: list(tensor.shape) for key, tensor in found.items()} == keys[half][golden.name]
        for golden in (SPLIT / name).glob("*oken*.*"):
            assert (split / name / golden.name).read_bytes() == golden.read_bytes()


def test_split_configurations_say_the_same(split):
    for name in (TEXT_HALF, VISION_HALF):
        found, expected = (json.loads((folder / name / "adapter_config.json").read_text()) for folder in (split, SPLIT))
        assert {key: found[key] for key in ("r", "lora_alpha", "bias", "peft_type")} == {
            key: expected[key] for key in ("r", "lora_alpha", "bias", "peft_type")
        }
        assert set(found["modules_to_save"]) == set(expected["modules_to_save"])
        keys = load_tensors(SPLIT / name)
        modules = {key.removeprefix("base_model.model.").partition(".lora_")[0] for key in keys if ".lora_" in key}
        for module in modules:
            assert re.fullmatch(found["target_modules"], module) and re.fullmatch(
                expected["target_modules"].replace("text_model", "text_model|vision_model"), module
            )
    resampler = json.loads((split / VISION_HALF / "visual_resampler_config.json").read_text())
    golden = json.loads((SPLIT / VISION_HALF / "visual_resampler_config.json").read_text())
    assert {key: resampler[key] for key in golden} == golden


def test_text_half_loads_as_a_lora_over_a_language_model(split):
    """As the web UI does: PeftModel.from_pretrained over a model whose vocabulary has grown."""
    model = AutoModelForCausalLM.from_pretrained(TEXT, dtype=torch.float32)
    model.resize_token_embeddings(704, mean_resizing=False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = PeftModel.from_pretrained(model, split / TEXT_HALF).eval()
    assert not [str(warning.message) for warning in caught if "key" in str(warning.message).lower()]
    expected = golden_tensors("unmerged_fp32")
    with torch.no_grad():
        logits = model(inputs_embeds=expected["forward.single_0.inputs_embeds"]).logits
    assert torch.allclose(logits, expected["forward.single_0.logits"], atol=3e-4)


def test_an_adapter_in_todays_names_becomes_the_release(tmp_path):
    """What is trained here with PEFT opens in the original code: its keys, nothing missing, nothing more."""
    today = copy(RELEASE, tmp_path / "today")
    tensors = {key.replace("vision_model.vision_model.", "vision_model."): t for key, t in load_tensors(today).items()}
    (today / "adapter_model.bin").unlink()
    save_file(tensors, today / "adapter_model.safetensors")
    assert run_convert(today, tmp_path / "out", "release") == 0
    assert_same_tensors(torch.load(tmp_path / "out/adapter_model.bin", weights_only=True), load_tensors(RELEASE))
    config = json.loads((tmp_path / "out/adapter_config.json").read_text())
    known = json.loads((GOLDEN / "release/variants/adapter_config.as_written_by_peft-0.3.0.json").read_text())
    assert set(config) <= set(known)
    names = {key.removeprefix("base_model.model.").partition(".lora_")[0] for key in load_tensors(RELEASE) if ".lora_" in key}
    assert all(re.fullmatch(config["target_modules"], name) for name in names)
    assert detect_layout(tmp_path / "out") == "release"
    assert run_merge(tmp_path / "merged", lora=[tmp_path / "out"]) == 0
    assert_same_tensors(composite_tensors(tmp_path / "merged"), composite_tensors(MERGED))


@pytest.mark.parametrize("option", ["use_rslora", "use_dora"])
def test_what_the_originals_peft_does_not_know_is_no_release(tmp_path, capsys, option):
    adapter = copy(RELEASE, tmp_path / "adapter")
    settings = json.loads((adapter / "adapter_config.json").read_text()) | {option: True}
    (adapter / "adapter_config.json").write_text(json.dumps(settings))
    assert run_convert(adapter, tmp_path / "out", "release") == 2
    assert option in error_of(capsys)


def test_target_pattern_fits_exactly_the_modules_it_was_made_of():
    modules = ["model.layers.0.mlp.up", "model.layers.10.mlp.up", "model.layers.0.attn.q", "head"]
    pattern = target_pattern(modules)
    others = ["model.layers.1.mlp.up", "model.layers.10.attn.q", "xhead", "model.layers.0.mlp.upper", "model_layers.0.mlp.up"]
    assert all(re.fullmatch(pattern, module) for module in modules)
    assert not any(re.fullmatch(pattern, module) for module in others)
