"""Pictures through the APIs: each reply compared with the model asked directly, and what is refused."""

import base64
import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from .conftest import NUM_NEW, same
from .driver import Server

WHAT = "What is in this picture?"


@pytest.fixture(scope="module", params=["user", "nowebui"])
def server(request, tmp_path_factory, model_folder, settings):
    """Once with the interface, once without."""
    folder = tmp_path_factory.mktemp("server")
    with Server(folder, model_folder, settings, has_page=request.param == "user") as server:
        yield server


def address(path):
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def user(text, *pictures):
    items = [{"type": "image_url", "image_url": {"url": p if isinstance(p, str) else address(p)}} for p in pictures]
    return {"role": "user", "content": [*items, {"type": "text", "text": text}]}


def chat(server, messages, oracle, **more):
    body = {
        "messages": messages,
        "max_tokens": NUM_NEW,
        "temperature": 0,
        "custom_token_bans": ",".join(map(str, oracle.banned)),
    }
    status, answer = server.request("/v1/chat/completions", {**body, **more})
    if status != 200:
        return status, answer
    if not more.get("stream"):
        return status, answer["choices"][0]["message"]["content"]
    chunks = [json.loads(line[5:]) for line in answer.splitlines() if line.startswith("data:") and "[DONE]" not in line]
    return status, "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])


@pytest.mark.parametrize("stream", [False, True])
def test_chat_over_turns(server, oracle, pictures, stream):
    one, two, three = pictures
    messages, turns = [user(WHAT, one, two)], [(WHAT, [one, two])]
    status, reply = chat(server, messages, oracle, stream=stream)
    assert status == 200 and same(reply, oracle(*turns))
    messages += [{"role": "assistant", "content": reply}, user("And this?", three)]
    assert same(chat(server, messages, oracle, stream=stream)[1], oracle(*turns, reply, ("And this?", [three])))


@pytest.mark.parametrize("stream", [False, True])
def test_anthropic(server, oracle, pictures, stream):
    source = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(pictures[0].read_bytes()).decode()}
    content = [{"type": "image", "source": source}, {"type": "text", "text": WHAT}]
    body = {"messages": [{"role": "user", "content": content}], "max_tokens": NUM_NEW, "temperature": 0, "stream": stream}
    body["custom_token_bans"] = ",".join(map(str, oracle.banned))
    status, answer = server.request("/v1/messages", body)
    assert status == 200
    if stream:
        events = [json.loads(line[5:]) for line in answer.splitlines() if line.startswith("data:")]
        reply = "".join(event["delta"].get("text", "") for event in events if event["type"] == "content_block_delta")
    else:
        reply = answer["content"][0]["text"]
    assert same(reply, oracle((WHAT, [pictures[0]])))
    content[0]["source"] = {"type": "url", "url": "http://127.0.0.1/x.png"}
    status, answer = server.request("/v1/messages", {**body, "stream": False})
    assert status == 400 and "blocked" in json.dumps(answer)


def test_completions(server, oracle, pictures):
    template = oracle.processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "text", "text": "<__media__>" + WHAT}]}], add_generation_prompt=True
    )
    body = {"prompt": template, "messages": [user("", pictures[0])], "max_tokens": NUM_NEW, "temperature": 0}
    body["custom_token_bans"] = ",".join(map(str, oracle.banned))
    status, answer = server.request("/v1/completions", body)
    assert status == 200 and same(answer["choices"][0]["text"], oracle((WHAT, [pictures[0]])))
    status, answer = server.request("/v1/completions", {**body, "prompt": "No mark."})
    assert status == 400 and "__media__" in answer["error"]["message"]


@pytest.mark.parametrize(
    ("bad", "why"),
    [("data:image/png;base64,AAAA", "no format"), ("file:///etc/hostname", "file:"), ("http://127.0.0.1/x.png", "blocked")],
)
def test_what_is_refused_says_which_and_why(server, oracle, pictures, bad, why):
    status, answer = chat(server, [user(WHAT, pictures[0], bad)], oracle)
    assert status == 400 and why in answer["error"]["message"] and "2 of message 1" in answer["error"]["message"]


def test_eight_clients_at_once(server, oracle, pictures):
    requests = [(f"Question {number}?", pictures[number % 3]) for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda request: chat(server, [user(*request)], oracle), requests))
    for (text, picture), (status, reply) in zip(requests, replies, strict=True):
        assert status == 200 and same(reply, oracle((text, [picture])))


def test_the_model_can_be_unloaded_and_loaded(server, oracle, pictures, model_folder):
    assert server.request("/v1/internal/model/unload", {})[0] == 200
    assert chat(server, [user(WHAT, pictures[0])], oracle)[0] == 500
    status, _ = server.request("/v1/internal/model/load", {"model_name": model_folder.name})
    assert status == 200
    assert same(chat(server, [user(WHAT, pictures[0])], oracle)[1], oracle((WHAT, [pictures[0]])))


def test_text_alone_is_answered_as_ever(server, oracle):
    assert same(chat(server, [{"role": "user", "content": "Hello."}], oracle)[1], oracle(("Hello.", [])))
