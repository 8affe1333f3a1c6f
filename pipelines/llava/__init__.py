"""LLaVA 1 and 1.5 on transformers' own classes: configuration, processor, loaders, layouts."""

from .checkpoint import FAMILY
from .new import new_model
from .pipeline import LlavaPipeline, load_pipeline, load_prompt_side, pipeline_of
from .processing_llava import LlavaChatProcessor

PARTS = {
    "vision": ("model.vision_tower.",),
    "connector": ("model.multi_modal_projector.",),
    "language": ("model.language_model.", "lm_head."),
}

convert = FAMILY.convert
detect_layout = FAMILY.layout
load_model = FAMILY.load_model
load_processor = FAMILY.load_processor
missing_parts = FAMILY.missing_parts
save_model = FAMILY.save_model


def is_published(path) -> bool:
    """Whether a file, or a file of a folder, is a projector as LLaVA publishes it by itself."""
    return FAMILY.is_projector(path)


__all__ = [
    "FAMILY",
    "PARTS",
    "LlavaChatProcessor",
    "LlavaPipeline",
    "convert",
    "detect_layout",
    "is_published",
    "load_model",
    "load_pipeline",
    "load_processor",
    "load_prompt_side",
    "missing_parts",
    "new_model",
    "pipeline_of",
    "save_model",
]
