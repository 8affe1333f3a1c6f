"""OpenFlamingo v1 and Multimodal-GPT: configuration, model, processor, loaders.

Importing this package registers the classes with transformers' Auto classes.
"""

from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, AutoProcessor

from .configuration_open_flamingo import OpenFlamingoConfig, PerceiverConfig
from .layouts import PARTS
from .loading import detect_layout, load_model, load_pipeline, load_processor, missing_parts, pipeline_of
from .modeling_open_flamingo import OpenFlamingoForConditionalGeneration, OpenFlamingoVisionModel
from .pipeline import OpenFlamingoPipeline
from .processing_open_flamingo import OpenFlamingoProcessor, load_tokenizer
from .published import is_published
from .saving import convert, save_model

AutoConfig.register(OpenFlamingoConfig.model_type, OpenFlamingoConfig, exist_ok=True)
AutoModel.register(OpenFlamingoConfig, OpenFlamingoVisionModel, exist_ok=True)
AutoModelForImageTextToText.register(OpenFlamingoConfig, OpenFlamingoForConditionalGeneration, exist_ok=True)
AutoProcessor.register(OpenFlamingoConfig, OpenFlamingoProcessor, exist_ok=True)

__all__ = [
    "PARTS",
    "OpenFlamingoConfig",
    "OpenFlamingoForConditionalGeneration",
    "OpenFlamingoPipeline",
    "OpenFlamingoProcessor",
    "OpenFlamingoVisionModel",
    "PerceiverConfig",
    "convert",
    "detect_layout",
    "is_published",
    "load_model",
    "load_pipeline",
    "load_processor",
    "load_tokenizer",
    "missing_parts",
    "pipeline_of",
    "save_model",
]
