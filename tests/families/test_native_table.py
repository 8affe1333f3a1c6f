"""docs/native.md names every image-text-to-text family of transformers, as the code and these tests have it."""

from pathlib import Path

import native_models
import pytest
import test_family_native as whole
import transformers
from transformers import CONFIG_MAPPING

from pipelines import native
from pipelines.base import ImagePart
from pipelines.generation import ChatModel
from pipelines.native import loading

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "native.md"
INSTALLED = sorted(loading.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES)
TRIED = {*native_models.FAMILIES, *native_models.KIN}


def status(name: str) -> str:
    if name in TRIED:
        return "works"
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
        assert f"| `{name}` | works |" in page


def test_no_family_is_both_tried_and_refused():
    assert not TRIED & set(loading.REFUSED)


@pytest.mark.parametrize("name", native_models.KIN)
def test_next_of_kin_answer_as_processor_and_generate(name, tmp_path):
    if name not in INSTALLED:
        pytest.skip(f"transformers {transformers.__version__} has no {name}")
    model, processor = native.load_model(native_models.write(name, tmp_path))
    chat = ChatModel(model, processor, native.pipeline_of(model, processor))
    for count in (0, 1, 3):
        messages, images = whole.conversation(count), whole.pictures()[:count]
        parts = [ImagePart.of(image) for image in images]
        ids, answer = whole.theirs(chat, messages, images)
        assert chat.prepare(messages, parts).input_ids.tolist() == ids
        assert chat.answer(messages, parts, whole.GREEDY) == answer
    whole.test_each_picture_is_seen_and_none_stays(chat)
