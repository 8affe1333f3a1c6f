"""Image-text-to-text models of transformers, run as transformers runs them: the model takes the pictures itself.

Nothing of a model is written here. What stands for a picture, and what the model is given for it, is asked of its own processor.
"""

from .loading import load_model, missing_parts, model_class, refusal
from .merging import convert
from .pipeline import NativePipeline, load_pipeline, pipeline_of
from .processing import load_processor
from .training import parts_of, save_model

__all__ = [
    "NativePipeline",
    "convert",
    "load_model",
    "load_pipeline",
    "load_processor",
    "missing_parts",
    "model_class",
    "parts_of",
    "pipeline_of",
    "refusal",
    "save_model",
]
