"""mPLUG-Owl and LRV-Instruction V2 in every layout, in chat, and what is refused; the original's numbers are in test_parity.py."""

import json
import shutil
from pathlib import Path

import numpy as np
import parity
import parity_mplug_owl
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor, GenerationConfig

from pipelines import load_model, mplug_owl
from pipelines.base import ImagePart
from pipelines.generation import ChatModel, message
from pipelines.mplug_owl.layouts import vision_from_published, vision_to_published
from pipelines.registry import find_family, load_pipeline

GOLDEN = Path(__file__).parent.parent / "golden" / "mplug_owl"
EXPECTED = json.loads((GOLDEN / "expected.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def arrays():
    return np.load(GOLDEN / "expected.npz")


def assert_case(model, processor, name, images, arrays):
    record = parity.Record("mplug_owl")
    parity_mplug_owl.compare_case(model, processor, GOLDEN, name, EXPECTED, arrays, record)
    assert len(record.comparisons) == 4
    assert not record.wrong, str(record)


@pytest.fixture(scope="module")
def images():
    return [Image.open(GOLDEN / "images" / f"image_{letter}.png") for letter in "ab"]


@pytest.fixture(scope="module")
def base():
    return load_model(GOLDEN / "checkpoint", dtype=torch.float32)


@pytest.fixture(scope="module")
def lrv():
    return load_model(GOLDEN / "checkpoint", lora_model=GOLDEN / "lrv_v2" / "lora_only.bin", dtype=torch.float32)


def test_adjacent_images_are_two_unlike_the_original(base, images):
    """quirk_adjacent_images: the original counts 130 placeholders in a row as one medium and loses the second picture."""
    assert EXPECTED["quirk_adjacent_images"] == {"placeholders": 130, "media_found": 1}
    model, processor = base
    inputs = processor(images=images, text="Human: <image><image>\nHuman: Which?\nAI: ")
    assert int((inputs["input_ids"] == processor.image_token_id).sum()) == 130
    with torch.no_grad():
        swapped = {**inputs, "pixel_values": inputs["pixel_values"].flip(0)}
        assert (model(**inputs).logits[:, -1] - model(**swapped).logits[:, -1]).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("style", "case", "questions"),
    [
        ("readme", "single", ["What color is the boat?"]),
        ("readme", "multi_turn", ["What color is the boat?", "How many windows?"]),
    ],
)
def test_chat_template_writes_the_originals_prompt(base, style, case, questions):
    processor = base[1]
    messages = [message("user", questions[0], 1)]
    for question in questions[1:]:
        messages += [message("assistant", "The boat is red."), message("user", question)]
    text = processor.apply_chat_template(messages, add_generation_prompt=True, prompt_style=style)
    assert text == "<s>" + EXPECTED[case]["prompt"]


def test_chat_template_writes_several_images_and_lrvs_prompt(base, lrv):
    two = base[1].apply_chat_template(
        [message("user", "Compare the first and the second picture.", 2)], add_generation_prompt=True
    )
    assert two == "<s>" + EXPECTED["two"]["prompt"]
    single = lrv[1].apply_chat_template([message("user", "What color is the boat?", 1)], add_generation_prompt=True)
    assert single == "<s>" + EXPECTED["lrv_v2_single"]["prompt"]


@pytest.mark.parametrize("case", ["single", "two", "text_only"])
def test_chat_gives_the_originals_ids_and_answer(base, images, arrays, case):
    questions = {
        "single": "What color is the boat?",
        "two": "Compare the first and the second picture.",
        "text_only": "How many windows does the house have?",
    }
    chat = ChatModel(*base)
    number = EXPECTED[case]["n_images"]
    parts = [ImagePart.of(image.convert("RGB")) for image in images[:number]]
    messages = [message("user", questions[case], number)]
    prepared = chat.prepare(messages, parts)
    ids = torch.tensor(arrays[f"{case}.input_ids"])
    assert torch.equal(prepared.input_ids, ids.masked_fill(ids < 0, chat.pipeline.placeholder_token_id))
    new_ids = []
    for new_ids in chat.stream_ids(prepared, GenerationConfig(do_sample=False, max_new_tokens=12)):  # noqa: B007
        pass
    assert new_ids == EXPECTED[case]["greedy"][1:]


def test_batched_answers_are_those_of_each_row_unlike_the_original(base, images):
    chat = ChatModel(*base)
    part = ImagePart.of(images[0].convert("RGB"))
    conversations = [([message("user", text, 1)], [part]) for text in ("What?", "How many windows does the house have?")]
    config = GenerationConfig(do_sample=False, max_new_tokens=8)
    assert chat.answer_batch(conversations, config) == [chat.answer(*each, config) for each in conversations]


@pytest.mark.parametrize("layout", ["webui", "transformers", "original"])
def test_written_and_read_again_it_is_the_same_model(layout, images, arrays, tmp_path):
    parts = mplug_owl.FAMILY.read(GOLDEN / "checkpoint")
    mplug_owl.FAMILY.write(parts, tmp_path / "out", layout)
    assert find_family(tmp_path / "out") == "mplug_owl"
    model, processor = load_model(tmp_path / "out", dtype=torch.float32)
    assert_case(model, processor, "two", images, arrays)
    back = mplug_owl.FAMILY.read(tmp_path / "out")
    for name in ("vision", "language"):
        before, after = getattr(parts, name), getattr(back, name)
        assert before.keys() == after.keys()
        assert all(torch.equal(before[key], after[key]) for key in before)


def test_lora_is_merged_into_a_written_folder(images, arrays, tmp_path):
    parts = mplug_owl.FAMILY.read(GOLDEN / "checkpoint", lora_model=GOLDEN / "lrv_v2" / "lora_only.bin")
    mplug_owl.FAMILY.write(parts, tmp_path / "out", "webui")
    assert not any("lora" in name for name in load_file(tmp_path / "out" / "model.safetensors"))
    model, processor = load_model(tmp_path / "out", dtype=torch.float32)
    assert_case(model, processor, "lrv_v2_single", images, arrays)
    text = processor.apply_chat_template([message("user", "What color is the boat?", 1)], add_generation_prompt=True)
    assert text == "<s>" + EXPECTED["lrv_v2_single"]["prompt"]


def test_transformers_folder_opens_with_the_auto_classes(images, arrays, tmp_path):
    mplug_owl.FAMILY.write(mplug_owl.FAMILY.read(GOLDEN / "checkpoint"), tmp_path / "out", "transformers")
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "out", dtype=torch.float32)
    processor = AutoProcessor.from_pretrained(tmp_path / "out")
    assert_case(model, processor, "two", images, arrays)


def test_pipeline_reads_no_language_model(images, arrays, tmp_path):
    mplug_owl.FAMILY.write(mplug_owl.FAMILY.read(GOLDEN / "checkpoint"), tmp_path / "out", "webui")
    (tmp_path / "out" / "model.safetensors").unlink()
    pipeline = load_pipeline(tmp_path / "out")
    features = pipeline.encode_images([image.convert("RGB") for image in images])
    embeds = torch.stack([each.embeds for each in features]).numpy()
    np.testing.assert_allclose(embeds, arrays["abstractor.last_hidden_state"], atol=5e-5, rtol=0)
    assert [len(ids) for ids in pipeline.image_ids([(9, 9), (1, 5)], pipeline.processor.tokenizer)] == [65, 65]


def test_half_precision_answers(images):
    model, processor = load_model(GOLDEN / "checkpoint", dtype=torch.float16)
    inputs = processor(images=images[:1], text=EXPECTED["single"]["prompt"])
    with torch.no_grad():
        assert torch.isfinite(model(**inputs).logits).all()
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float16}


def test_renaming_there_and_back_changes_nothing():
    tensors = {
        "query_tokens": torch.randn(1, 4, 8),
        "vision_model.embeddings.cls_token": torch.randn(1, 1, 8),
        "vision_model.embeddings.position_embedding": torch.randn(1, 5, 8),
        "vision_model.encoder.layers.0.self_attn.query_key_value.weight": torch.randn(24, 8),
        "vision_model.encoder.layers.0.self_attn.query_key_value.bias": torch.randn(24),
        "vision_model.encoder.layers.0.self_attn.dense.weight": torch.randn(8, 8),
        "vision_model.encoder.layers.0.input_layernorm.weight": torch.randn(8),
    }
    back = vision_to_published(vision_from_published(tensors, 2), 2)
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[name], tensors[name]) for name in tensors)


class Bad:
    """Folders and adapters that are not what they should be; each names what is wrong in one line."""

    @staticmethod
    def copy(tmp_path: Path) -> Path:
        return Path(shutil.copytree(GOLDEN / "checkpoint", tmp_path / "copy"))


def one_line(error) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


def test_missing_shard_is_named(tmp_path):
    folder = Bad.copy(tmp_path)
    (folder / "pytorch_model-00002-of-00003.bin").unlink()
    with pytest.raises(FileNotFoundError) as error:
        load_model(folder)
    assert "pytorch_model-00002-of-00003.bin" in one_line(error)


def test_half_a_shard_is_named(tmp_path):
    folder = Bad.copy(tmp_path)
    shard = folder / "pytorch_model-00002-of-00003.bin"
    shard.write_bytes(shard.read_bytes()[:100_000])
    with pytest.raises(ValueError) as error:
        load_model(folder)
    assert shard.name in one_line(error)


def test_a_tensor_too_few_is_named(tmp_path):
    folder = Bad.copy(tmp_path)
    shard = folder / "pytorch_model-00001-of-00003.bin"
    tensors = torch.load(shard, weights_only=True)
    gone = tensors.pop("query_tokens") if "query_tokens" in tensors else tensors.pop(next(iter(tensors)))
    assert gone is not None
    torch.save(tensors, shard)
    with pytest.raises(ValueError) as error:
        load_model(folder)
    assert "query_tokens" in one_line(error)


def test_values_that_are_not_finite_are_refused(tmp_path):
    folder = Bad.copy(tmp_path)
    shard = folder / "pytorch_model-00001-of-00003.bin"
    tensors = torch.load(shard, weights_only=True)
    tensors["query_tokens"][0, 0, 0] = float("nan")
    torch.save(tensors, shard)
    with pytest.raises(ValueError, match="not finite"):
        load_model(folder)


def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    folder = Bad.copy(tmp_path)
    torch.save({"query_tokens": Evil()}, folder / "pytorch_model-00001-of-00003.bin")
    with pytest.raises(ValueError) as error:
        load_model(folder)
    assert "could run code" in one_line(error)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"base_model.model.language_model.model.layers.0.self_attn.q_proj.weight": torch.zeros(48, 48)}, "holds no LoRA"),
        (
            {"base_model.model.language_model.model.layers.0.self_attn.q_proj.lora_A.weight": torch.zeros(8, 48)},
            "half an adapter",
        ),
        (
            {
                f"base_model.model.language_model.model.layers.9.self_attn.q_proj.lora_{side}.weight": torch.zeros(shape)
                for side, shape in (("A", (8, 48)), ("B", (48, 8)))
            },
            "have no place in the model",
        ),
        (
            {
                f"base_model.model.language_model.model.layers.0.self_attn.q_proj.lora_{side}.weight": torch.zeros(shape)
                for side, shape in (("A", (8, 64)), ("B", (64, 8)))
            },
            "another base",
        ),
    ],
)
def test_an_adapter_that_does_not_belong_is_refused(tensors, said, tmp_path):
    torch.save(tensors, tmp_path / "adapter.bin")
    with pytest.raises(ValueError) as error:
        load_model(GOLDEN / "checkpoint", lora_model=tmp_path / "adapter.bin")
    assert said in one_line(error)


def test_a_folder_of_another_family_is_named():
    with pytest.raises(ValueError) as error:
        mplug_owl.load_model(GOLDEN.parent / "visualcla" / "merged" / "visualcla-tiny-merged")
    assert "visualcla" in one_line(error)


def test_nothing_is_written_over_or_left_half_written(tmp_path):
    parts = mplug_owl.FAMILY.read(GOLDEN / "checkpoint")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with pytest.raises(FileExistsError):
        mplug_owl.FAMILY.write(parts, tmp_path / "out")
    parts.language["lm_head.weight"] = parts.language["lm_head.weight"].clone().fill_(float("inf"))
    with pytest.raises(ValueError, match="not finite"):
        mplug_owl.FAMILY.write(parts, tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
