"""What every family has to do, whatever it is inside; `test_contract.py` runs it on each of them.

A new family adds a line to `CASES`. The golden folders are tiny checkpoints as their originals published them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pytest
import torch
from accelerate import cpu_offload
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from PIL import Image
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoTokenizer, GenerationConfig

from pipelines import load_model
from pipelines.base import ImagePart
from pipelines.embedder import Embedder
from pipelines.generation import ChatModel, message
from pipelines.prompt import Prompt, PromptEncoder
from pipelines.registry import family, find_family, load_pipeline, load_processor, pipeline_of
from training.data.encode import RowEncoder
from training.merge import convert

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
GREEDY = GenerationConfig(do_sample=False, max_new_tokens=6)
LAYOUTS = ("webui", "transformers", "original")
IMAGES = [Image.linear_gradient("L").resize((90, 60)).convert("RGB"), Image.new("RGB", (40, 80), "red")]
IMAGES += [Image.radial_gradient("L").resize((64, 64)).convert("RGB")]
PARTS = [ImagePart.of(image) for image in IMAGES]


@dataclass(frozen=True)
class Case:
    """A family on a tiny checkpoint.

    Attributes:
        name: of the test's id.
        family: family id.
        path: what was published.
        bases: `text_model` and `vision_model`, where they lie elsewhere.
        lora_target: a layer of the vision encoder, for adapters on and off.
    """

    name: str
    family: str
    path: Path
    bases: dict[str, Path] = field(default_factory=dict)
    lora_target: str = r".*vision.*\.q_proj"

    def open(self, **kwargs):
        """(model, processor), in float32."""
        return load_model(self.path, **{**self.bases, "dtype": torch.float32, **kwargs})

    @cached_property
    def opened(self):
        return self.open()

    @cached_property
    def pipeline(self):
        return pipeline_of(*self.opened)

    def write(self, folder: Path, layout: str, source: Path | None = None) -> Path:
        """`python -m training convert`, in the precision of `opened`."""
        bases = [f"--{name}={path}" for name, path in self.bases.items()] if source is None else []
        arguments = [source or self.path, folder, "--layout", layout, "--dtype", "float32", *bases]
        assert convert.main(list(map(str, arguments))) == 0
        return folder


CLIPS = GOLDEN / "llava" / "checkpoint"
LLAVA_TEXT = GOLDEN / "llava" / "llm_tiny"
CASES = [
    Case("visualcla", "visualcla", GOLDEN / "visualcla/merged/visualcla-tiny-merged"),
    Case("llava-v0", "llava", CLIPS / "mm_projector_v0.bin", {"text_model": LLAVA_TEXT, "vision_model": CLIPS / "clip_224"}),
    Case(
        "llava-v1.5", "llava", CLIPS / "mm_projector_v1.5.bin", {"text_model": LLAVA_TEXT, "vision_model": CLIPS / "clip_336"}
    ),
    Case("mplug_owl", "mplug_owl", GOLDEN / "mplug_owl/checkpoint"),
    Case(
        "minigpt4",
        "minigpt4",
        GOLDEN / "minigpt4/checkpoint/pretrained_minigpt4_7b.pth",
        {"text_model": GOLDEN / "minigpt4/vicuna_tiny"},
        r".*encoder.*\.fc1",
    ),
    Case(
        "open_flamingo",
        "open_flamingo",
        GOLDEN / "mmgpt/checkpoint/checkpoint.pt",
        {"text_model": GOLDEN / "mmgpt/llama_tiny", "vision_model": GOLDEN / "mmgpt/checkpoint/clip_hf"},
    ),
]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.name)
def case(request):
    return request.param


@pytest.fixture(scope="module")
def webui(case, tmp_path_factory):
    return case.write(tmp_path_factory.mktemp(case.name) / "webui", "webui")


@pytest.fixture(scope="module")
def language_model(webui):
    """The language model as somebody else loads it."""
    return AutoModelForCausalLM.from_pretrained(webui, dtype=torch.float32).eval()


def conversation(*numbers: int, text: str = "What is this?") -> tuple[list[dict], list[ImagePart]]:
    return [message("user", text, len(numbers))], [PARTS[number] for number in numbers]


def rendered(processor, messages) -> str:
    return processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)


def inputs_of(processor, *numbers: int, text: str = "What is this?"):
    """What a user of transformers gives the whole model."""
    return _processed(processor, rendered(processor, conversation(*numbers, text=text)[0]), [IMAGES[n] for n in numbers])


def _processed(processor, text: str, images: Sequence[Image.Image]):
    return processor(images=list(images) or None, text=text, return_tensors="pt")


@torch.no_grad()
def logits_of(model, processor, *numbers: int) -> torch.Tensor:
    return model(**inputs_of(processor, *numbers)).logits


@torch.no_grad()
def logits_beside(pipeline, language_model, processor, *numbers: int) -> torch.Tensor:
    """Logits of a bare language model that is given what the pipeline says."""
    messages, parts = conversation(*numbers)
    prompt = Prompt.from_text(rendered(processor, messages), parts, pipeline.image_mark)
    embedder = Embedder(PromptEncoder(processor.tokenizer, pipeline))
    with pipeline.attach(language_model):
        prepared = embedder.prepare(prompt, language_model)
        inputs = pipeline.model_inputs(language_model, prepared.input_ids, None, [prepared.image_spans], [prepared.features])
        ids = {} if "inputs_embeds" in inputs else {"input_ids": prepared.input_ids}
        return language_model(**ids, **inputs).logits


# -- prompts


@pytest.mark.parametrize("numbers", [(), (0,), (0, 1, 2)], ids=len)
def test_lengths_are_known_before_a_picture_is_opened(case, numbers):
    chat = ChatModel(*case.opened)
    messages, parts = conversation(*numbers)
    unopened = [ImagePart(part.key, part.size, lambda: pytest.fail("a picture was opened")) for part in parts]
    prompt = chat.render(messages, unopened)
    encoded = chat.embedder.encoder.encode(prompt)
    assert chat.embedder.encoder.length(prompt) == len(encoded.input_ids)
    assert [span.image.key for span in encoded.image_spans] == [part.key for part in parts]
    costs = chat.num_image_tokens([part.size for part in parts])
    assert all(span.length <= cost for span, cost in zip(encoded.image_spans, costs, strict=True))


def test_every_placeholder_is_a_real_id_and_gets_one_embedding(case):
    pipeline, tokenizer = case.pipeline, case.opened[1].tokenizer
    ids = pipeline.image_ids([image.size for image in IMAGES], tokenizer)
    features = pipeline.encode_images(IMAGES, [len(each) for each in ids])
    assert len(features) == len(IMAGES)
    rows = case.opened[0].get_input_embeddings().weight.shape[0]
    assert 0 <= pipeline.placeholder_token_id < rows
    assert pipeline.placeholder_token_id != tokenizer.pad_token_id
    for each, found in zip(ids, features, strict=True):
        assert all(torch.isfinite(tensor).all() and not tensor.requires_grad for tensor in found.tensors)
        if pipeline.embedding_width is not None:
            assert found.embeds.shape == (each.count(pipeline.placeholder_token_id), pipeline.embedding_width)


@pytest.mark.parametrize("numbers", [(), (0,), (1, 0)], ids=len)
def test_processor_plugin_and_collator_give_the_same_ids(case, webui, numbers):
    processor = case.opened[1]
    messages, parts = conversation(*numbers)
    text = rendered(processor, messages)
    expected = _processed(processor, text, [IMAGES[n] for n in numbers])["input_ids"][0].tolist()
    plugin = load_pipeline(webui)
    prompt = Prompt.from_text(text, parts, plugin.image_mark)
    assert PromptEncoder(AutoTokenizer.from_pretrained(webui), plugin).encode(prompt).input_ids == expected
    row = {"messages": [*messages, {"role": "assistant", "content": "A picture."}], "images": [IMAGES[n] for n in numbers]}
    encoded = RowEncoder(processor)(row)
    common = next((i for i, pair in enumerate(zip(encoded.ids, expected, strict=False)) if pair[0] != pair[1]), len(expected))
    assert common >= len(expected) - 1, "the last id of the prompt may hold the answer's beginning"
    assert encoded.num_supervised > 1


def test_features_are_computed_once(case, monkeypatch):
    chat = ChatModel(*case.opened)
    encoded = []
    encode = chat.pipeline.encode_images
    monkeypatch.setattr(
        chat.pipeline, "encode_images", lambda images, *rest: encoded.append(len(images)) or encode(images, *rest)
    )
    for numbers in ((0, 1), (1,), (2, 0, 1), (0,)):
        chat.prepare(*conversation(*numbers))
    assert encoded == [2, 1]


# -- models


@pytest.mark.parametrize("numbers", [(), (0,), (1, 0)], ids=len)
def test_whole_model_and_what_is_given_to_a_bare_language_model_agree(case, webui, language_model, numbers):
    model, processor = case.opened
    expected = logits_of(model, processor, *numbers)
    for pipeline, other in ((case.pipeline, model), (load_pipeline(webui, dtype=torch.float32), language_model)):
        found = logits_beside(pipeline, other, processor, *numbers)
        torch.testing.assert_close(found[:, -1], expected[:, -1], atol=1e-4, rtol=1e-4)


def test_every_picture_counts_where_it_stands(case):
    model, processor = case.opened
    one, two, swapped, none = (logits_of(model, processor, *numbers)[0, -1] for numbers in ((0,), (0, 1), (1, 0), ()))
    for a, b in ((one, none), (one, two), (two, swapped)):
        assert (a - b).abs().max() > 1e-4


def test_nothing_of_a_picture_stays_in_force(case, language_model, webui):
    model, processor = case.opened
    before = logits_of(model, processor)
    logits_of(model, processor, 0)
    assert torch.equal(logits_of(model, processor), before)
    pipeline = load_pipeline(webui)
    bare = logits_beside(pipeline, language_model, processor)
    logits_beside(pipeline, language_model, processor, 0)
    assert torch.equal(logits_beside(pipeline, language_model, processor), bare)


def test_rows_of_a_batch_answer_as_alone(case):
    chat = ChatModel(*case.opened)
    conversations = [conversation(0), conversation(1, 2, text="Which of the two pictures is red?"), conversation(text="Hello.")]
    assert chat.answer_batch(conversations, GREEDY) == [chat.answer(*each, GREEDY) for each in conversations]


def test_parts_cover_every_weight_once(case):
    model = case.opened[0]
    parts = family(case.family).PARTS
    assert set(parts) == {"vision", "connector", "language"}
    for name, _ in model.named_parameters():
        assert sum(name.startswith(tuple(prefixes)) for prefixes in parts.values()) == 1, name
    for part, prefixes in parts.items():
        assert any(name.startswith(tuple(prefixes)) for name, _ in model.named_parameters()), part


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_says_about_the_same(case, dtype):
    half, processor = case.open(dtype=dtype)
    found = logits_of(half, processor, 0)
    expected = logits_of(*case.opened, 0)
    assert found.dtype == dtype and torch.isfinite(found).all()
    assert torch.nn.functional.cosine_similarity(found[0, -1].float(), expected[0, -1], dim=0) > 0.98


def test_offloaded_model_says_the_same(case):
    model, processor = case.open()
    expected = logits_of(model, processor, 0)
    cpu_offload(model, torch.device("cpu"))
    assert any(parameter.is_meta for parameter in model.parameters())
    torch.testing.assert_close(logits_of(model, processor, 0), expected)


def test_adapter_of_the_vision_model_on_and_off(case):
    model, processor = case.open()
    pipeline = pipeline_of(model, processor)
    plain, fingerprint = pipeline.encode_images(IMAGES[:1])[0].tensors[0], pipeline.fingerprint
    inject_adapter_in_model(LoraConfig(r=2, target_modules=case.lora_target, init_lora_weights=False), model)
    layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    on, fingerprint_on = pipeline.encode_images(IMAGES[:1])[0].tensors[0], pipeline.fingerprint
    for layer in layers:
        layer.enable_adapters(False)
    off, fingerprint_off = pipeline.encode_images(IMAGES[:1])[0].tensors[0], pipeline.fingerprint
    assert layers and not torch.allclose(on, plain)
    torch.testing.assert_close(off, plain)
    assert len({fingerprint, fingerprint_on, fingerprint_off}) == 3


# -- files


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_the_same_model_and_leads_back(case, webui, layout, tmp_path):
    folder = webui if layout == "webui" else case.write(tmp_path / layout, layout, source=webui)
    assert find_family(folder) == case.family
    model, processor = load_model(folder, dtype=torch.float32)
    expected, state = case.opened[0], case.opened[0].state_dict()
    assert model.state_dict().keys() == state.keys()
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    torch.testing.assert_close(logits_of(model, processor, 0, 1), logits_of(expected, case.opened[1], 0, 1))
    inputs, alone = inputs_of(processor, 0, 1), inputs_of(load_processor(folder), 0, 1)
    assert inputs.keys() == alone.keys() and all(torch.equal(alone[name], inputs[name]) for name in inputs)
    back = load_model(case.write(tmp_path / "back", "webui", source=folder), dtype=torch.float32)[0].state_dict()
    assert back.keys() == state.keys() and all(torch.equal(back[name], state[name]) for name in state)


def test_transformers_opens_the_composite_folder(case, webui, tmp_path):
    folder = case.write(tmp_path / "composite", "transformers", source=webui)
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    torch.testing.assert_close(logits_of(model, case.opened[1], 0), logits_of(*case.opened, 0))
    model.save_pretrained(tmp_path / "again")
    again = AutoModelForImageTextToText.from_pretrained(tmp_path / "again", dtype=torch.float32).eval()
    torch.testing.assert_close(logits_of(again, case.opened[1], 0), logits_of(*case.opened, 0))


# -- errors


def test_features_that_do_not_fit_are_an_error(case):
    pipeline, (model, processor) = case.pipeline, case.opened
    if pipeline.embedding_width is None:
        pytest.skip("nothing is put between the embeddings")
    prepared = ChatModel(model, processor).prepare(*conversation(0)).prompt
    cut = [type(each)(embeds=each.embeds[1:]) for each in prepared.features]
    with pytest.raises(ValueError, match="placeholders in the prompt but"):
        pipeline.model_inputs(model, prepared.input_ids, None, [prepared.image_spans], [cut])


def test_more_pictures_than_marks_are_an_error(case):
    processor = case.opened[1]
    text = rendered(processor, conversation(0)[0])
    with pytest.raises(ValueError, match="1 .*image.* but 2 images"):
        processor(images=IMAGES[:2], text=text, return_tensors="pt")


def test_folder_without_its_vision_weights_is_an_error_of_one_line(case, webui, tmp_path):
    import shutil

    folder = Path(shutil.copytree(webui, tmp_path / "broken"))
    (folder / "vision/model.safetensors").unlink()
    with pytest.raises((ValueError, OSError)) as error:
        load_pipeline(folder)
    assert "vision" in str(error.value) and "\n" not in str(error.value).strip()
