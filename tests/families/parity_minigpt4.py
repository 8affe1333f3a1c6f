"""MiniGPT-4's and LRV-Instruction V1's recordings: `checkpoint/*.pth`, `vicuna_tiny/`, `images/`, `expected.{json,npz}`."""

import json
from pathlib import Path

import numpy as np
import torch
from parity import Record
from parity_mplug_owl import compare_case
from PIL import Image

from pipelines import load_model


def recognises(folder: Path) -> bool:
    return (folder / "checkpoint" / "eva_vit_g.pth").is_file()


def compare(folder: Path, record: Record) -> None:
    expected = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    arrays = np.load(folder / "expected.npz")
    images = [Image.open(path) for path in sorted((folder / "images").iterdir())]
    files = folder / "checkpoint"
    language_model = next(path for path in folder.iterdir() if (path / "config.json").is_file() and path != files)
    projection, lrv = next(files.glob("pretrained_minigpt4*.pth")), files / "lrv_v1_checkpoint_0.pth"
    ways = {"": {"folder": projection}}
    if lrv.is_file():
        ways |= {"lrv_v1": {"folder": projection, "lora_model": lrv}, "lrv_v1 by itself": {"folder": lrv}}
    for way, arguments in ways.items():
        model, processor = load_model(**arguments, text_model=language_model, dtype=torch.float32)
        pixel_values = processor.preprocess_images(images)
        record.close(f"features {way}", "pixel values", pixel_values, arrays["pixel_values"], 0)
        with torch.no_grad():
            output = model.get_image_features(pixel_values)
        features = arrays["lrv_v1.image_embeds" if way else "image_embeds"]
        record.close(f"features {way}", "ln_vision", output.last_hidden_state, arrays["ln_vision"])
        record.close(f"features {way}", "image_embeds", output.pooler_output, features)
        for name, case in expected.items():
            is_case = isinstance(case, dict) and {"prompt", "greedy", "n_images"} <= case.keys()
            if is_case and name.startswith("lrv_v1") == bool(way):
                compare_case(name, model, processor, case, images, arrays, record, f"{name} {way}".strip())
