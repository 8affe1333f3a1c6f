"""A fresh VisualCLA: a language model and a vision encoder as they are, resampler and projector untrained between them.

The encoder may come out of another VisualCLA model; then its resampler comes along, and the projector alone is new.
"""

import os
from pathlib import Path

import torch

from ..composite.new import open_text_model, open_vision_encoder, template_with_pictures
from ..hub import resolve_folder
from ..json_files import read_json
from .checkpoint import compose, load_eyes
from .configuration_visualcla import VisualCLAConfig
from .modeling_visualcla import VisualCLAForConditionalGeneration, VisualCLAVisionModel
from .processing_visualcla import IMAGE_MARK, VisualCLAProcessor, load_image_processor
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
        vision_model: CLIP or SigLIP, with its image processor; or a VisualCLA model, whose resampler is taken over as well unless
            one of its sizes is given.
        num_query_tokens: tokens that a picture costs in the prompt; the released 64, or as many as the picture has patches.
        num_layers: of the resampler; the released 6, and 0 for none: then every patch is a token.
        seed: of the untrained weights.

    Raises:
        FileNotFoundError, ValueError: one of the two is not there, or cannot be taken.
    """
    language_model, tokenizer = open_text_model(text_model)
    folder = resolve_folder(vision_model)
    given = load_eyes(folder) if _is_visualcla(folder) else None
    encoder = open_vision_encoder(folder) if given is None else given.vision_model
    resampler = None if given is None or num_query_tokens or num_layers is not None else given.visual_resampler
    torch.manual_seed(seed)
    if add_image_tokens(tokenizer) and len(tokenizer) > language_model.get_input_embeddings().weight.shape[0]:
        language_model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    vision, layers = encoder.config, LAYERS if num_layers is None else num_layers
    width, patches = vision.hidden_size, (vision.image_size // vision.patch_size) ** 2
    sizes = {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": max(layers, 1),
        "num_attention_heads": max(width // HEAD_WIDTH, 1),
        "num_query_tokens": num_query_tokens or min(QUERIES, patches),
        "layer_norm_eps": 1e-5,
    }
    config = VisualCLAConfig(
        text_config=language_model.config,
        vision_config=vision,
        use_visual_resampler=layers > 0,
        visual_resampler_config=sizes if resampler is None else given.config.visual_resampler_config.to_dict(),
        image_token_id=tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
    )
    torch.manual_seed(seed)
    eyes = VisualCLAVisionModel(config)
    eyes.vision_model.load_state_dict(encoder.state_dict())
    if resampler is not None:
        eyes.visual_resampler.load_state_dict(resampler.state_dict())
    model = compose(eyes.to(language_model.dtype), language_model)
    processor = VisualCLAProcessor(
        load_image_processor(folder),
        tokenizer,
        chat_template=template_with_pictures(tokenizer.chat_template, IMAGE_MARK),
        num_image_embeds=config.num_image_embeds,
    )
    return model.eval(), processor


def _is_visualcla(folder: Path) -> bool:
    return any(read_json(folder / name).get("model_type") == "visualcla" for name in ("config.json", "vision/config.json"))
