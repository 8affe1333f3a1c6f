"""The client of OpenAI-compatible servers, against a server in this process."""

import pytest
from openai_server import served

from training import judge
from training.judge import Client, ServerError


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(judge, "WAIT_S", 0.0)


def test_reply_key_and_usage():
    with served(lambda request: f"seen: {request['messages'][-1]['content']}") as server:
        client = Client(server.url, api_key="secret")
        assert client.model == "local"
        assert client.ask([{"role": "user", "content": "hello"}], max_tokens=5) == "seen: hello"
        assert server.requests[-1]["max_tokens"] == 5 and server.requests[-1]["temperature"] == 0
        assert server.keys == {"Bearer secret"}
        assert client.num_prompt_tokens > 0


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_may_pass_is_tried_again(status):
    with served(lambda request: "yes", failures=[status, status]) as server:
        assert Client(server.url, "local").ask([], 5) == "yes"
        assert len(server.requests) == 3


def test_refusal_is_told_in_the_servers_words_and_not_tried_again():
    with served(lambda request: "yes", failures=[400]) as server:
        with pytest.raises(ServerError, match=r"/v1 refused \(400\): no such thing"):
            Client(server.url, "local").ask([], 5)
        assert len(server.requests) == 1


def test_server_that_is_not_there_is_one_line():
    with pytest.raises(ServerError, match="failed 5 times"):
        Client("http://127.0.0.1:9", "local").ask([], 5)
    with pytest.raises(ServerError, match="no address"):
        Client("localhost:5000")


def test_all_are_answered_by_their_keys_and_a_failure_is_one_of_them():
    def reply(request):
        number = int(request["messages"][0]["content"])
        return "no" if number != 3 else None

    requests = [(number, {"messages": [{"role": "user", "content": str(number)}], "max_tokens": 3}) for number in range(20)]
    found = {}
    with served(reply) as server:
        Client(server.url, "local").ask_all(requests, found.__setitem__, num_at_once=4)
    assert sorted(found) == list(range(20))
    assert isinstance(found.pop(3), ServerError) and set(found.values()) == {"no"}
