"""A warm start gives what a cold one gives: the same tokens, the same logits; and where that is not certain there is none."""

import threading

import pytest
import torch
from conftest import GREEDY, load_golden
from PIL import Image
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from pipelines.base import ImagePart
from pipelines.generation import ChatModel, message
from pipelines.open_flamingo import load_model
from pipelines.prefix_cache import PrefixCache, common_length, position_keys

PICTURES = [ImagePart.of(Image.radial_gradient("L").resize((40 + 9 * i, 40)).convert("RGB").rotate(9 * i)) for i in range(3)]
SYSTEM = {"role": "system", "content": "Answer as if you were at sea."}


@pytest.fixture(scope="module", params=["visualcla", "open_flamingo"])
def chat(request):
    if request.param == "visualcla":
        model = load_golden("merged")
        return ChatModel(model, model.processor)
    from pathlib import Path

    golden = Path(__file__).parent.parent / "golden" / "mmgpt"
    model, processor = load_model(
        golden / "checkpoint" / "checkpoint.pt",
        text_model=golden / "llama_tiny",
        vision_model=golden / "checkpoint" / "clip_hf",
        dtype=torch.float32,
    )
    return ChatModel(model, processor)


@pytest.fixture
def cache():
    return PrefixCache()


def run(chat, cache, messages, images, **kwargs):
    prompt = chat.prepare(messages, images).prompt
    settings = {"max_new_tokens": 8, "do_sample": False, "return_dict_in_generate": True, "output_logits": True, **kwargs}
    with torch.inference_mode(), chat.pipeline.attach(chat.model):
        return cache.generate(
            chat.model.generate,
            chat.model,
            prompt.input_ids,
            chat.pipeline,
            prompt.image_spans,
            prompt.features,
            attention_mask=torch.ones_like(prompt.input_ids),
            **settings,
        )


def reused(chat, cache, messages, images=(), **kwargs) -> int:
    """Warm against cold; returns how many ids were not computed again."""
    cold = run(chat, PrefixCache(max_bytes=0), messages, images, **kwargs)
    warm = run(chat, cache, messages, images, **kwargs)
    assert warm.sequences.tolist() == cold.sequences.tolist()
    for ours, theirs in zip(warm.logits, cold.logits, strict=True):
        assert torch.allclose(ours, theirs, atol=2e-4), float((ours - theirs).abs().max())
    return cache.last.num_reused_tokens


def turns(*texts: str, pictures: int = 1) -> list:
    """A conversation; the first `pictures` questions bring one picture each."""
    roles = ("user", "assistant")
    return [message(roles[i % 2], text, int(i % 2 == 0 and i // 2 < pictures)) for i, text in enumerate(texts)]


def num_ids(chat, messages, images=()) -> int:
    return chat.prepare(messages, images).input_ids.shape[1]


def test_the_next_turn_computes_what_is_new(chat, cache):
    first = turns("What is this?")
    assert reused(chat, cache, first, PICTURES[:1]) == 0
    before = num_ids(chat, first, PICTURES[:1])
    longer = turns("What is this?", "A boat.", "How large is it?")
    assert before - 2 <= reused(chat, cache, longer, PICTURES[:1]) <= before + 2
    assert len(cache) == 1


def test_a_new_picture_in_the_next_turn_is_seen(chat, cache):
    texts = ["What is this?", "A boat.", "And this?"]
    reused(chat, cache, turns(*texts[:1]), PICTURES[:1])
    assert reused(chat, cache, turns(*texts, pictures=2), PICTURES[:2]) > 0
    assert reused(chat, cache, turns(*texts, "A house.", "And?", pictures=3), PICTURES) > 0
    other = [PICTURES[0], PICTURES[2]]
    differ = [run(chat, cache, turns(*texts, pictures=2), images).logits[0] for images in (PICTURES[:2], other)]
    assert (differ[0] - differ[1]).abs().max() > 1e-3


def test_regenerate_leaves_one_id_and_continue_the_reply(chat, cache):
    messages = turns("What is this?", "A boat.", "How large?")
    reused(chat, cache, messages, PICTURES[:1])
    assert reused(chat, cache, messages, PICTURES[:1]) == num_ids(chat, messages, PICTURES[:1]) - 1
    assert reused(chat, cache, messages, PICTURES[:1]) == num_ids(chat, messages, PICTURES[:1]) - 1


def test_an_edited_question_computes_from_the_edit_on(chat, cache):
    reused(chat, cache, turns("What is this?", "A boat.", "How large is it?"), PICTURES[:1])
    edited = turns("What is that?", "A boat.", "How large is it?")
    assert 0 < reused(chat, cache, edited, PICTURES[:1]) < num_ids(chat, edited, PICTURES[:1]) - 5


def test_branch_and_back(chat, cache):
    left = turns("What is this?", "A boat.", "How large is it?")
    right = turns("What is this?", "A house.", "Who lives there?")
    for messages in (left, right, left, right):
        reused(chat, cache, messages, PICTURES[:1])
    assert cache.last.num_reused_tokens > 0


def test_another_picture_in_the_same_text_is_another_conversation(chat, cache):
    messages = turns("What is this?")
    reused(chat, cache, messages, PICTURES[:1])
    begins_with_text = num_ids(chat, messages, PICTURES[:1]) // 2
    assert reused(chat, cache, messages, PICTURES[1:2]) < max(begins_with_text, 60)
    reused(chat, cache, messages, PICTURES[:1])


def test_a_picture_kept_out_and_in_again(chat, cache):
    with_picture, without = turns("What is this?", "A boat.", "Sure?"), turns("What is this?", "A boat.", "Sure?", pictures=0)
    for messages, images in ((with_picture, PICTURES[:1]), (without, []), (with_picture, PICTURES[:1])):
        reused(chat, cache, messages, images)


def test_oldest_turn_dropped_and_system_prompt_changed(chat, cache):
    whole = turns("What is this?", "A boat.", "How large?", "Small.", "Whose?", pictures=2)
    reused(chat, cache, whole, PICTURES[:2])
    assert reused(chat, cache, whole[2:], PICTURES[1:2]) < num_ids(chat, whole[2:], PICTURES[1:2])
    reused(chat, cache, [SYSTEM, *whole], PICTURES[:2])
    assert reused(chat, cache, [SYSTEM, *whole], PICTURES[:2]) > 0


def test_two_conversations_in_turn_keep_their_own(chat, cache):
    one, other = turns("What is this?"), turns("Tell me about the weather in the north.", pictures=0)
    reused(chat, cache, one, PICTURES[:1])
    reused(chat, cache, other)
    answer = message("assistant", "I see.")
    assert reused(chat, cache, [*one, answer, message("user", "More.")], PICTURES[:1]) > num_ids(chat, one, PICTURES[:1]) // 2
    assert reused(chat, cache, [*other, answer, message("user", "More.")]) > num_ids(chat, other) // 2


def test_two_users_at_once_get_their_own_answers(chat):
    talks = [(turns("What is this?"), PICTURES[:1]), (turns("What is this?"), PICTURES[1:2])] * 2
    cold = [run(chat, PrefixCache(max_bytes=0), *talk).sequences.tolist() for talk in talks]
    cache, warm, barrier = PrefixCache(), {}, threading.Barrier(len(talks))

    def ask(number):
        barrier.wait()
        warm[number] = [run(chat, cache, *talks[number]).sequences.tolist() for _ in range(2)]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(talks))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [warm[number] for number in range(len(talks))] == [[ids, ids] for ids in cold]


def test_a_stopped_generation_leaves_what_was_computed(chat, cache):
    chat.prefix_cache, before = cache, chat.prefix_cache
    try:
        prepared = chat.prepare(turns("What is this?"), PICTURES[:1])
        stream = chat.stream_ids(prepared, GREEDY)
        next(stream)
        stream.close()
        assert reused(chat, cache, turns("What is this?", "A boat.", "Sure?"), PICTURES[:1]) > 0
    finally:
        chat.prefix_cache = before


def test_a_generation_that_failed_leaves_nothing(chat, cache):
    reused(chat, cache, turns("What is this?"), PICTURES[:1])

    def fails(input_ids, scores):
        raise RuntimeError("half-way")

    with pytest.raises(RuntimeError, match="half-way"):
        run(chat, cache, turns("What is this?"), PICTURES[:1], logits_processor=[fails])
    assert len(cache) == 0
    assert reused(chat, cache, turns("What is this?"), PICTURES[:1]) == 0


def test_the_chat_answers_the_same_with_and_without(chat):
    warm, cold = (
        ChatModel(chat.model, chat.processor, prefix_cache=kept) for kept in (PrefixCache(), PrefixCache(max_bytes=0))
    )
    messages, images = [], []
    for number, text in enumerate(["What is this?", "And this?", "Which is larger?"]):
        messages.append(message("user", text, int(number < 2)))
        images = PICTURES[: min(number + 1, 2)]
        answers = [each.answer(messages, images, GREEDY) for each in (warm, cold)]
        assert answers[0] == answers[1]
        messages.append(message("assistant", answers[0]))
    assert warm.prefix_cache.last.num_reused_tokens > 0
    assert cold.prefix_cache.last.num_reused_tokens == 0 and len(cold.prefix_cache) == 0


def test_a_full_context_goes_on_alike_for_several_turns(chat, monkeypatch):
    monkeypatch.setattr(ChatModel, "max_tokens", 400)
    messages, before, num_full, num_breaks = [], torch.empty(1, 0, dtype=torch.long), 0, 0
    for number in range(30):
        messages.append(message("user", f"What about number {number}?"))
        ids = chat.prepare(messages, []).input_ids
        num_full += "number 0?" not in chat.tokenizer.decode(ids[0])
        length = min(ids.shape[1], before.shape[1])
        num_breaks += bool((ids[:, :length] != before[:, :length])[:, : length // 2].any())
        messages.append(message("assistant", "It is the one."))
        before = ids
    assert num_full > 8 and 0 < num_breaks <= num_full // 3


# -- a bare language model


def tiny_llama(**kwargs) -> LlamaForCausalLM:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 64}
    return LlamaForCausalLM(LlamaConfig(**sizes, **kwargs)).eval()


def ids_of(*numbers: int) -> torch.Tensor:
    return torch.tensor([[1, *numbers]])


LONG = tuple(range(3, 40))


def generate(cache, model, ids, **kwargs):
    settings = {"max_new_tokens": 4, "do_sample": False, "attention_mask": torch.ones_like(ids), **kwargs}
    with torch.no_grad():
        return cache.generate(model.generate, model, ids, **settings)


def test_adapters_switched_and_weights_changed_are_another_model(cache):
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(tiny_llama(), LoraConfig(target_modules=["q_proj", "v_proj"], init_lora_weights=False)).eval()
    seen = []

    def ask() -> list:
        warm = generate(cache, model, ids_of(*LONG)).tolist()
        seen.append(cache.last.num_reused_tokens)
        assert warm == generate(PrefixCache(max_bytes=0), model, ids_of(*LONG)).tolist()
        return warm

    on = ask()
    with model.disable_adapter():
        off = ask()
    assert ask() == on != off
    with torch.no_grad():
        model.get_base_model().model.embed_tokens.weight.mul_(1.5)
    ask()
    assert seen == [0, 0, len(LONG), 0]


def test_a_long_prompt_is_computed_in_chunks(cache):
    model, cache.chunk = tiny_llama(), 8
    lengths = []
    generate(cache, model, ids_of(*LONG[:5]))
    hook = model.model.register_forward_pre_hook(
        lambda module, args, kwargs: lengths.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    warm = generate(cache, model, ids_of(*LONG))
    hook.remove()
    assert cache.last.num_reused_tokens == 6 and max(lengths) == 8
    assert warm.tolist() == generate(PrefixCache(max_bytes=0), model, ids_of(*LONG)).tolist()


def test_least_recently_used_goes_first_and_bytes_are_bounded():
    model = tiny_llama()
    bytes_of_one = 2 * 2 * 32 * 4 * (len(LONG) + 1 + 3)
    cache = PrefixCache(max_bytes=2 * bytes_of_one)
    prompts = [ids_of(*((number + place) % 60 + 3 for place in LONG)) for number in range(3)]
    for prompt in prompts:
        prompt[0, 0] = int(prompt[0, 1])  # nothing in common, not even the beginning
        generate(cache, model, prompt)
        assert 0 < cache.num_bytes <= cache.max_bytes
    assert len(cache) == 2
    generate(cache, model, prompts[0])
    assert cache.last.num_reused_tokens == 0
    generate(cache, model, prompts[2])
    assert cache.last.num_reused_tokens == len(LONG)
    cache.clear()
    assert cache.num_bytes == 0 == len(cache)


def test_a_model_that_is_gone_takes_its_cache_along(cache):
    model = tiny_llama()
    generate(cache, model, ids_of(*LONG))
    assert len(cache) == 1
    del model
    import gc

    gc.collect()
    assert len(cache) == 0


def test_out_of_memory_gives_everything_back_and_computes_cold(cache):
    model = tiny_llama()
    generate(cache, model, ids_of(*LONG))
    cold = generate(PrefixCache(max_bytes=0), model, ids_of(*LONG, 5, 6)).tolist()
    calls = []

    def full_once(*args, **kwargs):
        calls.append(kwargs["past_key_values"].get_seq_length())
        if len(calls) == 1:
            raise torch.OutOfMemoryError("full")
        return model.generate(*args, **kwargs)

    ids = ids_of(*LONG, 5, 6)
    with torch.no_grad():
        warm = cache.generate(full_once, model, ids, max_new_tokens=4, do_sample=False, attention_mask=torch.ones_like(ids))
    assert warm.tolist() == cold and calls == [len(LONG) + 1, 0]
    assert cache.last.reason == "out of memory" and len(cache) == 1


COLD = {
    "several rows": ({"num_return_sequences": 2, "do_sample": True}, {}),
    "beams": ({"num_beams": 2}, {}),
    "guidance": ({"guidance_scale": 1.5}, {}),
    "prompt lookup": ({"prompt_lookup_num_tokens": 2}, {}),
    "no key/value cache": ({"use_cache": False}, {}),
    "a cache of another kind": ({"cache_implementation": "static"}, {}),
    "rotary embeddings that depend on the length": (
        {},
        {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}, "max_position_embeddings": 64},
    ),
}


@pytest.mark.parametrize("reason", COLD)
def test_what_is_not_certain_goes_cold(cache, reason):
    settings, sizes = COLD[reason]
    model = tiny_llama(**sizes)
    for _ in range(2):
        generate(cache, model, ids_of(*LONG), **settings)
        assert cache.last.reason == reason and cache.last.num_reused_tokens == 0
    assert len(cache) == 0


def test_settings_of_the_model_count_where_the_call_says_nothing(cache):
    model = tiny_llama()
    model.generation_config.num_beams = 2
    generate(cache, model, ids_of(*LONG), generation_config=GenerationConfig(max_new_tokens=4))
    assert cache.last.reason == "beams"


def test_padding_and_windows_go_cold(cache):
    model = tiny_llama()
    mask = torch.ones_like(ids_of(*LONG))
    mask[0, 0] = 0
    generate(cache, model, ids_of(*LONG), attention_mask=mask)
    assert cache.last.reason == "positions that are padded"
    generate(cache, model, ids_of(5, 3, 5, 6), attention_mask=None, pad_token_id=3)
    assert cache.last.reason == "padding ids without a mask"
    generate(cache, model, ids_of(5, 2, 5, 6), attention_mask=None, pad_token_id=2)  # EOS: then it is no padding
    assert cache.last.reason == ""
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 64}
    sliding = MistralForCausalLM(MistralConfig(**sizes, num_key_value_heads=2, sliding_window=8)).eval()
    generate(cache, sliding, ids_of(*LONG))
    assert cache.last.reason == "layers whose cache cannot be cut"


def test_a_prefix_never_ends_inside_a_picture():
    from pipelines.base import ImageSpan

    picture, other = PICTURES[0], PICTURES[1]
    spans = [ImageSpan(2, 4, picture)]
    first = position_keys([5, 6, 9, 9, 9, 9, 7, 8], spans, None)
    assert common_length(first, first, spans) == 7
    assert common_length(first[:4], first, spans) == 2  # a cache that ends within the picture
    assert common_length(first, position_keys([5, 6, 9, 9, 9, 9, 7, 8], [ImageSpan(2, 4, other)], None), spans) == 2
    assert common_length(first, position_keys([5, 6, 9, 9, 9, 9, 7, 8], (), None), ()) == 2
