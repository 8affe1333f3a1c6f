"""Recordings of mPLUG-Owl and LRV-Instruction V2: `checkpoint/`, `lrv_v2/*.bin`, `images/`, `expected.json`, `expected.npz`."""

import json
from pathlib import Path

import numpy as np
import torch
from parity import LOGITS, Record
from PIL import Image

from pipelines import load_model


def recognises(folder: Path) -> bool:
    config = folder / "checkpoint" / "config.json"
    return config.is_file() and json.loads(config.read_text(encoding="utf-8")).get("model_type") == "mplug-owl"


def images_of(folder: Path) -> list[Image.Image]:
    return [Image.open(file) for file in sorted((folder / "images").iterdir())]


def compare(folder: Path, record: Record) -> None:
    expected = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    arrays = np.load(folder / "expected.npz")
    cases = [name for name, case in expected.items() if isinstance(case, dict) and "prompt" in case]
    base = load_model(folder / "checkpoint", dtype=torch.float32)
    compare_features(*base, folder, arrays, record)
    for name in cases:
        if not name.startswith("lrv_v2"):
            compare_case(*base, folder, name, expected, arrays, record)
    for name, case in expected.items():
        if name.startswith("train") and isinstance(case, dict) and case["n_supervised"]:
            compare_training(*base, folder, name, expected, arrays, record)
    for file in sorted((folder / "lrv_v2").glob("*.bin")):
        adapted = load_model(folder / "checkpoint", lora_model=file, dtype=torch.float32)
        for name in cases:
            if name.startswith("lrv_v2"):
                compare_case(*adapted, folder, name, expected, arrays, record, f"{name} ({file.name})")


def compare_features(model, processor, folder: Path, arrays, record: Record) -> None:
    """Every stage from the picture to its embeddings."""
    pixel_values = processor.preprocess_images(images_of(folder))
    record.close("features", "pixel_values", pixel_values, arrays["pixel_values"], 0)
    vision, seen = model.model.vision_model, {}
    layers = vision.abstractor.encoder.layers
    stages = {"vision.embeddings": vision.encoder.pre_layrnorm, "vision.last_hidden_state": vision.encoder.post_layernorm}
    stages |= {f"abstractor.layer{index}": layer for index, layer in enumerate(layers)}
    hooks = [
        module.register_forward_hook(lambda _, __, output, name=name: seen.__setitem__(name, output))
        for name, module in stages.items()
    ]
    with torch.no_grad():
        output = model.get_image_features(pixel_values)
    for hook in hooks:
        hook.remove()
    seen |= {"vision.last_hidden_state": output.last_hidden_state, "abstractor.last_hidden_state": output.pooler_output}
    for name, ours in seen.items():
        record.close("features", name, ours, arrays[name])


def compare_case(model, processor, folder: Path, name: str, expected, arrays, record: Record, label: str = "") -> None:
    """A prompt's ids, embeddings, logits and greedy answer."""
    case, label = expected[name], label or name
    images = images_of(folder)[: case["n_images"]]
    inputs = processor(images=images, text=case["prompt"])
    ids = arrays[f"{name}.input_ids"]
    record.equal(label, "input_ids", inputs["input_ids"].numpy(), np.where(ids < 0, processor.image_token_id, ids))
    compare_answer(model, inputs, name, case, arrays, record, label)


def compare_answer(model, inputs, name: str, case, arrays, record: Record, label: str) -> None:
    """Embeddings, logits and greedy answer of a prepared prompt; the recorded answer begins with a BOS of transformers 4.28."""
    embeds = model.get_input_embeddings()(inputs["input_ids"])
    with torch.no_grad():
        if "pixel_values" in inputs:
            features = model.get_image_features(inputs["pixel_values"]).pooler_output
            embeds = embeds.masked_scatter(model.model.get_placeholder_mask(inputs["input_ids"], embeds, features), features)
        logits = model(**inputs).logits[:, -1]
    record.close(label, "inputs_embeds", embeds, arrays[f"{name}.inputs_embeds"])
    record.close(label, "last_logits", logits, arrays[f"{name}.last_logits"], LOGITS)
    theirs = case["greedy"][1:]
    generated = model.generate(**inputs, do_sample=False, top_k=None, max_length=None, max_new_tokens=len(theirs))
    record.equal(label, "greedy", generated[0, inputs["input_ids"].shape[1] :].tolist(), theirs)


def compare_training(model, processor, folder: Path, name: str, expected, arrays, record: Record) -> None:
    """The loss of a recorded row with its recorded labels."""
    ids = torch.tensor(arrays[f"{name}.input_ids"])[None]
    mask = torch.nn.functional.pad(torch.tensor(arrays[f"{name}.non_padding_mask"])[None], (0, 1))
    named = expected[name]["record"].get("image", [])
    pixel_values = processor.preprocess_images([Image.open(folder / "images" / file) for file in named]) if named else None
    labels = torch.tensor(arrays[f"{name}.labels"])
    with torch.no_grad():
        loss = model(ids.masked_fill(ids < 0, processor.image_token_id), pixel_values, mask, labels=labels).loss
    record.close(name, "loss", loss, expected[name]["loss"], LOGITS)
