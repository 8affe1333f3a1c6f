"""Models of transformers go on from keys and values of earlier turns, where that is exact; by logits, as tokens agree by chance."""

import native_models
import pytest
import test_family_native as whole
import torch

from pipelines import native
from pipelines.base import ImagePart
from pipelines.generation import ChatModel, message
from pipelines.native.pipeline import _CAUSAL
from pipelines.prefix_cache import PrefixCache

WARM = sorted(_CAUSAL)
COLD = sorted(set(whole.FAMILIES) - _CAUSAL)


def chat_of(name, folder):
    model, processor = native.load_model(native_models.write(name, folder / name))
    return ChatModel(model, processor, native.pipeline_of(model, processor))


def run(chat, cache, messages, images):
    prompt = chat.prepare(messages, [ImagePart.of(image) for image in images]).prompt
    settings = {"max_new_tokens": 4, "do_sample": False, "return_dict_in_generate": True, "output_logits": True}
    with torch.inference_mode():
        return cache.generate(
            chat.model.generate, chat.model, prompt.input_ids, chat.pipeline, prompt.image_spans, prompt.features,
            attention_mask=torch.ones_like(prompt.input_ids), pad_token_id=0, **settings,
        )  # fmt: skip


def reused(chat, cache, messages, images=()) -> int:
    """Warm against cold, before and after; returns how many ids were not computed again."""
    warm = run(chat, cache, messages, images)
    count = cache.last.num_reused_tokens
    cold = run(chat, PrefixCache(max_bytes=0), messages, images)
    assert warm.sequences.tolist() == cold.sequences.tolist()
    for ours, theirs in zip(warm.logits, cold.logits, strict=True):
        assert torch.allclose(ours, theirs, atol=2e-4), float((ours - theirs).abs().max())
    return count


def turns(*counts: int) -> list[dict]:
    """A question with so many pictures each, an answer between them."""
    messages = []
    for count in counts:
        messages += [message("user", "What is this?", count), message("assistant", "Noise.")]
    return messages[:-1]


@pytest.mark.parametrize("name", WARM)
def test_turns_with_and_without_new_pictures_compute_what_is_new(name, tmp_path):
    chat, cache = chat_of(name, tmp_path), PrefixCache()
    first, other = whole.pictures(), whole.pictures(1)
    assert reused(chat, cache, turns(1), first[:1]) == 0
    before = chat.prepare(turns(1), [ImagePart.of(first[0])]).input_ids.shape[1]
    assert reused(chat, cache, turns(1, 0), first[:1]) >= before - 2
    longer = chat.prepare(turns(1, 0), [ImagePart.of(first[0])]).input_ids.shape[1]
    assert reused(chat, cache, turns(1, 0, 2), first) >= longer - 2
    assert reused(chat, cache, turns(1, 0, 2), first) > longer, "regenerated"
    assert longer - 2 <= reused(chat, cache, turns(1, 0, 2), [first[0], *other[1:]]), "other pictures in the newest turn"
    assert reused(chat, cache, turns(1, 0), other[:1]) < before, "another one in the first"
    assert reused(chat, cache, turns(0, 0)) < before, "text after pictures"
    assert reused(chat, cache, turns(0, 0, 1), first[:1]) > 0
    assert reused(chat, cache, turns(1, 0, 2), first) > 0


@pytest.mark.parametrize("name", COLD)
def test_others_are_computed_anew_and_say_why(name, tmp_path):
    chat, cache = chat_of(name, tmp_path), PrefixCache()
    for counts in ((1,), (1, 0), (1, 1)):
        assert reused(chat, cache, turns(*counts), whole.pictures()[: sum(counts)]) == 0
        assert cache.last.reason


def test_positions_that_the_model_keeps_are_of_no_other_conversation(tmp_path):
    chat, cache = chat_of("qwen2_5_vl", tmp_path), PrefixCache()
    reused(chat, cache, turns(0))
    run(chat, PrefixCache(max_bytes=0), turns(3), whole.pictures())
    assert reused(chat, cache, turns(0, 0)) > 0
    ids = chat.prepare(turns(0, 0), []).input_ids
    cache.generate(chat.model.generate, chat.model, ids, None, max_new_tokens=1, pad_token_id=0)
    assert cache.last.reason == "positions that hang on pictures"
