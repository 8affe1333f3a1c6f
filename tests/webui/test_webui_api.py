"""Pictures through the APIs: each reply compared with the model asked directly, and what is refused."""

import base64
import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from .conftest import NUM_NEW, RING, TOP_LEFT, data_uri, same
from .driver import Server


@pytest.fixture(scope="module", params=["page", "nowebui"])
def server(request, tmp_path_factory, model_folder, settings, elsewhere):
    """Once with the interface, once without."""
    folder, has_page = tmp_path_factory.mktemp("server"), request.param == "page"
    environment = {"http_proxy": elsewhere, "no_proxy": "127.0.0.1,localhost"}
    with Server(folder, model_folder, settings, ("--cpu",), has_page=has_page, environment=environment) as server:
        yield server


def user(text, *pictures):
    items = [{"type": "image_url", "image_url": {"url": p if isinstance(p, str) else data_uri(p)}} for p in pictures]
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
    one, two, *_ = pictures
    messages, turns = [user(TOP_LEFT, one)], [(TOP_LEFT, [one])]
    status, reply = chat(server, messages, oracle, stream=stream)
    assert status == 200
    oracle.check(reply, *turns)
    messages += [{"role": "assistant", "content": reply}, user(RING, two)]
    oracle.check(chat(server, messages, oracle, stream=stream)[1], *turns, reply, (RING, [two]))


def test_several_pictures_in_one_message(server, oracle, pictures):
    oracle.check(chat(server, [user(RING, *pictures[:3])], oracle)[1], (RING, pictures[:3]))


def test_pictures_by_address(server, oracle, pictures):
    """Through the web UI's own guard, which looks at every redirection."""
    reply = chat(server, [user(TOP_LEFT, "http://93.184.215.14/two.png")], oracle)[1]
    oracle.check(reply, (TOP_LEFT, [pictures[1]]))
    for path, why in (("inside", "127.0.0.1 is blocked"), ("absent.png", "404")):
        status, answer = chat(server, [user(TOP_LEFT, f"http://93.184.215.14/{path}")], oracle)
        assert status == 400 and why in answer["error"]["message"]


@pytest.mark.parametrize("stream", [False, True])
def test_anthropic(server, oracle, pictures, stream):
    source = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(pictures[0].read_bytes()).decode()}
    content = [{"type": "image", "source": source}, {"type": "text", "text": TOP_LEFT}]
    body = {"messages": [{"role": "user", "content": content}], "max_tokens": NUM_NEW, "temperature": 0, "stream": stream}
    body["custom_token_bans"] = ",".join(map(str, oracle.banned))
    status, answer = server.request("/v1/messages", body)
    assert status == 200
    if stream:
        events = [json.loads(line[5:]) for line in answer.splitlines() if line.startswith("data:")]
        reply = "".join(event["delta"].get("text", "") for event in events if event["type"] == "content_block_delta")
    else:
        reply = answer["content"][0]["text"]
    oracle.check(reply, (TOP_LEFT, pictures[:1]))
    content[0]["source"] = {"type": "url", "url": "http://127.0.0.1/x.png"}
    status, answer = server.request("/v1/messages", {**body, "stream": False})
    assert status == 400 and "blocked" in json.dumps(answer)


def test_completions(server, oracle, pictures):
    template = oracle.processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "text", "text": "<__media__>" + TOP_LEFT}]}], add_generation_prompt=True
    )
    body = {"prompt": template, "messages": [user("", pictures[0])], "max_tokens": NUM_NEW, "temperature": 0}
    body["custom_token_bans"] = ",".join(map(str, oracle.banned))
    status, answer = server.request("/v1/completions", body)
    assert status == 200
    oracle.check(answer["choices"][0]["text"], (TOP_LEFT, pictures[:1]))
    status, answer = server.request("/v1/completions", {**body, "prompt": "No mark."})
    assert status == 400 and "__media__" in answer["error"]["message"]


@pytest.mark.parametrize(
    ("bad", "why"),
    [("data:image/png;base64,AAAA", "zero bytes"), ("file:///etc/hostname", "file:"), ("http://127.0.0.1/x.png", "blocked")],
)
def test_what_is_refused_says_which_and_why(server, oracle, pictures, bad, why):
    status, answer = chat(server, [user(TOP_LEFT, pictures[0], bad)], oracle)
    assert status == 400 and why in answer["error"]["message"] and "2 of message 1" in answer["error"]["message"]


def test_refusal_of_a_streamed_request_tells_the_reason(server, oracle, pictures):
    body = {"messages": [user(TOP_LEFT, "data:image/png;base64,AAAA")], "stream": True, "max_tokens": NUM_NEW}
    status, answer = server.request("/v1/chat/completions", body)
    events = [line[5:].strip() for line in answer.splitlines() if line.startswith("data:")]
    told = [json.loads(event)["error"] for event in events if event.startswith('{"error"')]
    assert status == 200 and events[-1] == "[DONE]"
    assert len(told) == 1 and "1 of message 1" in told[0]["message"] and told[0]["code"] == 400


def test_eight_clients_at_once(server, oracle, pictures):
    requests = [(TOP_LEFT, pictures[number % len(pictures)]) for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda request: chat(server, [user(*request)], oracle), requests))
    for (text, picture), (status, reply) in zip(requests, replies, strict=True):
        assert status == 200
        oracle.check(reply, (text, [picture]))


def test_the_model_can_be_unloaded_and_loaded(server, oracle, pictures, model_folder):
    assert server.request("/v1/internal/model/unload", {})[0] == 200
    assert chat(server, [user(TOP_LEFT, pictures[0])], oracle)[0] == 500
    status, _ = server.request("/v1/internal/model/load", {"model_name": model_folder.name})
    assert status == 200
    oracle.check(chat(server, [user(TOP_LEFT, pictures[0])], oracle)[1], (TOP_LEFT, pictures[:1]))


def test_text_alone_is_answered_as_ever(server, oracle):
    assert same(chat(server, [{"role": "user", "content": "Hello."}], oracle)[1], oracle(("Hello.", [])))
