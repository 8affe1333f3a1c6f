"""What a picture costs an image-text-to-text model, and how it is made to cost less: never another prompt than the processor's."""

import native_models
import native_shrunk
import pytest
import test_family_native as whole
import transformers
from PIL import Image
from transformers import CONFIG_MAPPING

from pipelines import native
from pipelines.base import ImagePart
from pipelines.generation import ChatModel

WIDE = (640, 160)
SWITCHES = {
    **dict.fromkeys(("idefics3", "smolvlm"), "do_image_splitting"),
    **dict.fromkeys(("aya_vision", "internvl", "deepseek_ocr2", "granite_docling", "ovis2", "qianfan_ocr"), "crop_to_patches"),
    **dict.fromkeys(("minicpmv4_6", "minicpmv4_7"), "slice_mode"),
    "gemma3": "do_pan_and_scan",
}
"""What the processor of a family calls it. The ones that need torchvision are not among them."""
QUICK = ("smolvlm", "internvl", "gemma3", "minicpmv4_6")


def written(name, folder):
    if name not in CONFIG_MAPPING:
        pytest.skip(f"transformers {transformers.__version__} has no {name}")
    return (native_models if name in native_models.FAMILIES else native_shrunk).write(name, folder)


@pytest.mark.parametrize("name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in SWITCHES])
def test_parts_of_pictures_are_shown_or_not_as_asked(name, tmp_path):
    model, processor = native.load_model(written(name, tmp_path))
    chat = ChatModel(model, processor, native.pipeline_of(model, processor))
    messages, images = whole.conversation(3), [*whole.pictures()[:2], whole.pictures()[2].resize(WIDE)]
    parts, sizes, found = [ImagePart.of(image) for image in images], [image.size for image in images], []
    assert chat.pipeline.can_use_tiles
    for use_tiles in (True, False):
        chat.pipeline.limit_pictures(use_tiles=use_tiles)
        ids, answer = whole.theirs(chat, messages, images, **{SWITCHES[name]: use_tiles})
        assert chat.prepare(messages, parts).input_ids.tolist() == ids
        assert chat.answer(messages, parts, whole.GREEDY) == answer
        found.append(chat.pipeline.image_lengths(sizes, None, use_tiles))
        assert found[-1] == [len(each) for each in chat.pipeline.image_ids(sizes, chat.tokenizer)]
    assert sum(found[0]) > sum(found[1])


@pytest.mark.parametrize(
    ("name", "use_tiles", "reason"),
    [
        ("llava_next", False, "always shown parts of large pictures: its grids are fixed"),
        ("mllama", False, "takes as many tokens without them"),
        ("qwen2_5_vl", True, "never in parts"),
    ],
)
def test_what_cannot_be_done_is_refused(name, use_tiles, reason, tmp_path):
    pipeline = native.load_pipeline(written(name, tmp_path))
    assert not pipeline.can_use_tiles
    with pytest.raises(ValueError, match=f"use_tiles is {use_tiles}, but .*{reason}"):
        pipeline.limit_pictures(use_tiles=use_tiles)
    pipeline.limit_pictures()


def test_pictures_within_a_limit_of_pixels_are_those_of_the_smaller_picture(tmp_path):
    pipeline = native.load_pipeline(written("qwen2_5_vl", tmp_path))
    pipeline.limit_pictures(use_tiles=False)  # as it does by itself
    own = pipeline.image_lengths([(280, 280)])
    assert pipeline.image_lengths([(280, 280)], 112 * 112) == pipeline.image_lengths([(112, 112)]) < own
    pipeline.limit_pictures(max_pixels=112 * 112)
    assert [len(ids) for ids in pipeline.image_ids([(280, 280)], None)] == pipeline.image_lengths([(112, 112)])
    (features,) = pipeline.encode_images([Image.new("RGB", (280, 280))])
    assert features.inputs["image"].shape == (112, 112, 3)
    assert pipeline.image_lengths([(280, 280)]) == own, "asking what it would cost changes nothing"
