"""VisualCLA's recordings: `expected/`, `release/`, `merged/`, `base/`, `images/`; see tests/golden/visualcla/README.md."""

import json
from pathlib import Path

import torch
from parity import LOGITS, Record
from safetensors.torch import load_file
from transformers import GenerationConfig

from pipelines import visualcla

VARIANTS = ("merged", "unmerged_fp32", "unmerged_fp16load")


def recognises(folder: Path) -> bool:
    return (folder / "expected" / "generation.json").is_file() and (folder / "release").is_dir()


def compare(folder: Path, record: Record) -> None:
    generations = json.loads((folder / "expected" / "generation.json").read_text(encoding="utf-8"))
    for variant in VARIANTS:
        file = folder / "expected" / f"{variant}.safetensors"
        if file.is_file() and variant in generations:
            _compare_variant(folder, variant, load_file(file), generations[variant], record)


def load(folder: Path, variant: str):
    """A variant as the README of the recordings describes it: which files, loaded in which precision, computing in fp32."""
    if variant == "merged":
        return visualcla.load_pretrained(next((folder / "merged").iterdir()), dtype=torch.float32)
    bases = {"text_model": folder / "base" / "text_model", "vision_model": folder / "base" / "vision_model"}
    dtype = torch.float16 if variant == "unmerged_fp16load" else torch.float32
    return visualcla.load_pretrained(next((folder / "release").iterdir()), **bases, dtype=dtype).float()


@torch.no_grad()
def _compare_variant(folder: Path, variant: str, expected: dict, generations: dict, record: Record) -> None:
    model = load(folder, variant)
    names = sorted({case["image"] for case in generations.values() if "image" in case})
    pixels = model.processor.preprocess_images([folder / "images" / name for name in names])
    record.close(variant, "pixel values", pixels, expected["pixel_values"], 0)
    seen = model.encode_images(pixels)
    for stage, ours in (
        ("vision.post_layernorm", seen.image_tokens),
        ("resampler.last_hidden_state", seen.last_hidden_state),
        ("projected", seen.image_features),
    ):
        record.close(variant, stage, ours, expected[stage])
    for name in (name for name in expected if name.startswith("forward.") and name.endswith(".logits")):
        case = name.split(".")[1]
        ids = expected[f"forward.{case}.input_ids"]
        which = int(case[-1]) if case.startswith("single") else 0
        given = None if case == "text_only" else pixels[which : which + 1]
        logits = model(input_ids=ids, pixel_values=given).logits[:, -expected[name].shape[1] :]
        record.close(f"{variant} {case}", "logits", logits, expected[name], LOGITS)
    for case, recorded in generations.items():
        if "response" in recorded and "image" in recorded:
            history = [dict(item) for item in recorded.get("history_before", [])]
            config = GenerationConfig(**recorded["generation"])
            answer, _ = visualcla.chat(model, folder / "images" / recorded["image"], recorded["text"], history, config)
            record.equal(f"{variant} {case}", "greedy answers", answer, recorded["response"])
        elif "new_token_ids" in recorded and isinstance(recorded["input_ids"][0], int):
            tokenizer = model.processor.tokenizer
            ends = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
            config = GenerationConfig(do_sample=False, max_new_tokens=len(recorded["new_token_ids"]), **ends)
            tokens = model.generate(torch.tensor([recorded["input_ids"]]), generation_config=config)
            record.equal(
                f"{variant} {case}", "greedy tokens", tokens[0, len(recorded["input_ids"]) :], recorded["new_token_ids"]
            )
