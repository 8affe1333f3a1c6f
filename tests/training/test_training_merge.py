"""The golden unmerged release merges to the golden merged weights, in every layout and from every container."""

import hashlib
import json
import shutil

import pytest
import torch
from conftest import GOLDEN, GREEDY, IMAGES, golden_json
from merging import MERGED, RELEASE, TEXT, assert_same_tensors, composite_tensors, contents, copy, run_merge
from safetensors.torch import save_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from pipelines.visualcla import chat, detect_layout, load_pretrained, load_tokenizer
from pipelines.visualcla.processing_visualcla import CHAT_TEMPLATE, plain_template
from pipelines.weights import load_tensors

CASES = golden_json("generation")["merged"]
VARIANTS = GOLDEN / "release/variants"


@pytest.fixture(scope="module", params=["webui", "transformers", "original"])
def merged(request, tmp_path_factory):
    """(layout, folder) of the golden release, merged."""
    folder = tmp_path_factory.mktemp("merge") / request.param
    assert run_merge(folder, "--layout", request.param) == 0
    return request.param, folder


def test_merged_weights_are_bit_equal_to_the_originals(merged):
    layout, folder = merged
    assert detect_layout(folder) == layout
    assert_same_tensors(composite_tensors(folder), composite_tensors(MERGED))


def test_merged_folder_says_the_same_tokens(merged):
    model = load_pretrained(merged[1], dtype=torch.float32)
    for index, image in enumerate(IMAGES):
        case = CASES[f"single_{index}"]
        response, _ = chat(model, GOLDEN / "images" / image, case["text"], None, GREEDY)
        assert response == case["response"]


def test_vocabulary_size_stands_right_everywhere(merged):
    _, folder = merged
    rows = composite_tensors(folder)["text_model.model.embed_tokens.weight"].shape[0]

    def sizes(values):
        if isinstance(values, dict):
            for key, value in values.items():
                yield from [value] if key == "vocab_size" else sizes(value)

    configs = list(folder.rglob("config.json"))
    found = [size for path in configs for size in sizes(json.loads(path.read_text(encoding="utf-8")))]
    assert rows == 704 and found and set(found) == {rows}


def test_original_layout_has_the_originals_keys_and_types(tmp_path):
    assert run_merge(tmp_path / "out", "--layout", "original") == 0
    for part in ("", "text_encoder", "vision_encoder"):
        found, expected = load_tensors(tmp_path / "out" / part), load_tensors(MERGED / part)
        assert {name: (t.shape, t.dtype) for name, t in found.items()} == {
            name: (t.shape, t.dtype) for name, t in expected.items()
        }
        # The golden base went through fp16 once, its tables with it; here they are computed.
        for name in (name for name in expected if name.endswith("inv_freq")):
            assert torch.equal(found[name].half().float(), expected[name])
    for name in ("added_tokens.json", "special_tokens_map.json", "tokenizer_config.json"):
        assert json.loads((tmp_path / "out" / name).read_text()) == json.loads((MERGED / name).read_text())


def test_transformers_layout_opens_with_auto_classes(tmp_path):
    assert run_merge(tmp_path / "out", "--layout", "transformers") == 0
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "out", dtype=torch.float32)
    assert model.config.image_token_id == AutoProcessor.from_pretrained(tmp_path / "out").image_token_id == 703
    assert model.get_input_embeddings().weight.shape[0] == 704


def test_the_right_tokenizer_and_template_are_written(merged):
    _, folder = merged
    tokenizer = load_tokenizer(folder)
    for case in golden_json("tokenizer")["encode_cases"]:
        assert tokenizer(case["text"], add_special_tokens=False)["input_ids"] == case["ids_add_special_tokens_False"]
    if merged[0] != "original":
        assert tokenizer.chat_template == plain_template(CHAT_TEMPLATE)


@pytest.mark.parametrize("container", ["flat_storage", "legacy_nonzip", "safetensors", "default"])
def test_every_container_of_an_adapter_gives_the_same(tmp_path, container):
    adapter = copy(RELEASE, tmp_path / "adapter")
    (adapter / "adapter_model.bin").unlink()
    if container in ("safetensors", "default"):
        tensors = load_tensors(RELEASE)
        if container == "default":
            tensors = {
                key.replace(".lora_A.", ".lora_A.default.").replace(".lora_B.", ".lora_B.default."): t
                for key, t in tensors.items()
            }
        save_file(tensors, adapter / "adapter_model.safetensors")
    else:
        shutil.copy(VARIANTS / f"adapter_model.{container}.bin", adapter / "adapter_model.bin")
    assert run_merge(tmp_path / "out", lora=[adapter]) == 0
    assert_same_tensors(composite_tensors(tmp_path / "out"), composite_tensors(MERGED))


def test_full_clip_model_serves_as_vision_model(tmp_path):
    assert run_merge(tmp_path / "out", vision=GOLDEN / "base/clip_full") == 0
    assert_same_tensors(composite_tensors(tmp_path / "out"), composite_tensors(MERGED))


def test_merging_twice_gives_the_same_bytes(tmp_path):
    for name in ("first", "second"):
        assert run_merge(tmp_path / name, "--max_shard_size", "50KB") == 0
    assert contents(tmp_path / "first") == contents(tmp_path / "second")


def test_shards_keep_to_their_size_and_change_nothing(tmp_path):
    assert run_merge(tmp_path / "out", "--max_shard_size", "100KB") == 0
    shards = list((tmp_path / "out").glob("model-*.safetensors"))
    assert len(shards) > 3 and max(path.stat().st_size for path in shards) < 120_000
    assert_same_tensors(composite_tensors(tmp_path / "out"), composite_tensors(MERGED))


def test_dtype_is_written_and_rounded_once(tmp_path):
    assert run_merge(tmp_path / "out", "--dtype", "float32") == 0
    found = composite_tensors(tmp_path / "out")
    assert {tensor.dtype for tensor in found.values()} == {torch.float32}
    name = "text_model.model.layers.0.mlp.up_proj"
    adapter, base = load_tensors(RELEASE), load_tensors(TEXT)
    a, b = (adapter[f"base_model.model.{name}.lora_{part}.weight"].float() for part in "AB")
    expected = base[f"{name.removeprefix('text_model.')}.weight"].float() + 4 * (b @ a)
    assert torch.allclose(found[f"{name}.weight"], expected, rtol=0, atol=1e-7)


def test_verify_compares_with_base_and_adapter(tmp_path, capsys):
    assert run_merge(tmp_path / "out", "--verify") == 0
    assert "Verified: largest difference of logits, relative: text " in capsys.readouterr().out


def test_verify_finds_a_wrong_weight(tmp_path, capsys, monkeypatch):
    from pipelines.checkpoints import low_rank as lora

    apply = lora.Factors.apply
    monkeypatch.setattr(
        lora.Factors,
        "apply",
        lambda self, rows, first: apply(self, rows, first) if self.left.shape[0] > 64 else None,
    )
    assert run_merge(tmp_path / "out", "--verify") == 2
    assert "does not say what base and adapters say" in capsys.readouterr().err


def test_a_whole_model_takes_an_adapter_as_base(tmp_path):
    """A webui folder is text model and vision model at once; its own adapter adds up a second time."""
    assert run_merge(tmp_path / "once") == 0
    adapter = copy(RELEASE, tmp_path / "adapter")
    (adapter / "config.json").unlink()  # it says that the adapter was trained over fewer tokens
    assert run_merge(tmp_path / "twice", "--verify", text=tmp_path / "once", vision=None, lora=[adapter]) == 0
    once, twice = composite_tensors(tmp_path / "once"), composite_tensors(tmp_path / "twice")
    name = "vision_model.encoder.layers.0.mlp.fc1.weight"
    assert not torch.equal(once[name], twice[name])


def test_model_card_names_recipe_hashes_and_no_paths(tmp_path):
    assert run_merge(tmp_path / "out") == 0
    card = (tmp_path / "out/README.md").read_text(encoding="utf-8")
    for path in (TEXT / "pytorch_model.bin", RELEASE / "adapter_model.bin"):
        assert hashlib.sha256(path.read_bytes()).hexdigest() in card
    assert "| adapter | visualcla-tiny |" in card and str(tmp_path) not in card and str(GOLDEN) not in card
