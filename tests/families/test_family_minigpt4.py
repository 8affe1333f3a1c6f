"""MiniGPT-4 and LRV-Instruction V1 in every layout, in chat, and what is refused; the originals' numbers are in test_parity.py."""

import json
import shutil
from pathlib import Path

import numpy as np
import parity
import parity_minigpt4
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, GenerationConfig

from pipelines import load_model, minigpt4
from pipelines.base import ImagePart
from pipelines.generation import ChatModel, message
from pipelines.registry import find_family, load_pipeline

GOLDEN = Path(__file__).parent.parent / "golden" / "minigpt4"
EXPECTED = json.loads((GOLDEN / "expected.json").read_text(encoding="utf-8"))
PROJECTION = GOLDEN / "checkpoint" / "pretrained_minigpt4_7b.pth"
LRV = GOLDEN / "checkpoint" / "lrv_v1_checkpoint_0.pth"
VICUNA = GOLDEN / "vicuna_tiny"
QUESTIONS = {
    "single": "What color is the boat?",
    "two": "Compare the first and the second picture.",
    "single_main": "What color is the boat?",
    "two_main": "Compare the first and the second picture.",
}


@pytest.fixture(scope="module")
def arrays():
    return np.load(GOLDEN / "expected.npz")


def assert_case(model, processor, name, images, arrays):
    record = parity.Record("minigpt4")
    parity_minigpt4.compare_case(model, processor, GOLDEN, name, EXPECTED, arrays, record)
    assert len(record.comparisons) == 4
    assert not record.wrong, str(record)


@pytest.fixture(scope="module")
def images():
    return [Image.open(GOLDEN / "images" / f"image_{letter}.png") for letter in "ab"]


@pytest.fixture(scope="module")
def base():
    return load_model(PROJECTION, text_model=VICUNA, dtype=torch.float32)


def expected_ids(case) -> list[int]:
    first, *rest = case["segment_ids"]
    return [*first, *(token for piece in rest for token in [3] * 32 + piece)]


@pytest.mark.parametrize("case", QUESTIONS)
def test_chat_template_writes_the_originals_prompt(base, case):
    style = "main" if case.endswith("main") else "v1"
    messages = [message("user", QUESTIONS[case], EXPECTED[case]["n_images"])]
    text = base[1].apply_chat_template(messages, add_generation_prompt=True, prompt_style=style)
    assert text == "<s>" + EXPECTED[case]["prompt"]


def test_chat_template_writes_several_turns(base):
    messages = [
        message("user", "What color is the boat?", 1),
        message("assistant", " The boat is red. "),
        message("user", "How many windows?"),
    ]
    assert base[1].apply_chat_template(messages, add_generation_prompt=True) == "<s>" + EXPECTED["multi_turn"]["prompt"]


@pytest.mark.parametrize("case", ["single", "two"])
def test_chat_gives_the_originals_ids_and_answer(base, images, case):
    chat = ChatModel(*base)
    number = EXPECTED[case]["n_images"]
    parts = [ImagePart.of(image.convert("RGB")) for image in images[:number]]
    prepared = chat.prepare([message("user", QUESTIONS[case], number)], parts)
    assert prepared.input_ids[0].tolist() == expected_ids(EXPECTED[case])
    new_ids = []
    for new_ids in chat.stream_ids(prepared, GenerationConfig(do_sample=False, max_new_tokens=12)):  # noqa: B007
        pass
    assert new_ids == EXPECTED[case]["greedy"][1:]


def test_an_answer_ends_at_the_separator(base, images):
    chat = ChatModel(*base)
    ids = chat.tokenizer("A boat.### Human: more", add_special_tokens=False)["input_ids"]
    assert chat.decode(ids) == "A boat."
    prepared = chat.prepare([message("user", "What?", 1)], [ImagePart.of(images[0].convert("RGB"))])
    separator = chat.tokenizer("###", add_special_tokens=False)["input_ids"]

    class Separator(torch.nn.Module):
        """Says the ids of the separator again and again."""

        def forward(self, hidden_states):
            logits = torch.full((*hidden_states.shape[:2], 480), -1.0)
            Separator.said += 1
            logits[..., separator[(Separator.said - 1) % len(separator)]] = 1.0
            return logits

    Separator.said = 0
    head, base[0].lm_head = base[0].lm_head, Separator()
    try:
        *_, new_ids = chat.stream_ids(prepared, GenerationConfig(do_sample=False, max_new_tokens=50))
    finally:
        base[0].lm_head = head
    assert new_ids == separator


def test_batched_answers_are_those_of_each_row(base, images):
    chat = ChatModel(*base)
    part = ImagePart.of(images[0].convert("RGB"))
    conversations = [([message("user", text, 1)], [part]) for text in ("What?", "How many windows does the house have?")]
    config = GenerationConfig(do_sample=False, max_new_tokens=8)
    assert chat.answer_batch(conversations, config) == [chat.answer(*each, config) for each in conversations]


@pytest.mark.parametrize("layout", ["webui", "transformers", "original"])
def test_written_and_read_again_it_is_the_same_model(layout, images, arrays, tmp_path):
    parts = minigpt4.FAMILY.read(PROJECTION, text_model=VICUNA)
    minigpt4.FAMILY.write(parts, tmp_path / "out", layout)
    assert find_family(tmp_path / "out") == "minigpt4"
    model, processor = load_model(tmp_path / "out", dtype=torch.float32)
    assert_case(model, processor, "two", images, arrays)
    back = minigpt4.FAMILY.read(tmp_path / "out")
    for name in ("vision", "language"):
        before, after = getattr(parts, name), getattr(back, name)
        assert before.keys() == after.keys()
        assert all(torch.equal(before[key], after[key]) for key in before)


def test_lrv_v1_is_written_into_a_folder(images, arrays, tmp_path):
    minigpt4.FAMILY.write(minigpt4.FAMILY.read(PROJECTION, text_model=VICUNA, lora_model=LRV), tmp_path / "out")
    assert_case(*load_model(tmp_path / "out", dtype=torch.float32), "lrv_v1_single", images, arrays)


def test_transformers_folder_opens_with_the_auto_classes(images, arrays, tmp_path):
    minigpt4.FAMILY.write(minigpt4.FAMILY.read(PROJECTION, text_model=VICUNA), tmp_path / "out", "transformers")
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "out", dtype=torch.float32)
    assert_case(model, AutoProcessor.from_pretrained(tmp_path / "out"), "two", images, arrays)


def test_pipeline_reads_no_language_model(images, arrays, tmp_path):
    minigpt4.FAMILY.write(minigpt4.FAMILY.read(PROJECTION, text_model=VICUNA), tmp_path / "out")
    (tmp_path / "out" / "model.safetensors").unlink()
    features = load_pipeline(tmp_path / "out").encode_images([image.convert("RGB") for image in images])
    embeds = torch.stack([each.embeds for each in features]).numpy()
    np.testing.assert_allclose(embeds, arrays["image_embeds"], atol=5e-5, rtol=0)


def test_all_published_files_in_one_folder_open(images, arrays, tmp_path):
    folder = tmp_path / "minigpt4"
    shutil.copytree(VICUNA, folder)
    for name in ("eva_vit_g.pth", "blip2_pretrained_flant5xxl.pth"):
        shutil.copy(GOLDEN / "checkpoint" / name, folder / f"renamed-{name}")
    shutil.copy(PROJECTION, folder)
    assert find_family(folder) == "minigpt4"
    assert_case(*load_model(folder, dtype=torch.float32), "single", images, arrays)


@pytest.fixture
def llama2(tmp_path):
    """The files of the LLaMA-2 variant: a projection of four joined tokens, no Q-Former."""
    folder = tmp_path / "llama2"
    folder.mkdir()
    shutil.copy(GOLDEN / "checkpoint" / "eva_vit_g.pth", folder)
    torch.manual_seed(0)
    projection = {"llama_proj.weight": torch.randn(48, 4 * 32), "llama_proj.bias": torch.randn(48)}
    torch.save({"model": projection}, folder / "pretrained_minigpt4_llama2_7b.pth")
    return folder, projection


def test_llama2_variant_joins_four_tokens(llama2, images, arrays):
    folder, projection = llama2
    model, processor = load_model(folder, text_model=VICUNA, dtype=torch.float32)
    with torch.no_grad():
        features = model.get_image_features(processor.preprocess_images(images)).pooler_output
    # its norm after the encoder is as it is made: recompute it from the recorded output of the encoder
    tokens = torch.nn.functional.layer_norm(torch.tensor(arrays["vit.output"]), (32,), eps=1e-5)[:, 1:].reshape(2, 64, 128)
    expected = tokens @ projection["llama_proj.weight"].T + projection["llama_proj.bias"]
    torch.testing.assert_close(features, expected, atol=5e-5, rtol=0)


def test_llama2_variant_has_its_own_prompt(llama2):
    model, processor = load_model(llama2[0], text_model=VICUNA, dtype=torch.float32)
    messages = [message("user", "What?", 1), message("assistant", "A boat."), message("user", "And?")]
    text = processor.apply_chat_template(messages, add_generation_prompt=True)
    system = EXPECTED["single"]["prompt"].partition("###")[0]
    assert text == f"<s>{system}<s>[INST] <Img><ImageHere></Img> What? [/INST] A boat.<s>[INST] And? [/INST] "
    assert ChatModel(model, processor).pipeline.stop_strings == processor.stop_strings == ()


def one_line(error) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


def test_missing_files_are_named(tmp_path):
    shutil.copy(PROJECTION, tmp_path)
    with pytest.raises(FileNotFoundError) as error:
        load_model(tmp_path / PROJECTION.name, text_model=VICUNA)
    assert "eva_vit_g.pth" in one_line(error)
    assert "blip2_pretrained_flant5xxl.pth" in one_line(error)
    with pytest.raises(FileNotFoundError, match="--text_model"):
        load_model(PROJECTION)


def test_a_projection_for_13b_is_named_with_both_widths(tmp_path):
    wide = {"llama_proj.weight": torch.zeros(5120, 24), "llama_proj.bias": torch.zeros(5120)}
    torch.save({"model": wide}, tmp_path / "pretrained_minigpt4.pth")
    for kwargs in (
        {"folder": tmp_path / "pretrained_minigpt4.pth", "vision_model": GOLDEN / "checkpoint"},
        {"folder": PROJECTION, "lora_model": tmp_path / "pretrained_minigpt4.pth"},
    ):
        with pytest.raises(ValueError) as error:
            load_model(kwargs.pop("folder"), text_model=VICUNA, **kwargs)
        assert "5120" in one_line(error)
        assert "width 48" in one_line(error) or "has 48" in one_line(error)


def test_a_part_is_named_as_what_it_is_and_a_broken_file_as_broken(tmp_path):
    shutil.copy(GOLDEN / "checkpoint" / "eva_vit_g.pth", tmp_path)
    with pytest.raises(FileNotFoundError) as error:
        load_model(tmp_path / "eva_vit_g.pth", text_model=VICUNA)
    assert "pretrained_minigpt4_7b.pth" in one_line(error)
    (tmp_path / "half.pth").write_bytes(PROJECTION.read_bytes()[:3000])
    with pytest.raises(ValueError) as error:
        load_model(tmp_path / "half.pth", text_model=VICUNA)
    assert "half.pth" in one_line(error)


def test_two_projections_in_a_folder_are_named():
    with pytest.raises(ValueError) as error:
        load_model(GOLDEN / "checkpoint", text_model=VICUNA)
    assert "lrv_v1_checkpoint_0.pth" in one_line(error)
    assert "pretrained_minigpt4_7b.pth" in one_line(error)


@pytest.mark.parametrize("change", ["half", "tensor too few", "tensor too many", "not finite", "code"])
def test_a_damaged_file_is_refused(change, tmp_path):
    folder = Path(shutil.copytree(GOLDEN / "checkpoint", tmp_path / "copy"))
    file = folder / "blip2_pretrained_flant5xxl.pth"
    content = torch.load(file, weights_only=True)
    name = "Qformer.bert.encoder.layer.1.attention.self.key.weight"
    said = name.replace("Qformer.bert.", "qformer.").replace(".self.", ".attention.")
    if change == "half":
        file.write_bytes(file.read_bytes()[:50_000])
        said = file.name
    elif change == "tensor too few":
        del content["model"][name]
    elif change == "tensor too many":
        content["model"]["Qformer.bert.extra.weight"] = torch.zeros(3)
        said = "Qformer.bert.extra.weight"
    elif change == "not finite":
        content["model"][name][0, 0] = float("nan")
        said = "not finite"
    else:
        content["model"]["evil"] = _Evil(tmp_path / "ran")
        said = "could run code"
    if change != "half":
        torch.save(content, file)
    with pytest.raises(ValueError) as error:
        load_model(folder / PROJECTION.name, text_model=VICUNA)
    assert said in one_line(error)
    assert not (tmp_path / "ran").exists()


class _Evil:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.filterwarnings("ignore")
def test_the_language_model_alone_is_quantised():
    model, processor = load_model(PROJECTION, text_model=VICUNA, load_in_8bit=True, dtype=torch.float16)
    linear = [module for module in model.model.language_model.modules() if isinstance(module, torch.nn.Linear)]
    assert {type(module).__name__ for module in linear} == {"Linear8bitLt"}
    assert {parameter.dtype for parameter in model.model.vision_model.parameters()} == {torch.float16}
    with torch.no_grad():
        assert torch.isfinite(model(**processor(text="###Human: What?")).logits).all()
    with pytest.raises(ValueError, match="exclude each other"):
        load_model(PROJECTION, text_model=VICUNA, load_in_8bit=True, load_in_4bit=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="on a GPU any width can be computed in 4 bits")
def test_4_bits_that_this_processor_cannot_compute_are_refused():
    with pytest.raises(ValueError, match="load_in_8bit"):
        load_model(PROJECTION, text_model=VICUNA, load_in_4bit=True)


def test_another_language_model_is_named(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt_neox"}))
    with pytest.raises(ValueError) as error:
        load_model(PROJECTION, text_model=tmp_path)
    assert "gpt_neox" in one_line(error)
