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


def ask_openai(client, bans: str, address: str, stream: bool) -> str:
    message = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": address}}]}
    message["content"].append({"type": "text", "text": TOP_LEFT})
    more = {"custom_token_bans": bans}
    answer = client.chat.completions.create(
        model="any", messages=[message], max_tokens=NUM_NEW, temperature=0, stream=stream, extra_body=more
    )
    if stream:
        return "".join(chunk.choices[0].delta.content or "" for chunk in answer if chunk.choices)
    return answer.choices[0].message.content


def ask_anthropic(client, bans: str, address: str, stream: bool) -> str:
    media, _, data = address.removeprefix("data:").partition(";base64,")
    inline = {"type": "base64", "media_type": media, "data": data}
    source = inline if address.startswith("data:") else {"type": "url", "url": address}
    message = {"role": "user", "content": [{"type": "image", "source": source}, {"type": "text", "text": TOP_LEFT}]}
    given = {"model": "any", "messages": [message], "max_tokens": NUM_NEW}
    more = {"custom_token_bans": bans, "temperature": 0}
    if stream:
        with client.messages.stream(**given, extra_body=more) as answer:
            return "".join(answer.text_stream)
    return client.messages.create(**given, extra_body=more).content[0].text


ASK = {"openai": ask_openai, "anthropic": ask_anthropic}


@pytest.fixture(params=ASK)
def ask(request, oracle):
    client = request.getfixturevalue(request.param)
    return lambda *given: ASK[request.param](client, ",".join(map(str, oracle.banned)), *given)


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
