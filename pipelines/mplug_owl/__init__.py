"""mPLUG-Owl v1 and LRV-Instruction V2: configuration, model, processor, loaders.

Importing this package registers the classes with transformers' Auto classes.
"""

from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, AutoProcessor

from .checkpoint import FAMILY
from .configuration_mplug_owl import MplugOwlAbstractorConfig, MplugOwlConfig
from .modeling_mplug_owl import MplugOwlForConditionalGeneration, MplugOwlModel, MplugOwlVisionModel
from .pipeline import MplugOwlPipeline, load_pipeline, load_prompt_side, pipeline_of
from .processing_mplug_owl import MplugOwlProcessor

AutoConfig.register(MplugOwlConfig.model_type, MplugOwlConfig, exist_ok=True)
AutoModel.register(MplugOwlConfig, MplugOwlModel, exist_ok=True)
AutoModelForImageTextToText.register(MplugOwlConfig, MplugOwlForConditionalGeneration, exist_ok=True)
AutoProcessor.register(MplugOwlConfig, MplugOwlProcessor, exist_ok=True)

PARTS = {
    "vision": ("model.vision_model.encoder.",),
    "connector": ("model.vision_model.abstractor.",),
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
    "MplugOwlAbstractorConfig",
    "MplugOwlConfig",
    "MplugOwlForConditionalGeneration",
    "MplugOwlModel",
    "MplugOwlPipeline",
    "MplugOwlProcessor",
    "MplugOwlVisionModel",
    "convert",
    "detect_layout",
    "load_model",
    "load_pipeline",
    "load_processor",
    "load_prompt_side",
    "missing_parts",
    "pipeline_of",
    "save_model",
]
