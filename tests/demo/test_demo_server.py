"""The page's client of OpenAI-compatible servers: what it sends, what becomes of what it gets."""

import json
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

import openai_server
import pytest
from PIL import Image
from transformers import GenerationConfig

from demo import page
from demo.attention import looks
from demo.server import ServerChat, ServerError, server_generation_config
from demo.session import Picture, Session, answer
from demo.texts import context_line
from pipelines.images import load_image

GREEDY = GenerationConfig(do_sample=False, max_new_tokens=16)


@contextmanager
def streaming(reply, models=({"id": "eyes", "max_model_len": 100},)):
    """A server that streams; `reply(request)` gives the pieces, or (status, message) of a refusal, or bytes as they are."""
    requests = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send(200, "application/json", json.dumps({"data": list(models)}).encode())

        def do_POST(self):
            requests.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            given = reply(requests[-1])
            if isinstance(given, tuple):
                self.send(given[0], "application/json", json.dumps({"error": {"message": given[1]}}).encode())
            elif isinstance(given, bytes):
                self.send(200, "text/event-stream", given)
            else:
                events = [{"choices": [{"delta": {"content": piece}}]} for piece in given]
                events += [{"choices": [], "usage": {"prompt_tokens": 30, "total_tokens": 30 + len(given)}}]
                lines = [f"data: {json.dumps(event)}\n\n" for event in events]
                self.send(200, "text/event-stream; charset=utf-8", "".join([*lines, "data: [DONE]\n\n"]).encode())

        def send(self, status, kind, data):
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args):
            pass

    with openai_server.running(Handler) as address:
        yield address, requests


@pytest.fixture
def picture(tmp_path):
    def make(colour: str) -> Picture:
        Image.new("RGB", (40, 30), colour).save(tmp_path / f"{colour}.png")
        return Picture.open(tmp_path / f"{colour}.png", tmp_path)

    return make


def colours(request: dict) -> list:
    """The first pixel of each picture of a request, and its texts."""
    items = [item for message in request["messages"] for item in message["content"]]
    return [
        load_image(item["image_url"]["url"]).getpixel((0, 0)) if item["type"] == "image_url" else item["text"] for item in items
    ]


def run(chat, session, config=GREEDY) -> list[str]:
    return [turn.answer for turn in answer(chat, session, config)]


def test_answer_grows_and_the_chat_goes_with_the_next_question(picture):
    with streaming(lambda request: ["It ", "is ", "red."]) as (url, requests):
        chat, session = ServerChat(url), Session()
        session.ask("What?", [picture("red")])
        assert run(chat, session) == ["", "It ", "It is ", "It is red.", "It is red."]
        session.ask("And?", [picture("blue")])
        run(chat, session)
    assert chat.model == "eyes" and [request["model"] for request in requests] == ["eyes", "eyes"]
    assert colours(requests[1]) == [(255, 0, 0), "What?", "It is red.", (0, 0, 255), "And?"]
    assert [message["role"] for message in requests[1]["messages"]] == ["user", "assistant", "user"]
    assert requests[0]["temperature"] == 0 and requests[0]["max_tokens"] == 16 and "top_p" not in requests[0]
    assert session.seen.numbers == [1, 2] and session.seen.num_tokens == 33 and looks(chat, session.seen) is None
    assert context_line("en", "eyes", session.seen) == "eyes · in the context: pictures 1, 2 · 33 of 100 tokens used"


def test_full_context_loses_its_oldest_turns(picture):
    def reply(request):
        return ["Yes."] if len(request["messages"]) < 4 else (400, "This model's maximum context length is 100 tokens.")

    with streaming(reply) as (url, requests):
        chat, session = ServerChat(url), Session()
        for colour in ("red", "blue", "green"):
            session.ask(f"Is it {colour}?", [picture(colour)])
            run(chat, session)
    assert session.turns[-1].answer == "Yes."
    assert session.seen.left_out == [1] and session.seen.numbers == [2, 3]
    assert colours(requests[-1])[1] == "Is it blue?"


def test_field_that_a_server_refuses_is_left_out_from_then_on(picture):
    def reply(request):
        return (400, "Unrecognized request argument supplied: top_k") if "top_k" in request else ["Yes."]

    with streaming(reply) as (url, requests):
        chat = ServerChat(url, seed=3)
        for _ in range(2):
            session = Session()
            session.ask("What?", [])
            assert run(chat, session, GenerationConfig(do_sample=True, temperature=0.5, top_k=7, top_p=0.9))[-1] == "Yes."
    assert ["top_k" in request for request in requests] == [True, False, False]
    assert (requests[-1]["temperature"], requests[-1]["top_p"], requests[-1]["seed"]) == (0.5, 0.9, 3)


def test_longest_answer_leaves_half_of_the_context_to_the_question():
    with streaming(lambda request: ["Yes."]) as (url, requests):
        session = Session()
        session.ask("What?", [])
        run(ServerChat(url), session, GenerationConfig(do_sample=False, max_new_tokens=512))
    assert requests[0]["max_tokens"] == 50


def test_server_that_does_not_stream_answers_at_once():
    with openai_server.served(lambda request: "All of it.") as server:
        session = Session()
        session.ask("What?", [])
        assert run(ServerChat(server.url), session)[-1] == "All of it."


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((400, "At most 1 image(s) may be provided"), "refused (400): At most 1 image(s) may be provided"),
        ((500, "no memory"), "refused (500): no memory"),
        (b'data: {"choices": [{"delta": {"content": "Half"}}]}\n\n', "broke off in the middle"),
        (b'data: {"error": {"message": "engine died"}}\n\n', "broke off: engine died"),
        (b"data: {nothing\n\n", "broke off (JSONDecodeError)"),
    ],
)
def test_what_goes_wrong_there_is_told_in_one_line(given, said):
    with streaming(lambda request: given) as (url, _):
        session = Session()
        session.ask("What?", [])
        with pytest.raises(ServerError) as error:
            run(ServerChat(url), session)
    assert said in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("models", "said"),
    [([], "has 0 models"), ([{"id": "a"}, {"id": "b"}], "has 2 models (a, b). Name one"), ([{}], "does not tell")],
)
def test_server_without_exactly_one_model_wants_a_name(models, said):
    with streaming(lambda request: ["Yes."], models) as (url, _), pytest.raises(ServerError) as error:
        ServerChat(url)
    assert said in str(error.value)


@pytest.mark.parametrize("url", ["nonsense", "ftp://127.0.0.1/v1", "http://127.0.0.1:1/v1"])
def test_nobody_there_is_an_error(url):
    with pytest.raises(ServerError, match="is no address of a server|cannot be reached"):
        ServerChat(url)


def test_server_and_model_exclude_each_other(capsys):
    with pytest.raises(SystemExit) as error:
        page.main(["--server", "http://127.0.0.1:1", "--model", "demo/model"])
    assert error.value.code == 2 and "exclude each other" in capsys.readouterr().err


def test_page_asks_greedily_unless_told_otherwise():
    class Flags:
        temperature, max_new_tokens = None, None

    assert server_generation_config(Flags).do_sample is False
    Flags.temperature = 0.3
    assert (server_generation_config(Flags).do_sample, server_generation_config(Flags).temperature) == (True, 0.3)
