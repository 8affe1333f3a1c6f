"""LLaVA's models are transformers' own; here they are put together from parts, with and without a language model.

pixel_values --vision_tower--> (N, P, Dv) --layer -2, without CLS--> --multi_modal_projector--> (N, Q, Dt)
"""

import torch
from torch import nn
from transformers import AutoModel, LlavaConfig, LlavaForConditionalGeneration, LlavaModel, PreTrainedModel
from transformers.models.llava.modeling_llava import LlavaMultiModalProjector


def build_vision(config: LlavaConfig, state: dict[str, torch.Tensor], dtype: torch.dtype) -> LlavaModel:
    """Vision encoder and projector as a `LlavaModel` without a language model.

    Args:
        config: of the whole model.
        state: `vision_tower.*` and `multi_modal_projector.*`, all of them.
        dtype: of the weights.
    """
    with torch.device("meta"):
        model = LlavaModel(config)
    model.language_model = nn.Identity()
    model.vision_tower = AutoModel.from_config(config.vision_config)
    model.multi_modal_projector = LlavaMultiModalProjector(config)
    model.load_state_dict(state)
    return model.to(dtype).eval()


def compose(vision: LlavaModel, language_model: PreTrainedModel, source: str) -> LlavaForConditionalGeneration:
    """Vision model and a loaded causal language model as one model, sharing their weights.

    Raises:
        ValueError: the projector was made for a language model of another width.
    """
    config = vision.config
    given = vision.multi_modal_projector.linear_2.out_features
    expected = language_model.config.get_text_config().hidden_size
    if given != expected:
        raise ValueError(
            f"{source}: the projector gives embeddings of width {given}, but the language model's width is {expected}: they belong "
            "to different language models (4096 is a 7B, 5120 a 13B). Give the matching pair."
        )
    config.text_config = language_model.config
    with torch.device("meta"):
        model = LlavaForConditionalGeneration(config)
    device = language_model.get_input_embeddings().weight.device
    model.model.vision_tower = vision.vision_tower.to(device)
    model.model.multi_modal_projector = vision.multi_modal_projector.to(device)
    model.model.language_model = language_model.get_decoder()
    model.lm_head = language_model.get_output_embeddings()
    model.generation_config = language_model.generation_config
    return model.eval()
