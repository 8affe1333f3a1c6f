"""The adapter that gives SmolLM2-135M-Instruct eyes: what is shipped, and, where the package with that model is installed, what it sees."""

import json

import pytest
import torch
from safetensors.torch import load_file
from smollm2 import ADAPTER, TALK, make, needs_smollm2
from transformers import GenerationConfig

from pipelines import load_model
from pipelines.base import ImagePart
from pipelines.generation import ChatModel, message
from pipelines.images import load_image

GREEDY = GenerationConfig(do_sample=False, max_new_tokens=60)


def test_shipped_adapter_is_whole_and_small():
    tensors = load_file(ADAPTER / "adapter_model.safetensors")
    assert all(tensor.dtype == torch.float16 and torch.isfinite(tensor).all() for tensor in tensors.values())
    assert sum(file.stat().st_size for file in ADAPTER.iterdir()) < 20e6
    config = json.loads((ADAPTER / "adapter_config.json").read_text(encoding="utf-8"))
    names = {name.split("base_model.model.")[1].removesuffix(".weight") for name in tensors}
    for part in config["modules_to_save"]:
        assert any(name.startswith(part) for name in names)
    assert sum("lora_A" in name for name in names) == sum("lora_B" in name for name in names) == 7 * 30


@pytest.mark.slow
@needs_smollm2
def test_smollm2_sees_and_still_knows_the_capital_of_france(tmp_path):
    fresh, merged = make(tmp_path)
    for folder, adapter in ((merged, {}), (fresh, {"lora_model": ADAPTER})):
        chat, messages, images = ChatModel(*load_model(folder, dtype=torch.float32, **adapter)), [], []
        for text, pictures, right in TALK:
            messages.append(message("user", text, len(pictures)))
            images += [ImagePart.of(load_image(picture)) for picture in pictures]
            assert chat.answer(messages, images, GREEDY).endswith(right)
            messages.append(message("assistant", right))
        assert chat.answer([message("user", TALK[-1][0])], [], GREEDY) == "The capital of France is Paris."
