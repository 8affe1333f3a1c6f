"""docs/native.md names every image-text-to-text family of transformers, as the code and these tests have it."""

from pathlib import Path

import native_models
import native_shrunk
import pytest
import test_family_native as whole
import transformers
from packaging import version
from transformers import CONFIG_MAPPING

from pipelines import doctor, native, registry
from pipelines.base import ImagePart
from pipelines.generation import ChatModel, message
from pipelines.native import loading

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "native.md"
INSTALLED = sorted(loading.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES)
TRIED = {*native_models.FAMILIES, *native_models.KIN, *native_shrunk.ROWS}
QUICK = ("granite_docling", "mistral_large4", "paddleocr_vl", "paligemma")
"""Of the shrunk families those that are tried every time; all were, for the last time with transformers 5.23.0 (2026-11-26)."""


def status(name: str) -> str:
    if name in TRIED:
        packages = native_shrunk.needs(name) if name in native_shrunk.ROWS else []
        return f"works, with {' and '.join(packages)}" if packages else "works"
    if name in loading.REFUSED:
        return f"refused: {loading.REFUSED[name]}"
    config = CONFIG_MAPPING[name]()
    if reason := loading.refusal(config):
        return f"refused: {reason}"
    return "not tried"


def table() -> str:
    """The table as the page must hold it for the transformers that is installed; print it to renew the page."""
    rows = [f"| `{name}` | {status(name)} |" for name in INSTALLED]
    return "\n".join([f"| `model_type` (transformers {transformers.__version__}) | |", "| --- | --- |", *rows])


def test_page_holds_the_table():
    page = PAGE.read_text(encoding="utf-8")
    if f"(transformers {transformers.__version__})" in page:
        assert table() in page
    for name in TRIED & set(INSTALLED):
        assert f"| `{name}` | works" in page


def test_no_family_is_both_tried_and_refused():
    assert not TRIED & set(loading.REFUSED)


def each_is_theirs(chat: ChatModel, row: dict) -> None:
    """None, one and several pictures over turns: ids and answers of processor and `generate`, and no picture is overlooked."""
    longer = [*whole.conversation(0), message("assistant", "Noise."), message("user", "Why?")]
    for messages, count in [(whole.conversation(0), 0), (longer, 0), (whole.conversation(1), 1), (whole.conversation(3), 3)]:
        images = whole.pictures()[:count]
        text = None
        if row.get("is_task"):
            text = "\n".join(item["text"] for each in messages for item in each["content"] if item["type"] == "text")
            text = text if images else f"{chat.tokenizer.bos_token}{text}\n"
        parts = [ImagePart.of(image) for image in images]
        ids, answer = whole.theirs(chat, messages, images, row.get("alone", False), text, **row.get("asked", {}))
        assert chat.prepare(messages, parts).input_ids.tolist() == ids
        assert chat.answer(messages, parts, whole.GREEDY) == answer
    whole.test_each_picture_is_seen_and_none_stays(chat)
    if row.get("is_task"):
        with pytest.raises(ValueError, match="is not trained here"):
            registry.parts_of(chat.model)
    else:
        whole.trains_as_alone(chat)


def opened(folder: Path) -> ChatModel:
    assert doctor.examine(folder, "cpu").missing == []
    model, processor = native.load_model(folder)
    return ChatModel(model, processor, native.pipeline_of(model, processor))


@pytest.mark.parametrize("name", native_models.KIN)
def test_next_of_kin_answer_as_processor_and_generate(name, tmp_path):
    if name not in INSTALLED:
        pytest.skip(f"transformers {transformers.__version__} has no {name}")
    each_is_theirs(opened(native_models.write(name, tmp_path)), {})


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in native_shrunk.ROWS])
def test_shrunk_families_answer_as_processor_and_generate(name, tmp_path):
    if name not in INSTALLED:
        pytest.skip(f"transformers {transformers.__version__} has no {name}")
    if version.parse(transformers.__version__) < version.parse(native_shrunk.ROWS[name].get("since", "5")):
        pytest.skip("its processor was another then")
    for package in native_shrunk.needs(name):
        pytest.importorskip(package)
    each_is_theirs(opened(native_shrunk.write(name, tmp_path)), native_shrunk.ROWS[name])
