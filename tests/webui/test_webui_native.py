"""Image-text-to-text models of transformers in the real web UI: each reply is what the model's own processor and `generate` give.

The models are tiny and of noise; of their seeds the first is taken with which each of the test's pictures is answered differently, so
that no reply is right by chance. They may say small letters only.
"""

import base64
import itertools
import json
import shutil

import pytest

from .conftest import data_uri, same
from .driver import Page, Server, by_hand
from .native_oracle import NUM_NEW, written
from .test_webui_clients import ASK

WARM = {"qwen2_5_vl", "smolvlm", "llava_next"}
"""Those that go on from keys and values of earlier turns with pictures."""
FAMILIES = ["qwen2_5_vl", "gemma3", "smolvlm", "llava_next", "mllama"]
ONE, TWO, THREE = "What is this?", "And these?", "Which one is it?"
CLIENTS = {"openai": "OpenAI", "anthropic": "Anthropic"}
TRUNCATION = "Truncate the prompt up to this length"


@pytest.fixture(scope="session")
def models(tmp_path_factory, pictures):
    folder = tmp_path_factory.mktemp("native")
    return {name: written(name, folder / name, pictures) for name in FAMILIES}


@pytest.fixture(scope="session")
def loras(tmp_path_factory, models):
    """An adapter for each model that changes what it says."""
    folder = tmp_path_factory.mktemp("loras")
    return {name: oracle.make_lora(folder / f"changed-{name}") for name, oracle in models.items()}


@pytest.fixture(scope="session")
def settings(models):
    (banned,) = {oracle.bans for oracle in models.values()}
    return {
        "do_sample": False,
        "preset": "Deterministic",
        "max_new_tokens": NUM_NEW,
        "auto_max_new_tokens": False,
        "custom_token_bans": banned,
        "multimodal_vcla-language": "en",
        "multimodal_vcla-model": FAMILIES[0],
    }


@pytest.fixture(scope="module")
def server(tmp_path_factory, model_folder, models, loras, settings):
    def prepare(root):
        by_hand(root)
        for name, oracle in models.items():
            shutil.copytree(oracle.folder, root / "user_data" / "models" / name)
        shutil.copytree(model_folder, root / "user_data" / "models" / "world")
        shutil.copytree(model_folder, root / "user_data" / "models" / "text", ignore=shutil.ignore_patterns("vision"))
        for lora in loras.values():
            shutil.copytree(lora, root / "user_data" / "loras" / lora.name)

    with Server(tmp_path_factory.mktemp("server"), None, settings, ("--cpu",), prepare) as server:
        yield server


def ask(server, *turns, **more) -> tuple[int, object]:
    """As `NativeOracle`, through `/v1/chat/completions`."""
    messages = []
    for turn in turns:
        text, shown = turn if isinstance(turn, tuple) else (turn, [])
        items = [{"type": "image_url", "image_url": {"url": data_uri(picture)}} for picture in shown]
        role = "user" if isinstance(turn, tuple) else "assistant"
        messages.append({"role": role, "content": [*items, {"type": "text", "text": text}] if items else text})
    body = {"messages": messages, "max_tokens": NUM_NEW, "temperature": 0, **more}
    status, answer = server.request("/v1/chat/completions", body)
    if status != 200:
        return status, answer
    if not more.get("stream"):
        return status, answer["choices"][0]["message"]["content"]
    chunks = [json.loads(line[5:]) for line in answer.splitlines() if line.startswith("data:") and "[DONE]" not in line]
    return status, "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])


def load(server, name: str) -> None:
    status, answer = server.request("/v1/internal/model/load", {"model_name": name})
    assert status == 200, answer


def test_the_model_of_the_setting_is_there_from_the_start(server, models, pictures):
    assert server.request("/v1/internal/model/info")[1]["model_name"] == FAMILIES[0]
    oracle, turn = models[FAMILIES[0]], (ONE, pictures[:1])
    status, reply = ask(server, turn, custom_token_bans=oracle.bans)
    assert (status, reply) == (200, oracle(turn))


@pytest.mark.parametrize("name", FAMILIES)
def test_requests_over_turns(server, models, pictures, name):
    load(server, name)
    oracle, more = models[name], {"custom_token_bans": models[name].bans}
    for picture in pictures[:3]:
        assert ask(server, (ONE, [picture]), **more) == (200, oracle((ONE, [picture])))
    turns = [(ONE, pictures[:1])]
    for asked in [(TWO, pictures[1:3]), (THREE, [])]:
        before = oracle.length(*turns)
        turns += [oracle(*turns), asked]
        replies = [ask(server, *turns, **more)]
        served = server.served[-1]
        assert served["total"] == oracle.length(*turns)
        assert served["reused"] >= before - 4 if name in WARM else served["reused"] == 0
        replies.append(ask(server, *turns, stream=True, **more))
        assert replies == [(200, oracle(*turns))] * 2
        if asked[1]:
            assert replies[0][1] != oracle(*turns[:-1], (TWO, pictures[3:5])), "the answer hangs on what is shown"
    assert ask(server, ("Hello.", []), **more) == (200, oracle(("Hello.", [])))
    source = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(pictures[0].read_bytes()).decode()}
    content = [{"type": "image", "source": source}, {"type": "text", "text": ONE}]
    body = {"messages": [{"role": "user", "content": content}], "max_tokens": NUM_NEW, "temperature": 0, **more}
    status, answer = server.request("/v1/messages", body)
    assert status == 200 and same(answer["content"][0]["text"], oracle((ONE, pictures[:1])))


@pytest.mark.parametrize("library", CLIENTS)
@pytest.mark.parametrize("name", FAMILIES)
def test_official_clients_are_answered(server, models, pictures, name, library):
    """Over turns, several pictures in one; edited, continued, and in a context that holds the last question only."""
    module = pytest.importorskip(library)
    load(server, name)
    oracle, address = models[name], f"{server.api}/v1" if library == "openai" else server.api
    client = getattr(module, CLIENTS[library])(base_url=address, api_key="none", max_retries=0)

    def told(turns, stream=False, **more) -> str:
        turns = [turn if isinstance(turn, str) else (turn[0], [*map(data_uri, turn[1])]) for turn in turns]
        return ASK[library](client, turns, stream, NUM_NEW, custom_token_bans=oracle.bans, **more)

    turns = []
    for asked, stream in [((ONE, pictures[:1]), False), ((TWO, pictures[1:3]), True)]:
        turns.append(asked)
        turns.append(told(turns, stream))
        assert turns[-1] == oracle(*turns[:-1])
    edited = [*turns[:2], (THREE, pictures[1:3])]
    begun = told(edited)
    assert begun == oracle(*edited)
    ways = [begun + oracle(*edited, begun=space + begun) for space in ("", " ")]  # before 4.8 a template may write a space
    for stream in (False, True) if library == "openai" else ():  # the web UI's other endpoint begins a new reply
        assert told([*edited, begun], stream, continue_=True) in ways
    last = (TWO, pictures[4:5])
    room = oracle.length(last) + 1 + NUM_NEW
    assert told([(ONE, pictures[3:4]), "a", last], truncation_length=room) == oracle(last)


@pytest.mark.parametrize("name", FAMILIES)
def test_an_adapter_is_put_on_and_off(server, models, loras, pictures, name):
    load(server, name)
    oracle, turn, more = models[name], (ONE, pictures[:1]), {"custom_token_bans": models[name].bans}
    with oracle.adapted(loras[name]):
        adapted = oracle(turn)
    assert adapted != oracle(turn)
    assert ask(server, turn, **more) == (200, oracle(turn))
    assert server.request("/v1/internal/lora/load", {"lora_names": [loras[name].name]})[0] == 200
    assert ask(server, turn, **more) == (200, adapted)
    assert server.request("/v1/internal/lora/unload", {})[0] == 200
    assert ask(server, turn, **more) == (200, oracle(turn))


def test_models_are_swapped(server, models, oracle, pictures):
    """Each from and to a text model, and from and to one whose vision model stands beside it."""
    turn = (ONE, pictures[:1])
    for name in ("text", "qwen2_5_vl", "world", "gemma3", "text", "smolvlm", "world", "mllama", "text", "gemma3", "world",
                 "qwen2_5_vl", "text", "mllama", "world", "smolvlm", "text"):  # fmt: skip
        load(server, name)
        bans = models[name].bans if name in models else ",".join(map(str, oracle.banned))
        status, answer = ask(server, turn, custom_token_bans=bans)
        if name == "text":
            assert status == 400 and "no vision model" in answer["error"]["message"]
            assert ask(server, ("Hello.", []), custom_token_bans=bans)[0] == 200
        elif name == "world":
            assert status == 200 and begins(answer, oracle(turn))
        else:
            assert (status, answer) == (200, models[name](turn))
    assert server.request("/v1/internal/model/unload", {})[0] == 200
    assert ask(server, turn)[0] == 500


def begins(reply: str, expected: str) -> bool:
    """Shorter, but something."""
    reply = "".join(reply.split())
    return bool(reply) and "".join(expected.split()).startswith(reply)


@pytest.fixture(scope="module")
def window(chrome, server):
    window = Page(chrome, server.url)
    yield window
    window.page.context.close()


def choose(page, name: str) -> None:
    """Load a model from the Model tab."""
    page.tab("Model")
    page.page.get_by_label("Model", exact=True).locator("visible=true").first.click()
    page.page.get_by_role("option", name=name, exact=True).click()
    page.settle()
    page.page.locator("#model-tab button:visible", has_text="Load").first.click()
    page.page.get_by_text(f"Successfully loaded {name}").wait_for()
    page.tab("Chat")
    page.new_chat()


def adapt(page, *names: str) -> None:
    """Put on an adapter in the Model tab, or take it off."""
    page.tab("Model")
    menu = page.page.get_by_label("LoRA(s)").locator("visible=true")
    if not menu.count():
        page.page.get_by_text("See more options").click()
    menu.first.click()
    if names:
        page.page.get_by_role("option", name=names[0], exact=True).click()
    else:
        menu.first.press("Backspace")
    page.page.get_by_role("button", name="Apply LoRAs").click()
    page.settle()
    page.tab("Chat")
    page.new_chat()


@pytest.mark.browser
def test_models_come_and_go_in_the_model_tab(window, models, loras, oracle, pictures, monkeypatch):
    """Between a text model and VisualCLA, from nothing and to nothing, with an adapter and without."""
    page, turn = window, (ONE, pictures[:1])
    monkeypatch.setattr(oracle, "banned", models[FAMILIES[0]].banned)
    for name in ("text", "qwen2_5_vl", "world", "gemma3", "text", "smolvlm", "world", "mllama", "text"):
        choose(page, name)
        reply = page.send(*turn[:1], *turn[1])
        if name == "text":
            assert not reply and any("no vision model" in toast for toast in page.toasts())
            continue
        if name == "world":
            assert begins(reply, oracle(turn))
            continue
        assert reply == models[name](turn)
        adapt(page, loras[name].name)
        with models[name].adapted(loras[name]):
            assert page.send(*turn[:1], *turn[1]) == models[name](turn) != reply
        adapt(page)
        assert page.send(*turn[:1], *turn[1]) == reply
        page.tab("Model")
        page.page.get_by_role("button", name="Unload", exact=True).first.click()
        page.tab("Chat")
        page.panel_says("No model is loaded.")


@pytest.mark.browser
@pytest.mark.parametrize("name", ["qwen2_5_vl", "gemma3", "smolvlm", "mllama"])
def test_a_chat_in_the_browser(window, models, pictures, name):
    page, oracle = window, models[name]
    choose(page, name)
    turns = [(ONE, pictures[:1])]
    turns.append(page.send(*turns[0][:1], *turns[0][1]))
    assert turns[1] == oracle(turns[0])
    turns.append((TWO, pictures[1:3]))
    turns.append(page.send(TWO, *pictures[1:3]))
    assert turns[3] == oracle(*turns[:3])
    page.panel_says(f"{name} on cpu. In context: 3 pictures, {sum(oracle.costs(pictures[:3]))} of")
    with page.reply():
        page.footer("refresh")
    assert page.last_reply() == oracle(*turns[:3]), "regenerated"
    page.edit(1, THREE)
    with page.reply():
        page.footer("refresh")
    edited = page.last_reply()
    assert edited == oracle(*turns[:2], (THREE, pictures[1:3])), "edited"
    with page.reply():
        page.footer("continue")
    assert page.last_reply() == edited + oracle(*turns[:2], (THREE, pictures[1:3]), begun=edited), "continued"
    page.new_chat()
    assert page.send(ONE, pictures[3]) == oracle((ONE, pictures[3:4]))
    room = oracle.length((TWO, pictures[4:5])) + 1 + NUM_NEW
    page.parameter(TRUNCATION, room)
    assert page.send(TWO, pictures[4]) == oracle((TWO, pictures[4:5])), "the first turn is gone, with its picture"
    page.parameter(TRUNCATION, 4096)


@pytest.mark.browser
@pytest.mark.parametrize("mode", ["chat", "chat-instruct"])
def test_other_modes_see(window, server, models, pictures, mode):
    page, oracle = window, models["qwen2_5_vl"]
    choose(page, "qwen2_5_vl")
    page.mode(mode)
    try:
        page.new_chat()
        for count in (1, 2):
            reply = page.send(ONE, pictures[count - 1])
            seen = server.prompts[-1]
            assert reply == oracle.of_prompt(seen, pictures[:count])
            assert any(oracle.of_prompt(seen, list(others)) != reply for others in itertools.permutations(pictures[2:5], count))
    finally:
        page.mode("instruct")


@pytest.mark.browser
def test_three_pictures_are_simply_there(window, models, pictures):
    """And each of them counts."""
    page, oracle = window, models["qwen2_5_vl"]
    choose(page, "qwen2_5_vl")
    reply = page.send(TWO, *pictures[:3])
    assert reply == oracle((TWO, pictures[:3]))
    others = [oracle((TWO, list(shown))) for shown in itertools.permutations(pictures[:3]) if list(shown) != pictures[:3]]
    assert reply not in others


@pytest.mark.browser
def test_the_panel_says_what_a_picture_costs_and_makes_it_cheaper(window, models, pictures):
    page, oracle, turn = window, models["smolvlm"], (ONE, pictures[:1])
    choose(page, "smolvlm")
    own, (cost,) = page.send(*turn[:1], *turn[1]), oracle.costs(pictures[:1])
    assert own == oracle(turn)
    page.panel_says(f"one.png\n{cost} tokens", "as the model does by itself: ")
    oracle.shown = {"do_image_splitting": False}
    try:
        page.page.locator("#multimodal_vcla_tiles label", has_text="whole only").click()
        (cheaper,) = oracle.costs(pictures[:1])
        assert cheaper < cost
        page.panel_says(f"whole only: {cheaper} tokens", f"{cheaper} tokens instead of {cost}", f"1 picture, {cheaper} of")
        with page.reply():
            page.footer("refresh")
        assert page.last_reply() == oracle(turn) != own
    finally:
        oracle.shown = {}
        page.page.locator("#multimodal_vcla_tiles label", has_text="as the model does").click()
        page.panel_says(f"1 picture, {cost} of")
    with page.reply():
        page.footer("refresh")
    assert page.last_reply() == own
