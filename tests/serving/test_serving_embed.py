"""Prompt embeddings: those that our own generation gives the language model, from a command, a process or a call."""

import base64
import io
import json
import threading
from pathlib import Path

import pytest
import torch
from vllm_server import ROOT, picture_item, post, raw_item

from pipelines import load_model
from pipelines.base import ImagePart
from pipelines.generation import ChatModel, message
from pipelines.images import load_image
from serving.__main__ import main
from serving.embed import PromptEmbedder, make_server

DEMO = ROOT / "demo" / "model"
FILES = sorted((ROOT / "demo" / "examples").glob("*.png"))[:2]
IMAGES = [load_image(file, background="white") for file in FILES]


@pytest.fixture(scope="module")
def chat():
    return ChatModel(*load_model(DEMO, dtype=torch.float16))


@pytest.fixture(scope="module")
def embedder():
    return PromptEmbedder(DEMO)


@pytest.fixture(scope="module")
def url(embedder):
    server = make_server(embedder, "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def opened(fields: dict) -> torch.Tensor:
    return torch.load(io.BytesIO(base64.b64decode(fields["prompt_embeds"])), weights_only=True)


def expected(chat: ChatModel, text: str, *images) -> torch.Tensor:
    prepared = chat.prepare([message("user", text, len(images))], [ImagePart.of(image) for image in images])
    inputs = prepared.prompt.inputs.get("inputs_embeds")
    return (chat.model.get_input_embeddings()(prepared.input_ids) if inputs is None else inputs)[0].detach()


@pytest.mark.parametrize("count", [0, 1, 2])
def test_embeddings_are_what_the_language_model_is_given_here(chat, embedder, url, count):
    asked = expected(chat, "What?", *IMAGES[:count])
    assert torch.equal(embedder.embed([message("user", "What?", count)], IMAGES[:count]), asked)
    content = [*map(picture_item, IMAGES[:count]), {"type": "text", "text": "What?"}]
    status, fields = post(url, "/embed", {"messages": [{"role": "user", "content": content}], "max_tokens": 8})
    assert status == 200 and torch.equal(opened(fields), asked)


def test_command_prints_the_fields_of_a_request(chat, capsys):
    assert main(["embed", "--model", str(DEMO), "--image", str(FILES[0]), "What?"]) == 0
    assert torch.equal(opened(json.loads(capsys.readouterr().out)), expected(chat, "What?", IMAGES[0]))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "no messages"),
        ({"messages": ["What?"]}, "it has a role"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://a/b.png"}}]}]},
            "data: URI",
        ),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "taken are texts"),
        ({"messages": [{"role": "user", "content": [raw_item(b"no picture")]}]}, "no format that is read"),
        ({"messages": [{"role": "user", "content": "word " * 5000}]}, "of a context of 2048"),
        ({"messages": [{"role": "user", "content": "What?"}], "max_tokens": "8"}, "number of tokens"),
    ],
)
def test_request_that_cannot_be_embedded_is_refused_with_the_reason(url, body, said):
    status, reply = post(url, "/embed", body)
    assert status == 400 and said in reply["error"]["message"] and "\n" not in reply["error"]["message"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "nowhere", "What?"], "'nowhere'"),
        (["--model", str(DEMO), "--image", "nowhere.png", "What?"], "nowhere.png"),
        (["--model", str(DEMO)], "give a question, or --port"),
        (["--model", str(DEMO), "--port", "99999"], "--port 99999"),
    ],
)
def test_mistake_of_a_user_is_one_line(arguments, said, capsys):
    try:
        status = main(["embed", *arguments])
    except SystemExit as error:
        status = error.code
    printed = capsys.readouterr()
    assert status == 2 and not printed.out
    assert said in printed.err and printed.err.count("\n") == 1


def test_language_model_that_scales_its_embeddings_is_refused(tmp_path):
    import models
    from transformers import Gemma3TextConfig

    model = models.make_model()
    sizes = {**models.TEXT, "vocab_size": model.config.text_config.vocab_size, "head_dim": 16}
    config = model.config
    config.text_config = Gemma3TextConfig(**sizes)
    gemma = type(model)(config).eval()
    gemma.processor = model.processor
    from pipelines.registry import save_model

    save_model(gemma, gemma.processor, tmp_path / "gemma")
    with pytest.raises(ValueError, match="Gemma3TextScaledWordEmbedding"):
        PromptEmbedder(Path(tmp_path / "gemma"))
