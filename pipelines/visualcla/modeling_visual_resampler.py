"""VisualCLA's resampler: learnt queries look at the tokens of the vision encoder. Shapes as in modeling_visualcla.py.

Source: Visual-Chinese-LLaMA-Alpaca (https://github.com/airaria/Visual-Chinese-LLaMA-Alpaca), models/visualcla/
modeling_visual_resampler.py, commit 6f93ced, Apache-2.0. Same parameters under the same names and the same numbers. What differs:
attention maps can be had; the pooler, which the original computes and never uses, is kept as weights only.
"""

import torch
from torch import nn
from torch.nn import functional as F
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer

from .configuration_visualcla import VisualResamplerConfig


class ResamplerSelfAttention(nn.Module):
    """Multi-head attention from the queries to `cat(queries, image tokens)`."""

    def __init__(self, config: VisualResamplerConfig):
        super().__init__()
        if config.hidden_size % config.num_attention_heads:
            raise ValueError(
                f"hidden_size {config.hidden_size} of the resampler is not a multiple of its "
                f"num_attention_heads {config.num_attention_heads}."
            )
        self.num_heads = config.num_attention_heads
        self.dropout_prob = config.attention_probs_dropout_prob
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key = nn.Linear(config.hidden_size, config.hidden_size)
        self.value = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self, queries: torch.Tensor, image_tokens: torch.Tensor, output_attentions: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        def heads(x: torch.Tensor) -> torch.Tensor:
            return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

        keys_values = torch.cat([queries, image_tokens], dim=1)  # (N, Q + P, Dv)
        q, k, v = heads(self.query(queries)), heads(self.key(keys_values)), heads(self.value(keys_values))
        dropout_prob = self.dropout_prob if self.training else 0.0
        weights = None
        if output_attentions:
            weights = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1)  # (N, H, Q, Q + P)
            context = F.dropout(weights, dropout_prob) @ v
        else:
            context = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout_prob)
        return context.transpose(1, 2).flatten(2), weights


class ResamplerResidualOutput(nn.Module):
    """BERT's output block: linear, dropout, add, layer norm."""

    def __init__(self, config: VisualResamplerConfig, input_size: int):
        super().__init__()
        self.dense = nn.Linear(input_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        return self.LayerNorm(self.dropout(self.dense(x)) + residual)


class ResamplerAttention(nn.Module):
    def __init__(self, config: VisualResamplerConfig):
        super().__init__()
        self.self = ResamplerSelfAttention(config)
        self.output = ResamplerResidualOutput(config, config.hidden_size)

    def forward(
        self, queries: torch.Tensor, image_tokens: torch.Tensor, output_attentions: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        context, weights = self.self(queries, image_tokens, output_attentions)
        return self.output(context, queries), weights


class ResamplerIntermediate(nn.Module):
    def __init__(self, config: VisualResamplerConfig):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation = ACT2FN[config.hidden_act]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.activation(self.dense(x))


class ResamplerLayer(GradientCheckpointingLayer):
    """One post-norm block. The image tokens are the same for every block: only the queries change."""

    def __init__(self, config: VisualResamplerConfig):
        super().__init__()
        self.crossattention = ResamplerAttention(config)
        self.intermediate = ResamplerIntermediate(config)
        self.output = ResamplerResidualOutput(config, config.intermediate_size)

    def forward(
        self, queries: torch.Tensor, image_tokens: torch.Tensor, output_attentions: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        queries, weights = self.crossattention(queries, image_tokens, output_attentions)
        return self.output(self.intermediate(queries), queries), weights


class ResamplerEncoder(nn.Module):
    def __init__(self, config: VisualResamplerConfig):
        super().__init__()
        self.layer = nn.ModuleList(ResamplerLayer(config) for _ in range(config.num_hidden_layers))


class ResamplerPooler(nn.Module):
    """Weights that the released checkpoints hold and nothing uses: kept so that a checkpoint survives a round trip."""

    def __init__(self, config: VisualResamplerConfig):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size).requires_grad_(False)


class VisualResampler(nn.Module):
    """Q learnt queries look at the P image tokens and carry away what the language model needs."""

    def __init__(self, config: VisualResamplerConfig):
        super().__init__()
        # Spelled as in the released checkpoints.
        self.query_embeddding = nn.Parameter(torch.zeros(1, config.num_query_tokens, config.hidden_size))
        self.encoder = ResamplerEncoder(config)
        self.pooler = ResamplerPooler(config)

    def forward(
        self, image_tokens: torch.Tensor, output_attentions: bool = False
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...] | None]:
        """
        Args:
            image_tokens: (N, P, Dv).
            output_attentions: also return the attention weights of every layer.

        Returns:
            (N, Q, Dv), and one (N, H, Q, Q + P) per layer or None.
        """
        queries = self.query_embeddding.expand(image_tokens.shape[0], -1, -1).to(image_tokens.dtype)  # (N, Q, Dv)
        attentions = []
        for layer in self.encoder.layer:
            queries, weights = layer(queries, image_tokens, output_attentions)
            attentions.append(weights)
        return queries, tuple(attentions) if output_attentions else None
