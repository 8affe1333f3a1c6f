"""What an engine's front process is given of a model, without its weights: the same prompts and pixels."""

import pytest
import torch
from PIL import Image
from wide_families import GOLDEN_CASES

from pipelines.base import ImagePart
from pipelines.prompt import Prompt, PromptEncoder
from pipelines.registry import find_family, load_pipeline, load_prompt_side

IMAGES = [Image.linear_gradient("L").resize((90, 60)).convert("RGB"), Image.new("RGB", (40, 80), "red")]


@pytest.fixture(
    scope="module", params=[case for case in GOLDEN_CASES if case.family != "open_flamingo"], ids=lambda case: case.name
)
def case(request):
    return request.param


@pytest.fixture(scope="module", params=["webui", "transformers"])
def folder(case, request, tmp_path_factory):
    return case.write(tmp_path_factory.mktemp(case.name) / request.param, request.param)


def test_prompts_and_pixels_are_those_of_the_loaded_model(case, folder):
    side, loaded = load_prompt_side(folder), load_pipeline(folder)
    mark = side.pipeline.image_mark
    prompt = Prompt.from_text(f"See {mark}and {mark} what?", [ImagePart.of(image) for image in IMAGES], mark)
    ids = [PromptEncoder(side.processor.tokenizer, pipeline).encode(prompt) for pipeline in (side.pipeline, loaded)]
    assert ids[0] == ids[1]
    assert len(ids[0].image_spans) == 2 and ids[0].image_spans[0].length == side.pipeline.num_image_embeds
    pixels = side.pipeline.pixel_values(IMAGES)
    assert torch.equal(pixels, loaded.pixel_values(IMAGES))
    embeds = torch.stack([features.embeds for features in loaded.encode_images(IMAGES)])
    assert torch.equal(loaded.image_embeds(pixels), embeds)
    assert embeds.shape == (2, side.pipeline.num_image_embeds, side.config.text_config.hidden_size)


def test_embeddings_and_their_number_are_those_of_the_weights(case, folder):
    side, (model, _) = load_prompt_side(folder), case.opened
    assert torch.equal(side.read_embeddings().float(), model.get_input_embeddings().weight)
    assert side.config.text_config.vocab_size == len(model.get_input_embeddings().weight)
    assert side.config.image_token_id == side.pipeline.placeholder_token_id


@pytest.mark.parametrize("family", ["open_flamingo", "nothing"])
def test_what_is_not_embeddings_in_the_prompt_is_refused_by_name(family, tmp_path):
    if family == "open_flamingo":
        (flamingo,) = [case for case in GOLDEN_CASES if case.family == family]
        tmp_path = flamingo.write(tmp_path / "flamingo", "webui")
        assert find_family(tmp_path) == family
    with pytest.raises(ValueError, match="family 'open_flamingo'|no vision model of a known family"):
        load_prompt_side(tmp_path)


@pytest.mark.parametrize("name", ["visualcla", "mplug_owl"])
def test_published_files_are_to_be_converted_first(name):
    (published,) = [case for case in GOLDEN_CASES if case.name == name]
    with pytest.raises(ValueError, match="python -m training convert"):
        load_prompt_side(published.path)


def test_broken_folder_is_told_before_anything_is_served(tmp_path):
    (case,) = [case for case in GOLDEN_CASES if case.name == "visualcla"]
    folder = case.write(tmp_path / "model", "webui")
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-100])
    with pytest.raises(ValueError, match="cut off"):
        load_prompt_side(folder)
