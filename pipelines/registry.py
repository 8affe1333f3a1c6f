"""Which family of eyes does a model folder belong to. Families are imported when they are needed, not before.

A family is a package beside this file with a `pipeline.py` that has `load_pipeline(folder, device, dtype)`. Folders with a
`pipelines.py` of the web UI's old extension count too: see `legacy.py`.
"""

import importlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from . import legacy
from .base import VisionPipeline

if TYPE_CHECKING:
    import torch

FAMILIES: dict[str, str] = {"visualcla": "VisualCLA: CLIP or SigLIP, resampler, linear projector"}
"""Family id (its `model_type`, and the name of its package) to a line for the user."""


def find_family(folder: str | os.PathLike) -> str | None:
    """The family whose eyes a model folder holds, by its configuration alone; None when it holds none that is known."""
    for file_name in ("vision/config.json", "config.json"):
        path = Path(folder) / file_name
        if path.is_file():
            try:
                model_type = json.loads(path.read_text(encoding="utf-8")).get("model_type")
            except (ValueError, AttributeError) as error:
                raise ValueError(f"{str(path)!r} is not a valid configuration ({error}). Copy the file again.") from error
            if model_type in FAMILIES:
                return model_type
    return None


def available_pipelines() -> list[str]:
    """What `load_pipeline` takes as `family`: the families, and the old pipelines that were dropped in."""
    return [*FAMILIES, *legacy.available_pipelines()]


def load_pipeline(
    folder: str | os.PathLike,
    family: str | None = None,
    device: "torch.device | str | None" = None,
    dtype: "torch.dtype | str | None" = None,
) -> VisionPipeline:
    """Load the eyes of a model folder.

    Args:
        folder: a model folder that holds eyes (see pipelines/README.md), or, for an old pipeline, the language model's.
        family: one of `available_pipelines()`; found out from the folder when absent, by its configuration or, for an old
            pipeline, by its name.
        device: where the eyes live; the CPU when absent.
        dtype: precision of the eyes; as stored when absent.

    Raises:
        FileNotFoundError: the folder does not exist.
        ValueError: it holds no eyes of a known family, or `family` is unknown.
        RuntimeError: an old pipeline failed.
    """
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"{os.fspath(folder)!r} is not a folder.")
    found = family or find_family(folder)
    if found in FAMILIES:
        module = importlib.import_module(f".{found}.pipeline", __package__)
        return module.load_pipeline(folder, device=device, dtype=dtype)
    pipeline = legacy.load_pipeline(folder, family, device=device, dtype=dtype)
    if pipeline is not None:
        return pipeline
    available = ", ".join(map(repr, available_pipelines()))
    broken = "".join(f" {name!r} cannot be used ({reason})." for name, reason in legacy.broken_pipelines().items())
    if family is None:
        raise ValueError(
            f"{os.fspath(folder)!r} holds no eyes: no 'vision/config.json' of a known family ({available}). "
            f"Make one: python -m training merge --help{'.' + broken if broken else ''}"
        )
    raise ValueError(f"Unknown vision pipeline {family!r}. Available: {available}.{broken}")
