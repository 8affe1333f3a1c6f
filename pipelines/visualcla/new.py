"""A fresh VisualCLA: a language model and a vision encoder as they are, resampler and projector untrained between them."""

import os

import torch

from ..composite.new import open_text_model, open_vision_encoder
from ..hub import resolve_folder
from .checkpoint import compose
from .configuration_visualcla import VisualCLAConfig
from .modeling_visualcla import VisualCLAForConditionalGeneration, VisualCLAVisionModel
from .processing_visualcla import VisualCLAProcessor, load_image_processor
from .tokenization_visualcla import IMAGE_TOKEN, add_image_tokens

QUERIES, LAYERS, HEAD_WIDTH = 64, 6, 64
"""The released resampler's sizes."""


def new_model(
    text_model: str | os.PathLike,
    vision_model: str | os.PathLike,
    num_query_tokens: int | None = None,
    num_layers: int | None = None,
    seed: int = 0,
) -> tuple[VisualCLAForConditionalGeneration, VisualCLAProcessor]:
    """See `python -m training new`.

    Args:
        text_model: a causal language model, folder or hub name; its vocabulary grows by the image tokens.
        vision_model: CLIP or SigLIP, with its image processor.
        num_query_tokens: tokens that a picture costs in the prompt; the released 64, or as many as the picture has patches.
        num_layers: of the resampler; the released 6, and 0 for none: then every patch is a token.
        seed: of the untrained weights.

    Raises:
        FileNotFoundError, ValueError: one of the two is not there, or cannot be taken.
    """
    language_model, tokenizer = open_text_model(text_model)
    encoder = open_vision_encoder(vision_model)
    if add_image_tokens(tokenizer) and len(tokenizer) > language_model.get_input_embeddings().weight.shape[0]:
        language_model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    vision, layers = encoder.config, LAYERS if num_layers is None else num_layers
    width, patches = vision.hidden_size, (vision.image_size // vision.patch_size) ** 2
    config = VisualCLAConfig(
        text_config=language_model.config,
        vision_config=vision,
        use_visual_resampler=layers > 0,
        visual_resampler_config={
            "hidden_size": width,
            "intermediate_size": 4 * width,
            "num_hidden_layers": max(layers, 1),
            "num_attention_heads": max(width // HEAD_WIDTH, 1),
            "num_query_tokens": num_query_tokens or min(QUERIES, patches),
            "layer_norm_eps": 1e-5,
        },
        image_token_id=tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
    )
    torch.manual_seed(seed)
    eyes = VisualCLAVisionModel(config)
    eyes.vision_model.load_state_dict(encoder.state_dict())
    model = compose(eyes.to(language_model.dtype), language_model)
    processor = VisualCLAProcessor(
        load_image_processor(resolve_folder(vision_model)), tokenizer, num_image_embeds=config.num_image_embeds
    )
    return model.eval(), processor
