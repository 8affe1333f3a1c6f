"""LLaVA's recordings (v0 and v1.5): `checkpoint/` (projectors and vision encoders), `llm_tiny/`, `images/`, `expected.{json,npz}`."""

import json
from pathlib import Path

import numpy as np
import torch
from parity import LOGITS, Record
from PIL import Image

from pipelines import load_model
from pipelines.base import ImagePart, ImageSpan
from pipelines.registry import pipeline_of

VERSIONS = {"v0": "clip_224", "v1.5": "clip_336"}


def recognises(folder: Path) -> bool:
    return (folder / "checkpoint" / "mm_projector_v1.5.bin").is_file()


def open_version(folder: Path, version: str, **kwargs):
    """(model, processor) of the published projector over its language model."""
    checkpoint = folder / "checkpoint"
    bases = {"text_model": folder / "llm_tiny", "vision_model": checkpoint / VERSIONS[version]}
    return load_model(checkpoint / f"mm_projector_{version}.bin", **bases, dtype=torch.float32, **kwargs)


def pictures(folder: Path) -> list[Image.Image]:
    return [Image.open(path).convert("RGB") for path in sorted((folder / "images").glob("*.png"))]


def compare(folder: Path, record: Record) -> None:
    expected = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    arrays = np.load(folder / "expected.npz")
    for version in VERSIONS:
        model, processor = open_version(folder, version)
        compare_version(version, model, processor, pictures(folder), expected, arrays, record)


def compare_version(version: str, model, processor, images, expected, arrays, record: Record) -> None:
    """Pixels and features of the pictures; ids, logits and greedy tokens of every recorded prompt."""
    pixel_values = processor.preprocess_images(images)
    record.close(version, "pixel values", pixel_values, arrays[f"{version}.pixel_values"], 2e-6)
    pipeline = pipeline_of(model, processor)
    features = pipeline.encode_images(images)
    record.close(version, "features", torch.stack([each.embeds for each in features]), arrays[f"{version}.image_embeds"])
    for name, case in expected.items():
        if not name.startswith(f"{version}."):
            continue
        ids = torch.tensor(arrays[f"{name}.input_ids"])[None]
        own, spans = [processor.tokenizer.bos_token_id], []
        for part in case["parts"]:
            if part == "<IMAGE>":
                image = ImagePart.of(images[len(spans)])
                spans.append(ImageSpan(len(own), pipeline.num_image_embeds, image))
                own += ids[0, len(own) : len(own) + pipeline.num_image_embeds].tolist()
            else:
                own += processor.tokenizer(part, add_special_tokens=False)["input_ids"]
        record.equal(name, "ids", own, ids[0])
        shown = list(zip(spans, features, strict=False))
        if not case["add_all_images_to_prompt"]:
            shown = shown[-1:]  # of older pictures the placeholders' own embeddings stay
        for span, _ in shown:
            ids[0, span.start : span.end] = pipeline.placeholder_token_id
        inputs = pipeline.model_inputs(model, ids, None, [[span for span, _ in shown]], [[found for _, found in shown]])
        if f"{name}.inputs_embeds" in arrays:
            record.close(name, "embeddings", inputs["inputs_embeds"][0], arrays[f"{name}.inputs_embeds"])
        with torch.no_grad():
            logits = model(**inputs).logits[:, -1]
        record.close(name, "logits", logits, arrays[f"{name}.last_logits"], LOGITS)
        count = len(case["greedy"]) - 1  # the first one recorded is BOS
        mask = torch.ones_like(ids)
        new = model.generate(ids, attention_mask=mask, **inputs, do_sample=False, max_new_tokens=count)
        record.equal(name, "greedy tokens", new[0, ids.shape[1] :], case["greedy"][1:])
