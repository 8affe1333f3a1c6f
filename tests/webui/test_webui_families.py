"""Every family in the real web UI: pictures over turns, the same ids and greedily the same answer as `ChatModel` gives."""

import re
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import GenerationConfig

from pipelines import load_model
from pipelines.base import ImagePart
from pipelines.generation import ChatModel, message
from pipelines.images import load_image
from training.__main__ import main as training

from .conftest import ROOT, data_uri, same
from .driver import Page, Server

GOLDEN = ROOT / "tests" / "golden"
LLAVA, MINIGPT4, OWL, FLAMINGO = (GOLDEN / name for name in ("llava", "minigpt4", "mplug_owl", "mmgpt"))
MADE_WITH_LLAVA = ("convert", "--text_model", LLAVA / "llm_tiny")
MADE_WITH_VICUNA = (
    "merge",
    "--text_model",
    MINIGPT4 / "vicuna_tiny",
    "--vision_model",
    MINIGPT4 / "checkpoint",
    "--lora_model",
)
MADE_WITH_LLAMA = (
    "merge",
    "--text_model",
    FLAMINGO / "llama_tiny",
    "--vision_model",
    FLAMINGO / "checkpoint/clip_hf",
    "--lora_model",
)
FAMILIES = {
    "llava-v0": [*MADE_WITH_LLAVA, "--vision_model", LLAVA / "checkpoint/clip_224", LLAVA / "checkpoint/mm_projector_v0.bin"],
    "llava-v1.5": [
        *MADE_WITH_LLAVA,
        "--vision_model",
        LLAVA / "checkpoint/clip_336",
        LLAVA / "checkpoint/mm_projector_v1.5.bin",
    ],
    "minigpt4": [*MADE_WITH_VICUNA, MINIGPT4 / "checkpoint/pretrained_minigpt4_7b.pth"],
    "lrv-v1": [*MADE_WITH_VICUNA, MINIGPT4 / "checkpoint/lrv_v1_checkpoint_0.pth"],
    "mplug_owl": ["convert", OWL / "checkpoint"],
    "lrv-v2": ["merge", "--text_model", OWL / "checkpoint", "--lora_model", OWL / "lrv_v2/pytorch_model.bin"],
    "open_flamingo": [*MADE_WITH_LLAMA, FLAMINGO / "checkpoint/checkpoint.pt"],
    "multimodal-gpt": [
        *MADE_WITH_LLAMA,
        f"{FLAMINGO / 'checkpoint/checkpoint.pt'},{FLAMINGO / 'checkpoint/mmgpt-lora-v0-release.pt'}",
    ],
}
"""What was published, and how one folder is made of it."""
NUM_NEW = 8
TURNS = [("Compare them.", ["red", "blue"]), ("Is it a boat?", []), ("And this?", ["grey"])]


class ByItself:
    """The model asked without the web UI."""

    def __init__(self, folder: Path):
        self.chat = ChatModel(*load_model(folder, dtype=torch.float32))
        tokenizer = self.chat.tokenizer
        pieces = tokenizer.convert_ids_to_tokens(range(self.chat.model.get_input_embeddings().weight.shape[0]))
        special = set(tokenizer.all_special_ids) | set(tokenizer.get_added_vocab().values())
        self.banned = [n for n, piece in enumerate(pieces) if n in special or re.fullmatch(r"<0x[0-9A-F]{2}>", piece or "")]
        """Byte pieces, for which the web UI waits, and special ones, which it shows in another way."""
        self.messages, self.images = [], []

    def ask(self, text: str, pictures: list[Path]) -> tuple[list[int], str]:
        """The ids of the prompt and the answer."""
        self.messages.append(message("user", text, len(pictures)))
        self.images += [ImagePart.of(load_image(picture)) for picture in pictures]
        greedy = GenerationConfig(do_sample=False, max_new_tokens=NUM_NEW, suppress_tokens=self.banned)
        prepared = self.chat.prepare(self.messages, self.images, NUM_NEW)
        return prepared.input_ids[0].tolist(), self.chat.answer(self.messages, self.images, greedy)

    def hear(self, reply: str) -> None:
        self.messages.append(message("assistant", reply))


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("families") / request.param
    command, *words = FAMILIES[request.param]
    target = [folder, "--layout", "webui"] if command == "convert" else ["--output_dir", folder]
    assert training([str(word) for word in (command, *words, *target, "--dtype", "float32")]) == 0
    return folder


@pytest.fixture(scope="module")
def server(folder, tmp_path_factory):
    settings = {"do_sample": False, "preset": "Deterministic", "max_new_tokens": NUM_NEW, "auto_max_new_tokens": False}
    settings |= {"multimodal_vcla-language": "en", "custom_token_bans": ",".join(map(str, ByItself(folder).banned))}
    with Server(tmp_path_factory.mktemp("server"), folder, settings, ("--cpu",)) as server:
        yield server


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    """Pictures that differ in colour and in every pixel."""
    folder = tmp_path_factory.mktemp("noise")
    for colour in ("red", "blue", "grey"):
        image = Image.effect_noise((90, 60), 60).convert("RGB")
        image.paste(colour, (0, 0, 60, 40))
        image.save(folder / f"{colour}.png")
    return {path.stem: path for path in folder.iterdir()}


@pytest.mark.browser
def test_chat_in_the_browser_is_the_models_own(folder, server, chrome, noise):
    own, page = ByItself(folder), Page(chrome, server.url)
    for text, names in TURNS:
        pictures = [noise[name] for name in names]
        reply = page.send(text, *pictures)
        assert page.toasts() == []
        ids, expected = own.ask(text, pictures)
        assert server.prompts[-1]["ids"] == ids
        assert same(reply, expected)
        own.hear(reply)
    page.panel_says("In context: 3 pictures")
    page.page.context.close()


def test_requests_are_answered_as_the_model_answers(folder, server, noise):
    from .test_webui_api import chat, user

    own, messages = ByItself(folder), []
    for turn, (text, names) in enumerate(TURNS):
        pictures = [noise[name] for name in names]
        messages.append(user(text, *map(data_uri, pictures)))
        status, reply = chat(server, messages, own, stream=turn % 2 == 0, max_tokens=NUM_NEW)
        assert status == 200, reply
        ids, expected = own.ask(text, pictures)
        assert server.prompts[-1]["ids"] == ids
        assert same(reply, expected)
        messages.append({"role": "assistant", "content": reply})
        own.hear(reply)
