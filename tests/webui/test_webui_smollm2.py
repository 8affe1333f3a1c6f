"""A language model that people really run, given eyes by this project's own commands, in the real web UI."""

import pytest
from smollm2 import TALK, make, needs_smollm2

from .driver import Page, Server
from .test_webui_api import user

pytestmark = needs_smollm2


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    _, merged = make(tmp_path_factory.mktemp("smollm2"))
    settings = {"do_sample": False, "preset": "Deterministic", "max_new_tokens": 60, "auto_max_new_tokens": False}
    settings |= {"multimodal_vcla-language": "en", "mode": "instruct"}
    with Server(tmp_path_factory.mktemp("server"), merged, settings, ("--cpu",)) as server:
        yield server


@pytest.mark.browser
def test_smollm2_sees_in_the_browser(server, chrome):
    page = Page(chrome, server.url)
    for text, pictures, right in TALK:
        assert page.send(text, *pictures).strip().endswith(right)
        assert page.toasts() == []
    page.panel_says("In context: 2 pictures")
    page.page.context.close()


def test_smollm2_sees_what_a_request_shows(server):
    messages = []
    for text, pictures, right in TALK:
        messages.append(user(text, *pictures))
        status, answer = server.request("/v1/chat/completions", {"messages": messages, "max_tokens": 60, "temperature": 0})
        assert status == 200 and answer["choices"][0]["message"]["content"].strip().endswith(right)
        messages.append({"role": "assistant", "content": right})
