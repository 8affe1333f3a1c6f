"""Recordings of MiniGPT-4 and LRV-Instruction V1: `checkpoint/*.pth`, a language model's folder, `images/`, `expected.*`."""

import json
from pathlib import Path

import numpy as np
import torch
from parity import LOGITS, Record
from parity_mplug_owl import compare_answer, images_of

from pipelines import load_model

LRV = "lrv_v1_checkpoint_0.pth"


def recognises(folder: Path) -> bool:
    return (folder / "checkpoint" / "eva_vit_g.pth").is_file()


def compare(folder: Path, record: Record) -> None:
    expected = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    arrays = np.load(folder / "expected.npz")
    cases = [name for name, case in expected.items() if isinstance(case, dict) and "segment_ids" in case]
    text_model = next(config.parent for config in sorted(folder.glob("*/config.json")))
    projection = next(file for file in sorted((folder / "checkpoint").glob("pre*minigpt4*.pth")))
    base = load_model(projection, text_model=text_model, dtype=torch.float32)
    compare_features(*base, folder, arrays, record)
    for name in cases:
        if not name.startswith("lrv_v1"):
            compare_case(*base, folder, name, expected, arrays, record)
    for name in ("train", "train_main"):
        if name in expected:
            inputs = {key: torch.tensor(arrays[f"{name}.{key}"]) for key in ("inputs_embeds", "attention_mask", "labels")}
            with torch.no_grad():
                record.close(name, "loss", base[0](**inputs).loss, expected[name]["loss"], LOGITS)
    if (folder / "checkpoint" / LRV).is_file():
        for label, files in {
            "on top": {"folder": projection, "lora_model": folder / "checkpoint" / LRV},
            "by itself": {"folder": folder / "checkpoint" / LRV},
        }.items():
            model, processor = load_model(files.pop("folder"), text_model=text_model, dtype=torch.float32, **files)
            pixel_values = processor.preprocess_images(images_of(folder))
            with torch.no_grad():
                ours = model.get_image_features(pixel_values).pooler_output
            record.close(f"lrv_v1 ({label})", "image_embeds", ours, arrays["lrv_v1.image_embeds"])
            for name in cases:
                if name.startswith("lrv_v1"):
                    compare_case(model, processor, folder, name, expected, arrays, record, f"{name} ({label})")


def compare_features(model, processor, folder: Path, arrays, record: Record) -> None:
    """Every stage from the picture to its embeddings."""
    pixel_values = processor.preprocess_images(images_of(folder))
    record.close("features", "pixel_values", pixel_values, arrays["pixel_values"], 0)
    vision, seen = model.model.vision_model, {}
    stages = {"vit.output": vision.encoder.encoder.layers[-1], "qformer.hidden0": vision.qformer.layernorm}
    stages |= {f"qformer.hidden{index}": layer for index, layer in enumerate(vision.qformer.encoder.layer, start=1)}
    hooks = [
        module.register_forward_hook(
            lambda _, __, output, name=name: seen.__setitem__(name, output[0] if isinstance(output, tuple) else output)
        )
        for name, module in stages.items()
    ]
    with torch.no_grad():
        output = model.get_image_features(pixel_values)
    for hook in hooks:
        hook.remove()
    seen |= {"ln_vision": output.last_hidden_state, "image_embeds": output.pooler_output}
    for name, ours in seen.items():
        theirs = arrays[name]
        record.close("features", name, ours.expand(theirs.shape), theirs)


def compare_case(model, processor, folder: Path, name: str, expected, arrays, record: Record, label: str = "") -> None:
    """A prompt's ids, embeddings, logits and greedy answer."""
    case, label = expected[name], label or name
    inputs = processor(images=images_of(folder)[: case["n_images"]], text=case["prompt"])
    first, *rest = case["segment_ids"]
    placeholders = [processor.image_token_id] * processor.num_image_embeds
    record.equal(label, "input_ids", inputs["input_ids"][0].tolist(), first + [i for ids in rest for i in placeholders + ids])
    compare_answer(model, inputs, name, case, arrays, record, label)
