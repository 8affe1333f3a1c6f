"""MiniGPT-4: EVA-CLIP-g, BLIP-2's Q-Former, a linear projection, a language model.

    image --encoder--> (N, P, Dv) --qformer--> (N, Q, Dq) --llama_proj--> (N, Q, Dt), and those stand in the prompt

Legend of shapes: N images, P image tokens with CLS (257), Q queries (32), Dv vision width (1408), Dq Q-Former width (768), Dt text
width. Without a Q-Former (the LLaMA-2 variant): CLS dropped, every four neighbouring tokens joined to one of width 4 Dv, Q = 64.

Source: Vision-CAIR/MiniGPT-4, minigpt4/models, commit d94738a, BSD-3-Clause; its v1 code as vendored by FuxiaoLiu/LRV-Instruction.
Both parts are transformers' BLIP-2. What differs: the layer norm after the vision encoder has eps 1e-5 as in the original, where
BLIP-2 of transformers has 1e-6; several rows and paddings; what is loaded is checked.
"""

import torch
from torch import nn
from transformers import Blip2QFormerModel, Blip2VisionModel

from ..composite.modeling import CompositeForConditionalGeneration, CompositeModel, CompositeVisionModel, VisionOutput
from ..embedder import execution_device
from .configuration_minigpt4 import MiniGPT4Config

LN_VISION_EPS = 1e-5


class MiniGPT4VisionModel(CompositeVisionModel):
    """Vision encoder, Q-Former and projection."""

    config_class = MiniGPT4Config

    def __init__(self, config: MiniGPT4Config):
        super().__init__(config)
        vision_width, text_width = config.vision_config.hidden_size, config.text_config.hidden_size
        self.encoder = Blip2VisionModel(config.vision_config)
        self.encoder.post_layernorm.eps = LN_VISION_EPS
        self.qformer, self.query_tokens = None, None
        if config.use_qformer:
            width = config.qformer_config.hidden_size
            self.qformer = Blip2QFormerModel(config.qformer_config)
            self.query_tokens = nn.Parameter(torch.zeros(1, config.num_query_tokens, width))
            self.llama_proj = nn.Linear(width, text_width)
        else:
            self.llama_proj = nn.Linear(4 * vision_width, text_width)
        self.post_init()

    def encode(self, pixel_values: torch.Tensor) -> VisionOutput:
        image_tokens = self.encoder(pixel_values).last_hidden_state  # (N, P, Dv), normalised
        weight = self.llama_proj.weight
        hidden_states = image_tokens.to(execution_device(self.llama_proj), weight.dtype)
        if self.qformer is None:
            hidden_states = hidden_states[:, 1:].unflatten(1, (-1, 4)).flatten(2)  # (N, Q, 4 Dv)
        else:
            queries = self.query_tokens.expand(len(hidden_states), -1, -1)
            hidden_states = self.qformer(query_embeds=queries, encoder_hidden_states=hidden_states).last_hidden_state
        return VisionOutput(self.llama_proj(hidden_states), image_tokens)


class MiniGPT4Model(CompositeModel):
    config_class = MiniGPT4Config
    vision_class = MiniGPT4VisionModel


class MiniGPT4ForConditionalGeneration(CompositeForConditionalGeneration):
    config_class = MiniGPT4Config
    model_class = MiniGPT4Model
