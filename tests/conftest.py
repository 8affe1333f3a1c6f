"""What many tests share: the golden VisualCLA checkpoints, models of a few thousand parameters, and made-up web UIs."""

import json
import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch
from safetensors.torch import load_file
from transformers import GenerationConfig, logging
from webui_tree import make_checkout, make_webui

from pipelines import visualcla

GOLDEN = Path(__file__).parent / "golden" / "visualcla"
IMAGES = ["scene_rgb.png", "shapes_rgba.png", "stripes_gray.png"]
GREEDY = GenerationConfig(do_sample=False, max_new_tokens=24)

logging.disable_progress_bar()


def pytest_addoption(parser):
    parser.addoption("--fuzz", type=int, default=1000, metavar="N", help="how many mutated files (default: %(default)s)")
    parser.addoption("--fuzz-seed", type=int, default=0, metavar="N", help="which mutations (default: %(default)s)")


def load_golden(variant: str, **kwargs):
    """A golden variant as its README describes it: which files, loaded in which precision, computing in fp32."""
    if variant == "merged":
        return visualcla.load_pretrained(GOLDEN / "merged/visualcla-tiny-merged", **{"dtype": torch.float32, **kwargs})
    dtype = torch.float16 if variant == "unmerged_fp16load" else torch.float32
    bases = {"text_model": GOLDEN / "base/text_model", "vision_model": GOLDEN / "base/vision_model"}
    model = visualcla.load_pretrained(GOLDEN / "release/visualcla-tiny", **{**bases, "dtype": dtype, **kwargs})
    return model.float() if dtype == torch.float16 else model


def golden_json(name: str):
    return json.loads((GOLDEN / "expected" / f"{name}.json").read_text(encoding="utf-8"))


def golden_tensors(name: str) -> dict[str, torch.Tensor]:
    return load_file(GOLDEN / "expected" / f"{name}.safetensors")


@pytest.fixture(scope="session", params=["merged", "unmerged_fp32", "unmerged_fp16load"])
def golden(request):
    """(variant, model, expected tensors, expected generations)."""
    variant = request.param
    return variant, load_golden(variant), golden_tensors(variant), golden_json("generation")[variant]


@pytest.fixture(scope="session")
def merged_model():
    return load_golden("merged")


@pytest.fixture(scope="session")
def golden_tokenizer():
    return visualcla.load_tokenizer(GOLDEN / "merged/visualcla-tiny-merged")


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A made-up project, which the installer takes for its own."""
    return make_checkout(tmp_path, monkeypatch)


@pytest.fixture
def web(tmp_path):
    """A made-up web UI."""
    return make_webui(tmp_path / "我的 web ui")
