"""How VisualCLA's tensors are stored: the canonical names and the layouts in which they are found.

    vision_model.*     visual_resampler.*     image_projection_layer.*     text_model.*

| layout         | folder                                                                                              |
| -------------- | --------------------------------------------------------------------------------------------------- |
| `webui`        | a language model at the root, the vision model in `vision/`: what the web UI's loaders open          |
| `original`     | the original project's merged folder: `text_encoder/`, `vision_encoder/`, `pytorch_model.bin`        |
| `release`      | the original project's release: an adapter over a language model and a vision encoder, given besides |
| `transformers` | one composite checkpoint: what transformers' Auto classes open                                       |
"""

from pathlib import Path

from ..checkpoints.layouts import Layout, Rename
from ..checkpoints.weight_files import model_files, weight_files
from ..json_files import read_json

MODEL_TYPE = "visualcla"
VISION_PARTS = ("vision_model", "visual_resampler", "image_projection_layer")
PARTS = {
    "vision": ("vision_model.",),
    "connector": ("visual_resampler.", "image_projection_layer."),
    "language": ("text_model.",),
}
PREFIXES = tuple(prefix for prefixes in PARTS.values() for prefix in prefixes)
TEXT = "text_model."


def _is_ours(folder: Path) -> bool:
    return read_json(folder / "config.json").get("model_type") == MODEL_TYPE


def _is_adapter(folder: Path) -> bool:
    return (folder / "adapter_config.json").is_file() and not model_files(folder)


WEBUI = Layout(
    "webui",
    lambda folder: (folder / "vision" / "config.json").is_file(),
    Rename("", TEXT),
    *(Rename(f"{part}.", f"{part}.", folder="vision") for part in VISION_PARTS),
)
ORIGINAL = Layout(
    "original",
    lambda folder: (folder / "text_encoder").is_dir() and (folder / "vision_encoder").is_dir(),
    *(Rename(f"{part}.", f"{part}.") for part in VISION_PARTS[1:]),
    Rename("", TEXT, folder="text_encoder"),
    Rename("vision_model.", "vision_model.", folder="vision_encoder"),
    suffixes={"": [".bin"], "text_encoder": [".bin", ".safetensors"], "vision_encoder": [".bin", ".safetensors"]},
)
RELEASE = Layout(
    "release",
    lambda folder: _is_ours(folder) and _is_adapter(folder),
    # Today's CLIPVisionModel is one level flatter than the one that was released.
    Rename("vision_model.vision_model.", "vision_model."),
    *(Rename(prefix, prefix) for prefix in PREFIXES),
)
IN_MEMORY = Layout(
    "in memory",  # what PEFT writes for a composite LLaMA
    lambda folder: False,
    *(Rename(f"model.{part}.", f"{part}.") for part in VISION_PARTS),
    Rename("model.text_model.", f"{TEXT}model."),
)
TRANSFORMERS = Layout(
    "transformers",
    lambda folder: _is_ours(folder) and bool(weight_files(folder)),
    *(Rename(prefix, prefix) for prefix in PREFIXES),
    Rename("vision_model.vision_model.", "vision_model."),  # found, not written
)
LAYOUTS = (WEBUI, ORIGINAL, RELEASE, TRANSFORMERS)


def release_name(canonical: str) -> str:
    """A tensor's or a module's name in a released adapter.

    >>> release_name("vision_model.encoder.layers.0.mlp.fc1.lora_A.weight")
    'vision_model.vision_model.encoder.layers.0.mlp.fc1.lora_A.weight'
    """
    place = RELEASE.place(canonical)
    return canonical if place is None else place.name


def canonical_name(name: str) -> str:
    """A name in an adapter, without PEFT's own additions, to the canonical one; others are kept.

    >>> canonical_name("vision_model.vision_model.encoder.layers.0.mlp.fc1.lora_A.weight")
    'vision_model.encoder.layers.0.mlp.fc1.lora_A.weight'
    """
    return IN_MEMORY.canonical(name) or RELEASE.canonical(name) or name
