"""Vision-language models: one folder per family, and what all families share."""

from typing import Any


def load_model(folder, **kwargs: Any):
    """A whole model of any family with its processor; see `pipelines.registry.load_model`."""
    from .registry import load_model as load

    return load(folder, **kwargs)
