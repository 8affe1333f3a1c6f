"""Prompts of one batch that show the same pictures: these are computed once, and answers and logits are those of each prompt alone."""

import functools

import pytest
import torch
from conftest import load_golden
from test_pipelines_prefix_cache import PICTURES, run, turns
from transformers import GenerationConfig

from pipelines.generation import ChatModel
from pipelines.prefix_cache import PrefixCache
from pipelines.shared_prefix import share_prefixes

CONFIG = GenerationConfig(max_new_tokens=8, do_sample=False, pad_token_id=0)
ASKED = [
    (turns("What is this?"), PICTURES[:1]),
    (turns("And this?"), PICTURES[1:2]),
    (turns("Why does it stand there, and who has put it there?"), PICTURES[:1]),
    (turns("What is this?", "A boat.", "And that one?", pictures=2), PICTURES[:2]),
    (turns("Who?"), PICTURES[:1]),
]


@pytest.fixture(scope="module")
def chat():
    model = load_golden("merged")
    return ChatModel(model, model.processor)


def shared_by(chat, asked):
    prompts = [chat.prepare(*each).prompt for each in asked]
    return prompts, share_prefixes(chat.model, chat.pipeline, prompts, CONFIG)


def test_answers_of_a_batch_are_those_of_each_alone_and_pictures_are_computed_once(chat, monkeypatch):
    prompts, shared = shared_by(chat, ASKED)
    assert shared.lengths == [prompt.image_spans[-1].end for prompt in prompts]
    decoder, rows = chat.model.get_decoder(), []
    forward = decoder.forward

    @functools.wraps(forward)  # what it takes is asked of its signature
    def counted(*args, **kwargs):
        rows.append(_shape(kwargs))
        return forward(*args, **kwargs)

    monkeypatch.setattr(decoder, "forward", counted)
    together = chat.answer_batch(ASKED, CONFIG)
    assert rows[:2] == [(3, max(shared.lengths)), (5, max(len(p.input_ids[0]) - p.image_spans[-1].end for p in prompts))]
    assert together == [chat.answer(*each, CONFIG) for each in ASKED]


def _shape(given) -> tuple[int, int]:
    return tuple((given["input_ids"] if given.get("inputs_embeds") is None else given["inputs_embeds"]).shape[:2])


def test_logits_behind_a_shared_prefix_are_those_of_the_prompt_alone(chat):
    prompts, shared = shared_by(chat, ASKED)
    behind = [prompt.input_ids[0, start:] for prompt, start in zip(prompts, shared.lengths, strict=True)]
    padding = [max(map(len, behind)) - len(each) for each in behind]
    ids = torch.stack([torch.nn.functional.pad(each, (left, 0)) for each, left in zip(behind, padding, strict=True)])
    mask = torch.stack(
        [torch.nn.functional.pad(torch.ones_like(each), (left, 0)) for each, left in zip(behind, padding, strict=True)]
    )
    settings = {
        "max_new_tokens": 4,
        "do_sample": False,
        "return_dict_in_generate": True,
        "output_logits": True,
        "pad_token_id": 0,
    }
    whole = {"attention_mask": torch.cat((shared.mask, mask), 1), "past_key_values": shared.cache}
    with torch.inference_mode():
        together = chat.model.generate(torch.cat((shared.ids, ids), 1), **whole, **settings)
    for row, each in enumerate(ASKED):
        alone = run(chat, PrefixCache(max_bytes=0), *each, max_new_tokens=4)
        for ours, theirs in zip(together.logits, alone.logits, strict=True):
            assert torch.allclose(ours[row], theirs[0], atol=2e-4), float((ours[row] - theirs[0]).abs().max())


def test_nothing_is_shared_where_nothing_would_be_saved_or_it_is_not_certain(chat):
    assert shared_by(chat, ASKED[:2])[1] is None, "different pictures"
    assert shared_by(chat, [ASKED[0], (turns("Hello?", pictures=0), []), ASKED[2]])[1] is None, "text among them"
    chat.model.config.get_text_config().rope_parameters["rope_type"] = "dynamic"
    try:
        assert shared_by(chat, [ASKED[0], ASKED[2]])[1] is None, "positions that depend on the length"
    finally:
        chat.model.config.get_text_config().rope_parameters["rope_type"] = "default"
