"""MiniGPT-4 v1 and LRV-Instruction V1: configuration, model, processor, loaders.

Importing this package registers the classes with transformers' Auto classes.
"""

from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, AutoProcessor

from .checkpoint import FAMILY, is_published
from .configuration_minigpt4 import MiniGPT4Config
from .modeling_minigpt4 import MiniGPT4ForConditionalGeneration, MiniGPT4Model, MiniGPT4VisionModel
from .pipeline import MiniGPT4Pipeline, load_pipeline, load_prompt_side, pipeline_of
from .processing_minigpt4 import MiniGPT4Processor

AutoConfig.register(MiniGPT4Config.model_type, MiniGPT4Config, exist_ok=True)
AutoModel.register(MiniGPT4Config, MiniGPT4Model, exist_ok=True)
AutoModelForImageTextToText.register(MiniGPT4Config, MiniGPT4ForConditionalGeneration, exist_ok=True)
AutoProcessor.register(MiniGPT4Config, MiniGPT4Processor, exist_ok=True)

PARTS = {
    "vision": ("model.vision_model.encoder.",),
    "connector": ("model.vision_model.qformer.", "model.vision_model.query_tokens", "model.vision_model.llama_proj."),
    "language": ("model.language_model.", "lm_head."),
}

convert = FAMILY.convert
detect_layout = FAMILY.layout
load_model = FAMILY.load_model
load_processor = FAMILY.load_processor
missing_parts = FAMILY.missing_parts
save_model = FAMILY.save_model

__all__ = [
    "FAMILY",
    "PARTS",
    "MiniGPT4Config",
    "MiniGPT4ForConditionalGeneration",
    "MiniGPT4Model",
    "MiniGPT4Pipeline",
    "MiniGPT4Processor",
    "MiniGPT4VisionModel",
    "convert",
    "detect_layout",
    "is_published",
    "load_model",
    "load_pipeline",
    "load_processor",
    "load_prompt_side",
    "missing_parts",
    "pipeline_of",
    "save_model",
]
