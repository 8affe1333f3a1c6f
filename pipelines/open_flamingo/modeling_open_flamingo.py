"""OpenFlamingo v1: a perceiver resampler, and cross-attention layers inside a language model that stays as it is.

Legend of shapes: B rows, T tokens, N pictures of a row, P patches of a picture (256), K states of a picture (64), Dv the
vision encoder's width (1024), Dt the language model's (4096).

Nothing of a picture stands between the embeddings of the prompt but the embedding of the token `<image>`. What the picture
became, K states, is looked at by gated layers that stand before every fourth decoder layer. `ImageConditioning` (`conditioning.py`) puts
them there by hooks, takes them off again, and knows which pictures are in force.

Source: OpenFlamingo (https://github.com/mlfoundations/open_flamingo), open_flamingo/src/{helpers,flamingo,flamingo_lm}.py, tag
v0.0.2, MIT, as Multimodal-GPT (https://github.com/open-mmlab/Multimodal-GPT, commit 9c73e47, Apache-2.0) runs it. Same
parameters, same numbers. What differs: CLIP is transformers' (last layer, without its last norm, without CLS); rows of a batch
may have different numbers of pictures, or none.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoModel, AutoModelForCausalLM, GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from ..embedder import execution_device
from .conditioning import ImageConditioning
from .configuration_open_flamingo import OpenFlamingoConfig, PerceiverConfig


def feed_forward(width: int, intermediate_size: int) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(width),
        nn.Linear(width, intermediate_size, bias=False),
        nn.GELU(),
        nn.Linear(intermediate_size, width, bias=False),
    )


def split_heads(x: torch.Tensor, num_heads: int) -> torch.Tensor:
    """(B, T, H x d) to (B, H, T, d)."""
    return x.unflatten(-1, (num_heads, -1)).transpose(1, 2)


class PerceiverAttention(nn.Module):
    """Attention from the latents to `cat(image tokens, latents)`."""

    def __init__(self, config: PerceiverConfig):
        super().__init__()
        inner = config.num_attention_heads * config.head_dim
        self.num_heads = config.num_attention_heads
        self.norm_media = nn.LayerNorm(config.hidden_size)
        self.norm_latents = nn.LayerNorm(config.hidden_size)
        self.to_q = nn.Linear(config.hidden_size, inner, bias=False)
        self.to_kv = nn.Linear(config.hidden_size, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, config.hidden_size, bias=False)

    def forward(self, image_tokens: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        latents = self.norm_latents(latents)
        keys, values = self.to_kv(torch.cat([self.norm_media(image_tokens), latents], dim=1)).chunk(2, dim=-1)
        query, keys, values = (split_heads(x, self.num_heads) for x in (self.to_q(latents), keys, values))
        return self.to_out(F.scaled_dot_product_attention(query, keys, values).transpose(1, 2).flatten(2))


class PerceiverResampler(nn.Module):
    """(N, P, Dv) image tokens to (N, K, Dv) states."""

    def __init__(self, config: PerceiverConfig):
        super().__init__()
        self.latents = nn.Parameter(torch.randn(config.num_latents, config.hidden_size))
        self.layers = nn.ModuleList(
            nn.ModuleList([PerceiverAttention(config), feed_forward(config.hidden_size, config.intermediate_size)])
            for _ in range(config.num_hidden_layers)
        )
        self.norm = nn.LayerNorm(config.hidden_size)

    def forward(self, image_tokens: torch.Tensor) -> torch.Tensor:
        states = self.latents.expand(len(image_tokens), -1, -1)
        for attention, mlp in self.layers:
            states = states + attention(image_tokens, states)
            states = states + mlp(states)
        return self.norm(states)


class MaskedCrossAttention(nn.Module):
    """Each token looks at the states of one picture, or at none."""

    def __init__(self, config: OpenFlamingoConfig):
        super().__init__()
        width, inner = config.text_config.hidden_size, config.cross_attn_num_heads * config.cross_attn_head_dim
        self.num_heads = config.cross_attn_num_heads
        self.norm = nn.LayerNorm(width)
        self.to_q = nn.Linear(width, inner, bias=False)
        self.to_kv = nn.Linear(config.perceiver_config.hidden_size, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, width, bias=False)

    def forward(self, x: torch.Tensor, states: torch.Tensor, visible: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        """
        Args:
            x: (B, T, Dt).
            states: (B, N, K, Dv).
            visible: (B, T), the number of the picture a token looks at; zeros come out where it is 0.
            counts: (B, 1), how many of the N pictures are a row's own.
        """
        visible, number = visible.unsqueeze(-1), torch.arange(1, states.shape[1] + 1, device=states.device)
        # The original demo writes `<image>` more often than it gives pictures. What looks at a missing one gets the mean of all.
        is_there = (visible > 0) & (visible <= counts.unsqueeze(-1))  # (B, T, 1)
        mask = (visible == number) | (~is_there & (number <= counts.unsqueeze(-1).clamp(min=1)))  # (B, T, N)
        mask = mask.repeat_interleave(states.shape[2], dim=-1).unsqueeze(1)  # (B, 1, T, N x K)
        keys, values = self.to_kv(states.flatten(1, 2)).chunk(2, dim=-1)
        query = self.to_q(self.norm(x)) * is_there
        query, keys, values = (split_heads(y, self.num_heads) for y in (query, keys, values))
        attended = F.scaled_dot_product_attention(query, keys, values, attn_mask=mask)
        return self.to_out(attended.transpose(1, 2).flatten(2)) * (visible > 0)


class GatedCrossAttentionBlock(nn.Module):
    """What stands before a decoder layer: gated cross-attention, then a gated feed-forward part."""

    def __init__(self, config: OpenFlamingoConfig):
        super().__init__()
        self.attn = MaskedCrossAttention(config)
        self.attn_gate = nn.Parameter(torch.zeros(1))
        self.ff = feed_forward(config.text_config.hidden_size, config.cross_attn_intermediate_size)
        self.ff_gate = nn.Parameter(torch.zeros(1))

    def forward(
        self, x: torch.Tensor, states: torch.Tensor, visible: torch.Tensor | None, counts: torch.Tensor
    ) -> torch.Tensor:
        """`visible` None: no token looks at a picture. See `MaskedCrossAttention.forward`."""
        if visible is not None:
            x = x + self.attn(x, states, visible, counts) * self.attn_gate.tanh()
        return x + self.ff(x) * self.ff_gate.tanh()


def gated_layers(config: OpenFlamingoConfig) -> nn.ModuleDict:
    return nn.ModuleDict({str(index): GatedCrossAttentionBlock(config) for index in config.gated_layers})


class OpenFlamingoPreTrainedModel(PreTrainedModel):
    config_class = OpenFlamingoConfig
    base_model_prefix = ""
    input_modalities = ("image", "text")
    supports_gradient_checkpointing = True
    _skip_keys_device_placement = ["past_key_values"]
    _no_split_modules = ["GatedCrossAttentionBlock", "CLIPEncoderLayer", "LlamaDecoderLayer"]
    _supports_sdpa = True
    _supports_flash_attn = True
    # Buffers that old checkpoints carry and today's models compute.
    _keys_to_ignore_on_load_unexpected = [r"\.position_ids$", r"rotary_emb\.inv_freq$"]

    processor = None
    """The `OpenFlamingoProcessor` that belongs to the weights; set by whoever loads them."""

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        std = self.config.initializer_range
        if isinstance(module, PerceiverResampler):
            nn.init.normal_(module.latents)
        elif isinstance(module, GatedCrossAttentionBlock):
            nn.init.zeros_(module.attn_gate)
            nn.init.zeros_(module.ff_gate)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)

    def get_image_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Encode pictures into states for the gated layers.

        Args:
            pixel_values: (N, 3, S, S) with S = `config.vision_config.image_size`, RGB, normalised as CLIP's (mean 0, std 1).

        Returns:
            (N, K, Dv), in the perceiver's dtype.

        Raises:
            ValueError: `pixel_values` has another rank, or S differs.
        """
        side_px = self.config.vision_config.image_size
        if pixel_values.ndim != 4 or pixel_values.shape[-2:] != (side_px, side_px):
            raise ValueError(
                f"pixel_values has shape {tuple(pixel_values.shape)}, but the vision encoder takes "
                f"(images, 3, {side_px}, {side_px}). Use the image processor of this model."
            )
        image_tokens = self.vision_model(
            pixel_values.to(execution_device(self.vision_model), self.vision_model.dtype)
        ).last_hidden_state
        image_tokens = image_tokens.to(execution_device(self.perceiver), self.perceiver.latents.dtype)
        return self.perceiver(image_tokens[:, 1:])  # without CLS


class OpenFlamingoVisionModel(OpenFlamingoPreTrainedModel):
    """All that is not the language model: vision encoder, perceiver and gated layers."""

    main_input_name = "pixel_values"
    input_modalities = ("image",)
    _keys_to_ignore_on_load_unexpected = [
        *OpenFlamingoPreTrainedModel._keys_to_ignore_on_load_unexpected,
        r"^language_model\.",
    ]

    def __init__(self, config: OpenFlamingoConfig):
        super().__init__(config)
        self.vision_model = AutoModel.from_config(config.vision_config)
        self.perceiver = PerceiverResampler(config.perceiver_config)
        self.gated_cross_attn_layers = gated_layers(config)
        self.conditioning = ImageConditioning(self.gated_cross_attn_layers)
        self.post_init()

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """See `get_image_features`."""
        return self.get_image_features(pixel_values)


class OpenFlamingoForConditionalGeneration(OpenFlamingoPreTrainedModel, GenerationMixin):
    """Vision encoder, perceiver and gated layers with a language model: text with pictures in it goes in, text comes out.

    Args:
        config: the configuration.
        language_model: a causal language model that is loaded already (on its own device, quantised, with LoRA ...); made from
            `config.text_config` when absent.
        vision: a vision model that is loaded already; its parts become this model's.
    """

    def __init__(
        self,
        config: OpenFlamingoConfig,
        language_model: PreTrainedModel | None = None,
        vision: OpenFlamingoVisionModel | None = None,
    ):
        if language_model is not None:  # the base class settles attention in its own copy, not in that of a model that runs
            config.text_config = copy.deepcopy(language_model.config)
        super().__init__(config)
        vision = OpenFlamingoVisionModel(config) if vision is None else vision
        self.vision_model = vision.vision_model
        self.perceiver = vision.perceiver
        self.gated_cross_attn_layers = vision.gated_cross_attn_layers
        self.language_model = AutoModelForCausalLM.from_config(config.text_config) if language_model is None else language_model
        # One home for the sizes of the vocabulary: what a resize changes in the one is changed in the other.
        config.text_config = self.language_model.config
        self.conditioning = vision.conditioning
        self.conditioning.put_into(self.language_model)
        if language_model is None:
            self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        return self.language_model.get_output_embeddings()

    def set_output_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_output_embeddings(value)

    def get_decoder(self) -> nn.Module:
        return self.language_model.get_decoder()

    def resize_token_embeddings(self, *args, **kwargs) -> nn.Module:
        """Resize the vocabulary of the language model; its own configuration decides about tying."""
        return self.language_model.resize_token_embeddings(*args, **kwargs)

    def show_images(self, input_ids: torch.Tensor, pixel_values: torch.Tensor) -> None:
        """Put the pictures of a batch of prompts in force.

        Args:
            input_ids: (B, T), one `<image>` per picture.
            pixel_values: (N, 3, S, S), the pictures of all rows in reading order: row by row, left to right.

        Raises:
            ValueError: pictures and `<image>` differ in number, or the id of `<image>` is not known.
        """
        image_token_id = self.config.image_token_id
        if image_token_id is None:
            raise ValueError(
                "config.image_token_id is None, so an image has no place in the prompt. Set it to "
                "tokenizer.convert_tokens_to_ids('<image>')."
            )
        is_image = input_ids == image_token_id
        counts = is_image.sum(-1).tolist()
        if sum(counts) != len(pixel_values):
            raise ValueError(
                f"{sum(counts)} image tokens in the prompt but {len(pixel_values)} images. Was the prompt cut, or an image given "
                "without its mark?"
            )
        self.conditioning.show(input_ids, is_image, self.get_image_features(pixel_values).split(counts))

    def forward(
        self, input_ids: torch.Tensor | None = None, pixel_values: torch.Tensor | None = None, **kwargs
    ) -> CausalLMOutputWithPast:
        """Run text with pictures in it through the language model.

        Args:
            input_ids: (B, T), one `<image>` per picture.
            pixel_values: the pictures, see `show_images`. None: those that are in force for these very ids, else none.
            kwargs: what the language model's `forward` takes: `attention_mask`, `labels`, `past_key_values`, ...

        Returns:
            The language model's own output.

        Raises:
            ValueError: pictures and `<image>` differ in number.
        """
        with self._showing(input_ids, pixel_values):
            return self.language_model(input_ids=input_ids, **kwargs)

    @torch.no_grad()
    def generate(
        self,
        inputs: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        input_ids: torch.Tensor | None = None,
        **kwargs,
    ):
        """The language model's `generate`, with pictures in force. See `forward`."""
        input_ids = inputs if input_ids is None else input_ids
        with self._showing(input_ids, pixel_values):
            return self.language_model.generate(inputs=input_ids, **kwargs)

    @contextmanager
    def _showing(self, input_ids: torch.Tensor | None, pixel_values: torch.Tensor | None) -> Iterator[None]:
        if pixel_values is None or not len(pixel_values):
            yield
            return
        self.show_images(input_ids, pixel_values)
        try:
            yield
        finally:
            # A backward pass that recomputes what was not kept needs them once more.
            if not torch.is_grad_enabled():
                self.conditioning.clear()
