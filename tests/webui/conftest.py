"""Runs only against a real text-generation-webui: see the plugin's README, "Tests"."""

import os
import re
from pathlib import Path

import pytest
import torch

if "TEXTGEN_DIR" not in os.environ:
    collect_ignore_glob = ["test_*.py"]

ROOT = Path(__file__).resolve().parent.parent.parent
NUM_NEW = 12


class Oracle:
    """What the model answers when it is asked without the web UI, through the processor, greedily."""

    def __init__(self, folder: Path):
        from pipelines import visualcla

        self.model = visualcla.load_pretrained(folder, dtype=torch.float32)
        self.processor = self.model.processor
        pieces = self.processor.tokenizer.convert_ids_to_tokens(range(len(self.processor.tokenizer)))
        self.banned = [index for index, piece in enumerate(pieces) if re.fullmatch(r"<0x[0-9A-F]{2}>", piece)]
        """Byte pieces: the web UI waits for ever for bytes that never become a character."""

    def __call__(self, *turns: tuple) -> str:
        """`(text, pictures)` for a question, `text` for an answer; gives the next answer."""
        messages, images = [], []
        for turn in turns:
            text, pictures = turn if isinstance(turn, tuple) else (turn, [])
            content = [{"type": "image"} for _ in pictures] + [{"type": "text", "text": text}]
            messages.append({"role": "user" if isinstance(turn, tuple) else "assistant", "content": content})
            images += [str(picture) for picture in pictures]
        text = self.processor.apply_chat_template(messages, add_generation_prompt=True)
        inputs = self.processor(images=images or None, text=text, return_tensors="pt")
        ban = {"suppress_tokens": self.banned} if self.banned else {}
        ids = self.model.generate(**inputs, do_sample=False, max_new_tokens=NUM_NEW, repetition_penalty=1.0, **ban)
        new = ids[0, inputs["input_ids"].shape[1] :] if ids.shape[1] > inputs["input_ids"].shape[1] else ids[0]
        return self.processor.tokenizer.decode(new, skip_special_tokens=True)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    """`VCLA_MODEL`, else the demonstration model."""
    return Path(os.environ.get("VCLA_MODEL", ROOT / "demo" / "model")).resolve()


@pytest.fixture(scope="session")
def oracle(model_folder):
    return Oracle(model_folder)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """Three pictures of the world."""
    from demo import world

    folder = tmp_path_factory.mktemp("pictures")
    paths = []
    for (image, _), name in zip(world.pictures(seed=5, split="held_out"), ("one", "two", "three"), strict=False):
        paths.append(folder / f"{name}.png")
        image.save(paths[-1])
        if len(paths) == 3:
            return paths


@pytest.fixture(scope="session")
def settings(oracle):
    """Greedy and short, so that replies can be compared."""
    return {
        "do_sample": False,
        "preset": "Deterministic",
        "max_new_tokens": NUM_NEW,
        "auto_max_new_tokens": False,
        "custom_token_bans": ",".join(map(str, oracle.banned)),
        "multimodal_vcla-language": "en",
    }


@pytest.fixture(scope="module")
def server(tmp_path_factory, model_folder, settings):
    from .driver import Server

    with Server(tmp_path_factory.mktemp("server"), model_folder, settings) as server:
        yield server


def same(reply: str, expected: str) -> bool:
    """Equal but for white space, which the web UI decodes piece by piece."""
    return "".join(reply.split()) == "".join(expected.split())
