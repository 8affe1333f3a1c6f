"""API requests as agents and older clients send them: pictures in messages of every role, between texts, beside the content;
what is refused while a reply is streamed; how many tokens are told. A witness behind the plugin writes down every prompt."""

import json
import re

import pytest

from .conftest import NUM_NEW, RING, TOP_LEFT, data_uri, key, keys, same
from .driver import Server
from .test_webui_api import chat, user

MARK = re.compile(r"<__vcla:[^>]*__>")
BROKEN = "data:image/png;base64,AAAA"


@pytest.fixture(scope="module")
def server(tmp_path_factory, model_folder, settings):
    with Server(tmp_path_factory.mktemp("server"), model_folder, settings, ("--cpu",), has_page=False) as server:
        yield server


@pytest.fixture
def asked(server, oracle):
    """Sends messages; gives the prompt with `[]` for each picture, after the reply was compared with the model's own."""

    def ask(messages, *pictures, **more):
        status, reply = chat(server, messages, oracle, **more)
        assert status == 200, reply
        seen = server.prompts[-1]
        assert keys(seen["prompt"]) == [key(picture) for picture in pictures]
        assert same(reply, oracle.of_ids(seen["ids"], list(pictures)))
        return MARK.sub("[]", seen["prompt"])

    return ask


def item(picture):
    return {"type": "image_url", "image_url": {"url": data_uri(picture)}}


def text(value):
    return {"type": "text", "text": value}


@pytest.mark.parametrize("role", ["system", "developer", "assistant"])
def test_picture_in_a_message_of_any_role_is_seen_where_it_stands(asked, pictures, role):
    message = {"role": role, "content": [text("Before. "), item(pictures[0]), text("After.")]}
    prompt = asked([message, user(TOP_LEFT)], pictures[0])
    assert re.search(r"Before\. \[\]\s*After\.", prompt)


def test_picture_in_a_tool_message_is_seen_where_it_stands(asked, pictures):
    call = {"id": "call_1", "type": "function", "function": {"name": "screenshot", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "Take a screenshot."},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": [text("Screen: "), item(pictures[0])]},
        user(TOP_LEFT),
    ]
    prompt = asked(messages, pictures[0])
    assert prompt.index("Screen: []") < prompt.index(TOP_LEFT)


def test_pictures_of_several_roles_keep_their_order(asked, pictures):
    one, two, three, *_ = pictures
    messages = [
        {"role": "system", "content": [item(one), text("Be kind.")]},
        user("Look.", two),
        {"role": "assistant", "content": [item(three), text("I did.")]},
        {"role": "user", "content": RING},
    ]
    asked(messages, one, two, three)


@pytest.mark.parametrize("stream", [False, True])
def test_texts_between_pictures_stay_between_them(asked, pictures, stream):
    one, two, *_ = pictures
    content = [text("First: "), item(one), text("Second: "), item(two), text(RING)]
    prompt = asked([{"role": "user", "content": content}], one, two, stream=stream)
    assert re.search(rf"First: \[\]\s*Second: \[\]\s*{re.escape(RING)}", prompt)


@pytest.mark.parametrize("shape", [lambda url: url, lambda url: {"url": url}])
def test_picture_beside_the_content_is_seen(asked, pictures, shape):
    asked([{"role": "user", "content": TOP_LEFT, "image_url": shape(data_uri(pictures[0]))}], pictures[0])


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/messages"])
def test_refusal_in_a_stream_says_why(server, pictures, path):
    body = {"max_tokens": NUM_NEW, "stream": True}
    if path == "/v1/messages":
        source = {"type": "base64", "media_type": "image/png", "data": "AAAA"}
        body["messages"] = [{"role": "user", "content": [{"type": "image", "source": source}, text(TOP_LEFT)]}]
    else:
        body["messages"] = [user(TOP_LEFT, BROKEN)]
        body |= {"prompt": f"<__media__>{TOP_LEFT}"} if path == "/v1/completions" else {}
    _, answer = server.request(path, body)
    assert "Picture 1 of message 1: nothing but zero bytes" in (answer if isinstance(answer, str) else json.dumps(answer))


def test_tokens_that_are_told_are_those_of_the_prompt(server, oracle, pictures):
    body = {"messages": [user(RING, *pictures[:2])], "max_tokens": NUM_NEW, "temperature": 0}
    status, answer = server.request("/v1/chat/completions", body)
    assert status == 200 and answer["usage"]["prompt_tokens"] in (len(server.prompts[-1]["ids"]), 0), "0 before 4.8"
