"""A long chat in the browser with keys and values kept, and the same chat without: the same answers, at the cost of what is new."""

import itertools

import pytest
from PIL import Image, ImageOps

from .conftest import NUM_NEW, RING, STAR, TOP_LEFT, keys, same
from .driver import Page, Server
from .test_webui_api import chat, user

TURNS = 20
TEXTS = (TOP_LEFT, STAR, RING)


@pytest.fixture(scope="module")
def ten(pictures, tmp_path_factory):
    """Ten pictures, no two alike."""
    folder = tmp_path_factory.mktemp("mirrored")
    mirrored = [folder / picture.name for picture in pictures[:4]]
    for picture, path in zip(pictures, mirrored, strict=False):
        ImageOps.mirror(Image.open(picture)).save(path)
    return [*pictures, *mirrored]


@pytest.fixture(scope="module")
def server(tmp_path_factory, model_folder, settings):
    with Server(tmp_path_factory.mktemp("server"), model_folder, settings, ("--cpu",)) as server:
        yield server


@pytest.fixture(scope="module")
def anew(tmp_path_factory, model_folder, settings):
    """A web UI that keeps nothing."""
    settings = {**settings, "multimodal_vcla-prefix_cache": False}
    with Server(tmp_path_factory.mktemp("anew"), model_folder, settings, ("--cpu",), has_page=False) as server:
        yield server


@pytest.mark.browser
def test_twenty_turns_cost_what_is_new_and_answer_as_without(server, anew, chrome, ten, model_folder, oracle):
    page, messages, before, new = Page(chrome, server.url), [], [], []
    for turn in range(TURNS):
        text, given = TEXTS[turn % 3], ten[turn // 2 : turn // 2 + 1] * (turn % 2 == 0)
        reply = page.send(text, *given)
        assert page.toasts() == []
        messages.append(user(text, *given))
        status, expected = chat(anew, messages, oracle)
        assert status == 200 and same(reply, expected)
        seen, served = server.prompts[-1], server.served[-1]
        assert seen["ids"] == anew.prompts[-1]["ids"] and served["total"] == len(seen["ids"])
        assert served["reused"] >= len(before) - 4, "but for the end of the prompt, which the reply's beginning may change"
        new.append(served["total"] - served["reused"])
        before = seen["ids"]
        messages.append({"role": "assistant", "content": page.messages()[-1]["raw"]})
    page.page.context.close()
    assert len(keys(seen["prompt"])) == len(ten)
    assert max(new[1:]) <= new[0] + NUM_NEW and max(each["kept"] for each in server.served) > 0
    assert not any(each["reused"] or each["kept"] for each in anew.served)
    assert server.request("/v1/internal/model/unload", {})[0] == 200
    assert server.request("/v1/internal/model/load", {"model_name": model_folder.name})[0] == 200
    assert chat(server, [{"role": "user", "content": "Hello."}], oracle)[0] == 200
    assert server.served[-1]["kept"] == 0, "unloading gives the memory back"


def test_oldest_rows_of_a_full_context_leave_by_blocks(server, oracle, ten):
    """So that several prompts in a row begin alike."""
    messages, asked, starts, reused = [], [], [], []
    first = oracle.length((TOP_LEFT, ten[:1]))
    room = {"truncation_length": 6 * first + NUM_NEW}
    for turn in range(TURNS):
        given = ten[turn // 2 : turn // 2 + 1] * (turn % 2 == 0)
        asked += given
        messages.append(user(TOP_LEFT, *given))
        status, reply = chat(server, messages, oracle, **room)
        assert status == 200, reply
        seen = server.prompts[-1]
        held = keys(seen["prompt"])
        assert len(seen["ids"]) <= 6 * first
        assert same(reply, oracle.of_ids(seen["ids"], asked[len(asked) - len(held) :]))
        starts.append(seen["prompt"].count(TOP_LEFT) - turn)
        reused.append(server.served[-1]["reused"])
        messages.append({"role": "assistant", "content": reply})
    moves = [turn for turn in range(1, TURNS) if starts[turn] != starts[turn - 1]]
    assert len(moves) >= 3 and all(later - earlier >= 2 for earlier, later in itertools.pairwise(moves))
    assert all(reused[turn] > first for turn in range(1, TURNS) if turn not in moves)
