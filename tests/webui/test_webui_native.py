"""Image-text-to-text models of transformers in the real web UI: each reply is what the model's own processor and `generate` give.

The models are tiny and of noise; of their seeds the first is taken with which each of the test's pictures is answered differently, so
that no reply is right by chance. They may say small letters only.
"""

import base64
import itertools
import json
import shutil

import pytest

from .conftest import TOP_LEFT, data_uri, same
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


@pytest.mark.parametrize("library", ["openai", "anthropic"])
@pytest.mark.parametrize("name", FAMILIES)
def test_official_clients_are_answered(server, models, pictures, name, library):
    client = pytest.importorskip(library)
    load(server, name)
    given = {"base_url": f"{server.api}/v1"} if library == "openai" else {"base_url": server.api}
    client = getattr(client, CLIENTS[library])(**given, api_key="none", max_retries=0)
    for picture, stream in [(pictures[0], False), (pictures[1], True)]:
        reply = ASK[library](client, models[name].bans, data_uri(picture), stream)
        assert reply.startswith(models[name]((TOP_LEFT, [picture])))


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
    """With a text model and with one whose vision model stands beside it."""
    turn = (ONE, pictures[:1])
    for name in ("smolvlm", "text", "gemma3", "world", "smolvlm"):
        load(server, name)
        bans = models[name].bans if name in models else ",".join(map(str, oracle.banned))
        status, answer = ask(server, turn, custom_token_bans=bans, max_tokens=NUM_NEW)
        if name == "text":
            assert status == 400 and "no vision model" in answer["error"]["message"]
            assert ask(server, ("Hello.", []), custom_token_bans=bans)[0] == 200
        elif name == "world":
            assert status == 200 and oracle(turn).replace(" ", "").startswith(answer.replace(" ", "")[:10])
        else:
            assert (status, answer) == (200, models[name](turn))
    assert server.request("/v1/internal/model/unload", {})[0] == 200
    assert ask(server, turn)[0] == 500


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
