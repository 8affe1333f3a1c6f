"""The stand-in of the web UI renders what the real one rendered."""

import pytest
from traces import replay

pytest_plugins = ["webui_stub.plugin"]
CHATS = [name for name in replay.NAMES if name[:2] not in ("15", "16", "42", "50", "51")]


@pytest.mark.parametrize("name", CHATS)
def test_prompts_are_those_of_the_recordings(webui, name):
    """Every chat prompt, letter for letter. Without: truncated ones, which depend on the recording's tokenizer."""
    webui.extensions.loaded.clear()
    webui.shared.tokenizer = None
    rendered = {}
    trace = replay.load(name)
    replayer = replay.Replayer()
    for call in trace["calls"]:
        if call["hook"] == "custom_generate_chat_prompt":
            arguments, keywords = replayer.arguments(call)
            if not arguments[1].get("tools") and not arguments[1].get("enable_thinking"):
                rendered[call["ids"]["request"]] = webui.chat.generate_chat_prompt(*arguments, **keywords)
        elif call["hook"] == "tokenizer_modifier" and call["ids"].get("request") in rendered:
            assert rendered.pop(call["ids"]["request"]) == call["args"]["prompt"]
