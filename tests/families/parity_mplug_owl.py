"""mPLUG-Owl's and LRV-Instruction V2's recordings: `checkpoint/`, `lrv_v2/`, `images/`, `expected.{json,npz}`."""

import json
from pathlib import Path

import numpy as np
import torch
from parity import LOGITS, Record
from PIL import Image

from pipelines import load_model

GREEDY = {"do_sample": False, "top_k": None}


def recognises(folder: Path) -> bool:
    config = folder / "checkpoint" / "config.json"
    return config.is_file() and json.loads(config.read_text(encoding="utf-8")).get("model_type") in ("mplug-owl", "mplug_owl")


def compare(folder: Path, record: Record) -> None:
    expected = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    arrays = np.load(folder / "expected.npz")
    images = [Image.open(path) for path in sorted((folder / "images").iterdir())]
    model, processor = load_model(folder / "checkpoint", dtype=torch.float32)
    pixel_values = processor.preprocess_images(images)
    record.close("features", "pixel values", pixel_values, arrays["pixel_values"], 0)
    with torch.no_grad():
        output = model.get_image_features(pixel_values)
    record.close("features", "vision.last_hidden_state", output.last_hidden_state, arrays["vision.last_hidden_state"])
    record.close("features", "abstractor.last_hidden_state", output.pooler_output, arrays["abstractor.last_hidden_state"])
    for name, case in expected.items():
        if isinstance(case, dict) and {"prompt", "greedy", "n_images"} <= case.keys() and not name.startswith("lrv"):
            compare_case(name, model, processor, case, images, arrays, record)
    for file in sorted((folder / "lrv_v2").glob("*.bin")):
        model, processor = load_model(folder / "checkpoint", lora_model=file, dtype=torch.float32)
        for name, case in expected.items():
            if name.startswith("lrv_v2_") and "prompt" in case:
                compare_case(name, model, processor, case, images, arrays, record, f"{name} from {file.name}")


def compare_case(name, model, processor, case, images, arrays, record: Record, called: str | None = None) -> None:
    """Ids, logits of the last position and greedy tokens of one prompt."""
    called = called or name
    inputs = processor(images=images[: case["n_images"]] or None, text=case["prompt"])
    if f"{name}.input_ids" in arrays:
        ids = arrays[f"{name}.input_ids"]
        record.equal(called, "ids", inputs["input_ids"], np.where(ids < 0, processor.image_token_id, ids))
    elif "segment_ids" in case:  # what stands around the pictures
        ids = inputs["input_ids"][0].tolist()
        pieces, piece = [], []
        for token, before in zip(ids, [None, *ids], strict=False):
            if token != processor.image_token_id:
                piece.append(token)
            elif before != token:
                pieces, piece = [*pieces, piece], []
        record.equal(called, "ids", [*pieces, piece], case["segment_ids"])
    with torch.no_grad():
        logits = model(**inputs).logits[:, -1]
    record.close(called, "logits", logits, arrays[f"{name}.last_logits"], LOGITS)
    count = len(case["greedy"]) - 1  # the first one recorded is BOS
    new = model.generate(**inputs, **GREEDY, max_new_tokens=count)[0, inputs["input_ids"].shape[1] :]
    record.equal(called, "greedy tokens", new, case["greedy"][1:])
