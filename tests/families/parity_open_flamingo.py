"""OpenFlamingo's and Multimodal-GPT's recordings: `checkpoint/`, `llama_tiny/`, `images/`, `expected.{npz,json}`; see
tests/golden/mmgpt/README.md."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from parity import LOGITS, Record
from PIL import Image

from pipelines.open_flamingo import load_model

LORAS = ("mmgpt-lora-v0-release.pt", "final_weights.pt")
CLIPS = ("clip_hf", "ViT-tiny-14.pt")


def recognises(folder: Path) -> bool:
    return (folder / "checkpoint" / "checkpoint.pt").is_file() and (folder / "expected.npz").is_file()


def load(folder: Path, lora: str | None, clip: str = CLIPS[0]):
    """(model, processor) of the published files; the head's new rows, which are in no published file, as the original drew them."""
    files = folder / "checkpoint"
    model, processor = load_model(
        files / "checkpoint.pt",
        text_model=folder / "llama_tiny",
        vision_model=files / clip,
        lora_model=files / lora if lora else None,
        dtype=torch.float32,
    )
    new_rows = torch.load(files / "lm_head_new_rows.pt", weights_only=True)
    with torch.no_grad():
        model.language_model.lm_head.weight[-len(new_rows) :] = new_rows
    return model, processor


def compare(folder: Path, record: Record) -> None:
    cases = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    with np.load(folder / "expected.npz") as arrays:
        expected = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    images = [Image.open(path).convert("RGB") for path in sorted((folder / "images").iterdir())]
    prompts = [name for name, case in cases.items() if isinstance(case, dict) and "greedy" in case]
    more_marks = [name for name in prompts if cases[name]["prompt"].count("<image>") > cases[name]["n_images"]]
    tuned = [name for name in prompts if not name.startswith("of_") and name not in more_marks]

    model, processor = load(folder, None)
    _pictures(model, processor, images, expected, record)
    for name in prompts:
        if name.startswith("of_"):
            _prompt(model, processor, name, cases[name], images, expected, record)
    for lora in LORAS:
        for clip in CLIPS:
            model, processor = load(folder, lora, clip)
            for name in tuned:
                _prompt(model, processor, name, cases[name], images, expected, record, f"{name} ({lora}, {clip})")
    for name in more_marks:
        _more_marks_than_pictures(model, name, cases[name], expected, record)
    for name, case in cases.items():
        if isinstance(case, dict) and "loss" in case:
            _training_record(model, name, expected, record)


@torch.no_grad()
def _pictures(model, processor, images: list, expected: Mapping, record: Record) -> None:
    pixel_values = processor.preprocess_images(images)
    record.close("images", "pixel_values", pixel_values, expected["pixel_values"], 0)
    record.close(
        "images", "vision tokens", model.vision_model(pixel_values).last_hidden_state[:, 1:], expected["vision.tokens"]
    )
    record.close("images", "perceiver", model.get_image_features(pixel_values), expected["perceiver"][0])


def _prompt(model, processor, name, case, images, expected, record: Record, title: str | None = None) -> None:
    title = title or name
    text = processor.tokenizer.bos_token + case["prompt"]
    inputs = processor(images=images[: case["n_images"]] or None, text=text, return_tensors="pt")
    record.equal(title, "ids", inputs["input_ids"], expected[f"{name}.input_ids"])
    record.equal(title, "tokens", processor.tokenizer.convert_ids_to_tokens(inputs["input_ids"][0]), case["tokens"])
    _forward(model, name, title, dict(inputs), expected, record)
    for use_cache in (True, False):
        generated = model.generate(**inputs, max_new_tokens=len(case["greedy"]), do_sample=False, use_cache=use_cache)
        new = generated[0, inputs["input_ids"].shape[1] :]
        record.equal(title, "greedy" if use_cache else "greedy without cache", new, case["greedy"])


def _forward(model, name: str, title: str, inputs: dict, expected: Mapping, record: Record) -> None:
    """Hidden states behind the gated layers, and logits."""
    seen, hooks = {}, []
    for index in model.config.gated_layers:
        layer = model.get_decoder().layers[index]
        hooks.append(
            layer.register_forward_pre_hook(
                lambda layer, args, kwargs, index=index: seen.__setitem__(index, args[0]), with_kwargs=True
            )
        )
    try:
        with torch.no_grad():
            logits = model(**inputs).logits
    finally:
        for hook in hooks:
            hook.remove()
    for index in model.config.gated_layers:
        key = f"{name}.after_gated_layer{index}"
        if key in expected:
            record.close(title, "behind gated layers", seen[index], expected[key], LOGITS)
    if f"{name}.logits" in expected:
        record.close(title, "logits", logits, expected[f"{name}.logits"], LOGITS)
    else:
        record.close(title, "last logits", logits[:, -1], expected[f"{name}.last_logits"], LOGITS)


def _more_marks_than_pictures(model, name: str, case: dict, expected: Mapping, record: Record) -> None:
    """The demo writes `<image>` for every picture of a chat but passes the last one only; ours gives each its own, so this state
    is put in force by hand."""
    ids = expected[f"{name}.input_ids"]
    with torch.no_grad():
        states = model.get_image_features(expected["pixel_values"][-case["n_images"] :])

    def show():
        model.conditioning.show(ids, ids == model.config.image_token_id, [states])

    show()
    _forward(model, name, name, {"input_ids": ids}, expected, record)
    show()
    generated = model.generate(ids, max_new_tokens=len(case["greedy"]), do_sample=False)
    record.equal(name, "greedy", generated[0, ids.shape[1] :], case["greedy"])
    model.conditioning.clear()


@torch.no_grad()
def _training_record(model, name: str, expected: Mapping, record: Record) -> None:
    ids = expected[f"{name}.input_ids"]
    pixel_values = expected["pixel_values"][: int((ids == model.config.image_token_id).sum())]
    inputs = {"input_ids": ids, "labels": expected[f"{name}.labels"]}
    loss = model(**inputs, pixel_values=pixel_values if len(pixel_values) else None).loss
    record.close(name, "loss", loss, expected[f"{name}.loss"], LOGITS)
