"""The language model of every old family in 8 and 4 bits; the vision model beside it stays as it is."""

import copy
import warnings

import bitsandbytes
import pytest
import torch
from contract import CASES, GREEDY, IMAGES, conversation

from pipelines import load_model
from pipelines.generation import ChatModel
from pipelines.registry import pipeline_of, save_model

LINEAR = {8: bitsandbytes.nn.Linear8bitLt, 4: bitsandbytes.nn.Linear4bit}


@pytest.fixture(scope="module", params=[case for case in CASES if case.family != "visualcla"], ids=lambda case: case.name)
def folder(request, tmp_path_factory):
    """The family's tiny model, at random, with a language model of widths that 4 bits can be computed in on any processor."""
    model, processor = request.param.opened
    config = copy.deepcopy(model.config)
    config.text_config.hidden_size, config.text_config.intermediate_size = 64, 128
    config.text_config.head_dim = 64 // config.text_config.num_attention_heads
    torch.manual_seed(0)
    wider = type(model)(config).eval()
    wider.generation_config = model.generation_config
    path = tmp_path_factory.mktemp(request.param.name) / "wider"
    save_model(wider, processor, path)
    return path


def quantised(model) -> set[str]:
    return {name for name, module in model.named_modules() if isinstance(module, tuple(LINEAR.values()))}


@pytest.mark.parametrize("bits", LINEAR)
def test_the_language_model_alone_has_few_bits_and_answers(bits, folder):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        full = load_model(folder, dtype=torch.float32)
        model, processor = load_model(folder, dtype=torch.float32, **{f"load_in_{bits}bit": True})
    found = quantised(model)
    layers = {name.partition(".layers.")[0] for name in found}
    assert len(layers) == 1 and "language_model" in next(iter(layers)), "nothing else is quantised"
    assert all(isinstance(model.get_submodule(name), LINEAR[bits]) for name in found)
    assert len(found) == 7 * model.config.text_config.num_hidden_layers
    for ours, theirs in zip(
        pipeline_of(model, processor).encode_images(IMAGES[:1]), pipeline_of(*full).encode_images(IMAGES[:1]), strict=True
    ):
        for mine, its in ((ours.embeds, theirs.embeds), (ours.states, theirs.states)):
            assert mine is its is None or torch.equal(mine, its)
    messages, images = conversation(0, 1)
    chat = ChatModel(model, processor)
    assert chat.answer_batch([(messages, images)], GREEDY) == [chat.answer(messages, images, GREEDY)]
