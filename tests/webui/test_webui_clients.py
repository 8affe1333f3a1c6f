"""The official clients of OpenAI and Anthropic: an answer to a picture, and a reason for every refusal, streamed or not."""

import base64

import pytest

from .conftest import NUM_NEW, TOP_LEFT, data_uri
from .driver import Server

BAD = {
    "zero bytes": "data:image/png;base64,AAAA",
    "no format that is read": "data:image/png;base64," + base64.b64encode(b"no picture at all").decode(),
    "'file:'": "file:///etc/hostname",
    "is blocked": "http://127.0.0.1/x.png",
}
"""What the reason says, and the address of the picture."""


@pytest.fixture(scope="module")
def server(tmp_path_factory, model_folder, settings):
    with Server(tmp_path_factory.mktemp("server"), model_folder, settings, ("--cpu",), has_page=False) as server:
        yield server


@pytest.fixture(scope="module")
def openai(server):
    library = pytest.importorskip("openai", reason="the client of OpenAI is not installed")
    return library.OpenAI(base_url=f"{server.api}/v1", api_key="none", max_retries=0)


@pytest.fixture(scope="module")
def anthropic(server):
    library = pytest.importorskip("anthropic", reason="the client of Anthropic is not installed")
    return library.Anthropic(base_url=server.api, api_key="none", max_retries=0)


def ask_openai(client, turns: list, stream: bool, max_tokens: int = NUM_NEW, **more) -> str:
    """The next answer.

    Args:
        client: of the library `openai`.
        turns: `(text, addresses of pictures)` for a question, a text for an answer.
        more: what the web UI takes beside what the library knows.
    """
    messages = []
    for role, text, addresses in _messages(turns):
        items = [{"type": "image_url", "image_url": {"url": address}} for address in addresses]
        messages.append({"role": role, "content": [*items, {"type": "text", "text": text}] if items else text})
    answer = client.chat.completions.create(
        model="any", messages=messages, max_tokens=max_tokens, temperature=0, stream=stream, extra_body=more
    )
    if stream:
        return "".join(chunk.choices[0].delta.content or "" for chunk in answer if chunk.choices)
    return answer.choices[0].message.content


def ask_anthropic(client, turns: list, stream: bool, max_tokens: int = NUM_NEW, **more) -> str:
    """As `ask_openai`, with a client of the library `anthropic`."""
    messages = []
    for role, text, addresses in _messages(turns):
        items = [{"type": "image", "source": _source(address)} for address in addresses]
        messages.append({"role": role, "content": [*items, {"type": "text", "text": text}] if items else text})
    given = {"model": "any", "messages": messages, "max_tokens": max_tokens, "extra_body": {"temperature": 0, **more}}
    if stream:
        with client.messages.stream(**given) as answer:
            return "".join(answer.text_stream)
    return client.messages.create(**given).content[0].text


def _messages(turns: list) -> list[tuple[str, str, list[str]]]:
    return [("user", *turn) if isinstance(turn, tuple) else ("assistant", turn, []) for turn in turns]


def _source(address: str) -> dict[str, str]:
    if not address.startswith("data:"):
        return {"type": "url", "url": address}
    media, _, data = address.removeprefix("data:").partition(";base64,")
    return {"type": "base64", "media_type": media, "data": data}


ASK = {"openai": ask_openai, "anthropic": ask_anthropic}


@pytest.fixture(params=ASK)
def ask(request, oracle):
    client = request.getfixturevalue(request.param)
    bans = ",".join(map(str, oracle.banned))
    return lambda address, stream: ASK[request.param](client, [(TOP_LEFT, [address])], stream, custom_token_bans=bans)


@pytest.mark.parametrize("stream", [False, True])
def test_picture_is_seen(ask, oracle, pictures, stream):
    oracle.check(ask(data_uri(pictures[0]), stream), (TOP_LEFT, pictures[:1]))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("reason", BAD)
def test_refusal_tells_the_client_the_reason(ask, reason, stream):
    with pytest.raises(Exception, match=f"1 of message 1.*{reason}") as refused:
        ask(BAD[reason], stream)
    assert type(refused.value).__module__.startswith(("openai", "anthropic")), refused.value


@pytest.mark.parametrize("stream", [False, True])
def test_too_many_pictures_are_refused_in_words(openai, server, pictures, stream):
    items = [{"type": "image_url", "image_url": {"url": data_uri(pictures[0])}}] * 33
    with pytest.raises(Exception, match="33 pictures in one prompt"):
        answer = openai.chat.completions.create(
            model="any", messages=[{"role": "user", "content": items}], max_tokens=NUM_NEW, stream=stream,
            extra_body={"truncation_length": 8192},
        )  # fmt: skip
        list(answer)
