"""A fresh LLaVA 1.5: a language model and a vision encoder as they are, an untrained projector of two layers between them."""

import os
from pathlib import Path

import torch
from PIL import Image
from transformers import LlavaForConditionalGeneration
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil
from transformers.models.llava.modeling_llava import LlavaMultiModalProjector

from ..composite.new import flat_names, open_text_model, open_vision_encoder, template_with_pictures
from ..hub import resolve_folder
from ..json_files import read_json
from .configuration_llava import composed, num_image_embeds
from .modeling_llava import build_vision, compose
from .processing_llava import IMAGE_TOKEN, LlavaChatProcessor, default_template

CLIP_MEAN, CLIP_STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]


def new_model(
    text_model: str | os.PathLike, vision_model: str | os.PathLike, seed: int = 0
) -> tuple[LlavaForConditionalGeneration, LlavaChatProcessor]:
    """See `python -m training new`.

    Args:
        text_model: a causal language model, folder or hub name; its vocabulary grows by `<image>`.
        vision_model: CLIP or SigLIP, with its image processor.
        seed: of the untrained weights.

    Raises:
        FileNotFoundError, ValueError: one of the two is not there, or cannot be taken.
    """
    language_model, tokenizer = open_text_model(text_model)
    encoder = open_vision_encoder(vision_model)
    torch.manual_seed(seed)
    tokenizer.add_tokens([IMAGE_TOKEN], special_tokens=True)
    if len(tokenizer) > language_model.get_input_embeddings().weight.shape[0]:
        language_model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    tokenizer.padding_side = "left"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    settings = {"image_aspect_ratio": "pad", "mm_vision_tower": os.fspath(vision_model)}
    image_token_id = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    config = composed(language_model.config, encoder.config, settings, is_linear=False, image_token_id=image_token_id)
    torch.manual_seed(seed)
    projector = LlavaMultiModalProjector(config)
    state = {f"vision_tower.{name}": tensor for name, tensor in flat_names(encoder).items()}
    state |= {f"multi_modal_projector.{name}": tensor for name, tensor in projector.state_dict().items()}
    vision = build_vision(config, state, language_model.dtype)
    model = compose(vision, language_model, "a new LLaVA")
    processor = LlavaChatProcessor(
        _image_processor(resolve_folder(vision_model), config.vision_config.image_size),
        tokenizer,
        chat_template=template_with_pictures(tokenizer.chat_template, f"{IMAGE_TOKEN}\n") or default_template(config),
        num_image_embeds=num_image_embeds(config),
        image_token_id=image_token_id,
    )
    return model, processor


def _image_processor(folder: Path, side_px: int) -> LlavaImageProcessorPil:
    """LLaVA 1.5's: padded to a square; mean and standard deviation are the vision encoder's."""
    stored = read_json(folder / "preprocessor_config.json")
    return LlavaImageProcessorPil(
        size={"shortest_edge": side_px},
        crop_size={"height": side_px, "width": side_px},
        do_pad=True,
        image_mean=stored.get("image_mean", CLIP_MEAN),
        image_std=stored.get("image_std", CLIP_STD),
        resample=Image.Resampling.BICUBIC,
    )
