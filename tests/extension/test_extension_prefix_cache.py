"""Follow-up turns in the web UI cost what is new in them, and answer as they would without."""

import copy
import gc
import itertools

import pytest
import torch
from PIL import Image

pytest_plugins = ["webui_stub.plugin"]


@pytest.fixture
def generate(webui):
    """The plugin's module, with a model of the test's own: what is wrapped and kept is gone with it."""
    from multimodal_vcla import generate

    webui.shared.model = copy.deepcopy(webui.shared.model)
    yield generate
    webui.shared.model = None
    generate._prefixes = None


def picture(tmp_path, colour: str):
    path = tmp_path / f"{colour}.png"
    Image.new("RGB", (30, 20), colour).save(path)
    return path


def reply(webui, state, text: str, *files) -> list[int]:
    """One turn, as the web UI makes it: prompt, generation, history. Gives the new ids."""
    last = webui.chat.one_turn(text, state, list(files))
    embeds = {} if last.embeds is None else {"inputs_embeds": last.embeds}
    with torch.no_grad():
        generated = webui.shared.model.generate(inputs=last.ids, max_new_tokens=6, do_sample=False, **embeds)
    new = generated[0, last.ids.shape[1] :].tolist()
    last.history["internal"][-1][1] = last.history["visible"][-1][1] = webui.shared.tokenizer.decode(new)
    state["history"] = last.history
    return new


def talk(webui, tmp_path) -> list[list[int]]:
    state = webui.chat.new_state()
    red, blue = picture(tmp_path, "red"), picture(tmp_path, "blue")
    turns = [("One.", red), ("More.",), ("Two.", blue), ("Which?",)]
    return [reply(webui, state, *turn) for turn in turns]


def test_turns_reuse_what_was_there_and_answer_the_same(webui, generate, tmp_path):
    webui.script.params["prefix_cache"] = False
    cold = talk(webui, tmp_path)
    assert generate.last_reuse().num_reused_tokens == 0 and len(generate._prefixes) == 0
    webui.script.params["prefix_cache"] = True
    assert talk(webui, tmp_path) == cold
    last = generate.last_reuse()
    assert 0 < last.num_reused_tokens < last.num_prompt_tokens == webui.shared.model.last_prompt_token_count


def test_the_panel_says_how_much_was_reused(webui, generate, tmp_path):
    from multimodal_vcla import panel

    talk(webui, tmp_path)
    last = generate.last_reuse()
    shown = panel.show({"internal": []})
    assert f"{last.num_prompt_tokens} tokens, {last.num_reused_tokens} of them kept from before" in shown


def test_text_is_kept_only_where_it_is_switched_on(webui, generate):
    state = webui.chat.new_state()
    cold = [reply(webui, state, text) for text in ("One.", "Two.")]
    assert generate.last_reuse() is None and "generate" not in vars(webui.shared.model)
    webui.script.params["prefix_cache_text"] = True
    state = webui.chat.new_state()
    assert [reply(webui, state, text) for text in ("One.", "Two.")] == cold
    assert generate.last_reuse().num_reused_tokens > 0


def test_unloading_gives_the_memory_back(webui, generate, tmp_path):
    talk(webui, tmp_path)
    assert generate._prefixes.num_bytes > 0
    webui.shared.model = None
    gc.collect()
    assert generate._prefixes.num_bytes == 0


def test_a_wrong_bound_is_an_error_the_user_sees(webui, generate, tmp_path):
    webui.script.params["prefix_cache_mb"] = "much"
    with pytest.raises(ValueError, match="prefix_cache_mb is 'much'"):
        talk(webui, tmp_path)


def test_a_long_chat_of_text_loses_its_oldest_messages_by_blocks(webui, generate):
    """Several prompts in a row then begin alike; without `prefix_cache_text` the web UI drops one message after the other."""
    oldest: dict[bool, list[int]] = {}
    for is_on in (False, True):
        webui.script.params["prefix_cache_text"] = is_on
        state, reused = webui.chat.new_state(truncation_length=360, max_new_tokens=60), []
        for number in range(20):
            last = webui.chat.one_turn(f"[{number}] word word word word", state, [])
            with torch.no_grad():
                webui.shared.model.generate(inputs=last.ids, max_new_tokens=1, do_sample=False)
            assert last.ids.shape[1] <= 300 and f"[{number}]" in last.prompt
            oldest.setdefault(is_on, []).append(next(n for n in range(20) if f"[{n}]" in last.prompt))
            reused.append(generate.last_reuse().num_reused_tokens if is_on else 0)
            last.history["internal"][-1][1] = last.history["visible"][-1][1] = "word word"
            state["history"] = last.history
    moves = {is_on: sum(later > before for before, later in itertools.pairwise(found)) for is_on, found in oldest.items()}
    assert 2 <= moves[True] < moves[False], oldest
    assert oldest[True] == sorted(oldest[True])
    assert sum(count > 100 for count in reused[-9:]) >= 5, reused
