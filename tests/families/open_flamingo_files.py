"""Where the golden files of OpenFlamingo and Multimodal-GPT are, and how they are opened."""

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from pipelines.open_flamingo import load_model

GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "mmgpt"
CHECKPOINT = GOLDEN / "checkpoint" / "checkpoint.pt"
LLAMA = GOLDEN / "llama_tiny"
CLIP = GOLDEN / "checkpoint" / "clip_hf"
LORA = GOLDEN / "checkpoint" / "mmgpt-lora-v0-release.pt"
CASES = json.loads((GOLDEN / "expected.json").read_text(encoding="utf-8"))
IMAGE_TOKEN_ID = CASES["special_ids"]["<image>"]
NUM_OLD_TOKENS = CASES["special_ids"]["<|endofchunk|>"]
"""The new tokens' rows of the head are in no published file: logits are compared up to here."""


def images(count: int = 2) -> list[Image.Image]:
    return [Image.open(GOLDEN / "images" / name).convert("RGB") for name in ("image_a.png", "image_b.png")][:count]


def expected() -> dict[str, torch.Tensor]:
    with np.load(GOLDEN / "expected.npz") as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def published(lora: bool, **kwargs):
    """(model, processor) of the published files as they lie."""
    kwargs.setdefault("dtype", torch.float32)
    return load_model(CHECKPOINT, text_model=LLAMA, vision_model=CLIP, lora_model=LORA if lora else None, **kwargs)


def inputs_of(processor, case: str):
    """What the processor makes of a recorded prompt and its pictures."""
    text = processor.tokenizer.bos_token + CASES[case]["prompt"]
    return processor(images=images(CASES[case]["n_images"]) or None, text=text, return_tensors="pt")


def answer(model, inputs, **kwargs) -> list[int]:
    """Greedy new tokens."""
    generated = model.generate(**inputs, max_new_tokens=12, do_sample=False, **kwargs)
    return generated[0, inputs["input_ids"].shape[1] :].tolist()
