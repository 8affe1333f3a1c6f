"""VisualCLA (Visual-Chinese-LLaMA-Alpaca): configuration, model, processor, loaders, chat.

Importing this package registers the classes with transformers' Auto classes. The names of the original project's Python API
(`get_model_and_tokenizer_and_processor`, `chat`, `chat_in_stream`, `DEFAULT_GENERATION_CONFIG`) are here too.
"""

from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, AutoProcessor

from .chat import DEFAULT_GENERATION_CONFIG, chat, chat_in_stream, get_model_and_tokenizer_and_processor
from .checkpoint import check_vision_files, detect_layout, load_eyes, load_pretrained
from .configuration_visualcla import VisualCLAConfig, VisualResamplerConfig, load_config
from .merging import MERGING
from .modeling_visualcla import VisualCLAForConditionalGeneration, VisualCLAModel, VisualCLAVisionModel
from .new import new_model
from .pipeline import load_pipeline, load_prompt_side, pipeline_of
from .processing_visualcla import VisualCLAProcessor
from .saving import save_model_folder as save_model
from .tokenization_visualcla import add_image_tokens, build_tokenizer, load_tokenizer

AutoConfig.register(VisualCLAConfig.model_type, VisualCLAConfig, exist_ok=True)
AutoModel.register(VisualCLAConfig, VisualCLAModel, exist_ok=True)
AutoModelForImageTextToText.register(VisualCLAConfig, VisualCLAForConditionalGeneration, exist_ok=True)
AutoProcessor.register(VisualCLAConfig, VisualCLAProcessor, exist_ok=True)


PARTS = {
    "vision": ("model.vision_model.",),
    "connector": ("model.visual_resampler.", "model.image_projection_layer."),
    "language": ("model.text_model.", "lm_head."),
}


def load_model(folder, **kwargs):
    """See `pipelines.registry.load_model` and `load_pretrained`."""
    model = load_pretrained(folder, **kwargs)
    return model, model.processor


def load_processor(folder):
    """See `pipelines.registry.load_processor`."""
    return VisualCLAProcessor.from_pretrained(folder)


__all__ = [
    "DEFAULT_GENERATION_CONFIG",
    "MERGING",
    "PARTS",
    "VisualCLAConfig",
    "VisualCLAForConditionalGeneration",
    "VisualCLAModel",
    "VisualCLAProcessor",
    "VisualCLAVisionModel",
    "VisualResamplerConfig",
    "add_image_tokens",
    "build_tokenizer",
    "chat",
    "chat_in_stream",
    "check_vision_files",
    "detect_layout",
    "get_model_and_tokenizer_and_processor",
    "load_config",
    "load_eyes",
    "load_model",
    "load_pipeline",
    "load_pretrained",
    "load_processor",
    "load_prompt_side",
    "load_tokenizer",
    "new_model",
    "pipeline_of",
    "save_model",
]
