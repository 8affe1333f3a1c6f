"""OpenFlamingo v1's configuration: vision encoder, perceiver resampler, language model with gated cross-attention layers."""

import copy
from typing import Any

from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig


class PerceiverConfig(PreTrainedConfig):
    """The resampler: learnt latents that look at the tokens of the vision encoder.

    Args:
        hidden_size: width Dv of latents and image tokens; equals the vision encoder's width.
        num_latents: K, how many states an image becomes.
        num_hidden_layers: number of blocks.
        num_attention_heads: heads per block.
        head_dim: width of a head; heads and width together need not be `hidden_size`.
        intermediate_size: width of the feed-forward layer.

    Source: OpenFlamingo (https://github.com/mlfoundations/open_flamingo), open_flamingo/src/helpers.py, tag v0.0.2, MIT. The
        sizes are fixed there.
    """

    model_type = "open_flamingo_perceiver"
    base_config_key = "perceiver_config"

    hidden_size: int = 1024
    num_latents: int = 64
    num_hidden_layers: int = 6
    num_attention_heads: int = 8
    head_dim: int = 64
    intermediate_size: int = 4096


class OpenFlamingoConfig(PreTrainedConfig):
    """OpenFlamingo v1, and Multimodal-GPT, which is OpenFlamingo with LoRA.

    Args:
        text_config: the language model's configuration, LLaMA by default.
        vision_config: the vision encoder's configuration, CLIP ViT-L/14 by default.
        perceiver_config: the resampler's configuration.
        cross_attn_every_n_layers: a gated layer stands before decoder layers n-1, 2n-1, ...
        cross_attn_num_heads: heads of a gated layer.
        cross_attn_head_dim: width of such a head.
        cross_attn_intermediate_size: width of a gated layer's feed-forward part; 4 x the language model's width when absent.
        image_token_id: id of `<image>`, the place of a picture in the prompt; needed as soon as there is a picture.
        tie_word_embeddings: ignored here; `text_config` decides.

    Example:
        >>> OpenFlamingoConfig(cross_attn_every_n_layers=4).gated_layers
        [3, 7, 11, 15, 19, 23, 27, 31]
    """

    model_type = "open_flamingo"
    sub_configs = {"text_config": AutoConfig, "vision_config": AutoConfig, "perceiver_config": PerceiverConfig}

    text_config: dict | PreTrainedConfig | None = None
    vision_config: dict | PreTrainedConfig | None = None
    perceiver_config: dict | PreTrainedConfig | None = None
    cross_attn_every_n_layers: int = 4
    cross_attn_num_heads: int = 8
    cross_attn_head_dim: int = 64
    cross_attn_intermediate_size: int | None = None
    image_token_id: int | None = None
    initializer_range: float = 0.02
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: Any):
        self.text_config = _sub_config(self.text_config, "llama", {})
        self.vision_config = _sub_config(self.vision_config, "clip_vision_model", CLIP_VIT_L_14)
        if self.perceiver_config is None:
            width = self.vision_config.hidden_size
            self.perceiver_config = {"hidden_size": width, "intermediate_size": 4 * width}
        if isinstance(self.perceiver_config, dict):
            self.perceiver_config = PerceiverConfig(**self.perceiver_config)
        if self.cross_attn_intermediate_size is None:
            self.cross_attn_intermediate_size = 4 * self.text_config.hidden_size
        super().__post_init__(**kwargs)
        self.tie_word_embeddings = False

    @property
    def gated_layers(self) -> list[int]:
        """The decoder layers that have a gated cross-attention layer before them."""
        every = self.cross_attn_every_n_layers
        return list(range(every - 1, self.text_config.num_hidden_layers, every))


CLIP_VIT_L_14 = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "patch_size": 14,
    "image_size": 224,
    "projection_dim": 768,
}


def _sub_config(given: dict | PreTrainedConfig | None, model_type: str, defaults: dict) -> PreTrainedConfig:
    if isinstance(given, PreTrainedConfig):
        return copy.deepcopy(given)  # it may belong to a model that runs, and this one's settings are written into it
    values = dict(defaults if given is None else given)
    return CONFIG_MAPPING[values.pop("model_type", None) or model_type](**values)
