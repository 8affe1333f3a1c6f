"""mPLUG-Owl: CLIP's vision encoder, a visual abstractor, LLaMA.

    image --encoder--> (N, P, Dv) --abstractor--> (N, Q, Dt), and those stand in the prompt

Legend of shapes: N images, P image tokens with CLS (257), Q queries and the end token (65), Dv vision width (1024), Dt text width.

Source: X-PLUG/mPLUG-Owl, folder mPLUG-Owl/mplug_owl, commit 0f3068f, Apache-2.0. Same parameters under the same names in the
abstractor, same numbers. What differs: the vision encoder is transformers' CLIP, whose attention is not fused; adjacent images are
two images, not one; padding may stand on either side; `forward` and `generate` agree on what a placeholder is.
"""

import torch
from torch import nn
from transformers import CLIPVisionModel

from ..composite.modeling import CompositeForConditionalGeneration, CompositeModel, CompositeVisionModel, VisionOutput
from ..embedder import execution_device
from .configuration_mplug_owl import MplugOwlAbstractorConfig, MplugOwlConfig


class AbstractorMLP(nn.Module):
    """SwiGLU with a layer norm before the last projection."""

    def __init__(self, config: MplugOwlAbstractorConfig):
        super().__init__()
        self.w1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.w2 = nn.Linear(config.intermediate_size, config.hidden_size)
        self.w3 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.ffn_ln = nn.LayerNorm(config.intermediate_size, eps=config.layer_norm_eps)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.w2(self.ffn_ln(nn.functional.silu(self.w1(hidden_states)) * self.w3(hidden_states)))


class AbstractorCrossAttention(nn.Module):
    def __init__(self, config: MplugOwlAbstractorConfig):
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.dropout = config.attention_probs_dropout_prob
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key = nn.Linear(config.hidden_size, config.hidden_size)
        self.value = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """(N, Q, Dv) queries and (N, Q + P, Dv) keys to (N, Q, Dv)."""

        def heads(tensor: torch.Tensor) -> torch.Tensor:
            return tensor.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

        attended = nn.functional.scaled_dot_product_attention(
            heads(self.query(queries)),
            heads(self.key(keys)),
            heads(self.value(keys)),
            dropout_p=self.dropout if self.training else 0.0,
        )
        return attended.transpose(1, 2).flatten(2)


class AbstractorOutput(nn.Module):
    def __init__(self, config: MplugOwlAbstractorConfig):
        super().__init__()
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.norm2 = nn.LayerNorm(config.hidden_size)
        self.mlp = AbstractorMLP(config)

    def forward(self, attended: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        hidden_states = residual + self.out_proj(attended)
        return hidden_states + self.mlp(self.norm2(hidden_states))


class AbstractorAttention(nn.Module):
    """Cross-attention from the queries to themselves and the image; the residual is the normalised query, as in the original."""

    def __init__(self, config: MplugOwlAbstractorConfig):
        super().__init__()
        self.attention = AbstractorCrossAttention(config)
        self.output = AbstractorOutput(config)
        self.norm1 = nn.LayerNorm(config.hidden_size)
        self.normk = nn.LayerNorm(config.hidden_size)

    def forward(self, queries: torch.Tensor, image_tokens: torch.Tensor) -> torch.Tensor:
        queries = self.norm1(queries)
        keys = torch.cat([queries, self.normk(image_tokens)], dim=1)
        return self.output(self.attention(queries, keys), queries)


class AbstractorLayer(nn.Module):
    def __init__(self, config: MplugOwlAbstractorConfig):
        super().__init__()
        self.crossattention = AbstractorAttention(config)

    def forward(self, queries: torch.Tensor, image_tokens: torch.Tensor) -> torch.Tensor:
        return self.crossattention(queries, image_tokens)


class AbstractorEncoder(nn.Module):
    def __init__(self, config: MplugOwlAbstractorConfig):
        super().__init__()
        self.layers = nn.ModuleList(AbstractorLayer(config) for _ in range(config.num_hidden_layers))


class MplugOwlAbstractor(nn.Module):
    """Image tokens to embeddings of the language model.

    Args:
        config: the abstractor's configuration.
        text_width: Dt.
    """

    def __init__(self, config: MplugOwlAbstractorConfig, text_width: int):
        super().__init__()
        self.query_tokens = nn.Parameter(torch.zeros(1, config.num_query_tokens, config.hidden_size))
        self.encoder = AbstractorEncoder(config)
        self.visual_fc = nn.Linear(config.hidden_size, text_width)
        self.vit_eos = nn.Parameter(torch.zeros(1, 1, text_width))

    def forward(self, image_tokens: torch.Tensor) -> torch.Tensor:
        """(N, P, Dv) to (N, Q, Dt), the end token last."""
        queries = self.query_tokens.expand(len(image_tokens), -1, -1)
        for layer in self.encoder.layers:
            queries = layer(queries, image_tokens)
        return torch.cat([self.visual_fc(queries), self.vit_eos.expand(len(image_tokens), -1, -1)], dim=1)


class MplugOwlVisionModel(CompositeVisionModel):
    """Vision encoder and abstractor."""

    config_class = MplugOwlConfig

    def __init__(self, config: MplugOwlConfig):
        super().__init__(config)
        self.encoder = CLIPVisionModel(config.vision_config)
        self.abstractor = MplugOwlAbstractor(config.abstractor_config, config.text_config.hidden_size)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, MplugOwlAbstractor):
            nn.init.normal_(module.query_tokens, std=self.config.initializer_range)
            nn.init.normal_(module.vit_eos, std=self.config.initializer_range)

    def encode(self, pixel_values: torch.Tensor) -> VisionOutput:
        hidden_states = self.encoder(pixel_values).last_hidden_state
        image_tokens = self.encoder.post_layernorm(hidden_states)  # of all tokens; CLIP itself does CLS only
        weight = self.abstractor.vit_eos
        return VisionOutput(self.abstractor(image_tokens.to(execution_device(self.abstractor), weight.dtype)), image_tokens)


class MplugOwlModel(CompositeModel):
    config_class = MplugOwlConfig
    vision_class = MplugOwlVisionModel


class MplugOwlForConditionalGeneration(CompositeForConditionalGeneration):
    config_class = MplugOwlConfig
    model_class = MplugOwlModel
