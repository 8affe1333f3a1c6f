"""mPLUG-Owl's configuration: CLIP ViT-L/14, a visual abstractor, LLaMA.

Reads the `config.json` of the published checkpoints as it is (`model_type` "mplug-owl"), and every one that this project writes.
"""

from typing import Any

from transformers import CLIPVisionConfig, LlamaConfig, PreTrainedConfig


class MplugOwlAbstractorConfig(PreTrainedConfig):
    """The abstractor: learnt queries that look at the image tokens, layer by layer.

    Args:
        hidden_size: width Dv of queries and image tokens.
        intermediate_size: width of the gated feed-forward layer. 2816 in the published weights, though the class of the original
            says 4096: the loader reads it from the weights.
        num_hidden_layers: number of layers.
        num_attention_heads: heads per layer.
        num_query_tokens: Q, before the end token.
        attention_probs_dropout_prob: dropout on attention weights, in 0..1.
        layer_norm_eps: of the feed-forward's inner norm; the other norms have 1e-5.
        initializer_range: standard deviation of freshly made weights.
    """

    model_type = "mplug_owl_abstractor"
    base_config_key = "abstractor_config"

    hidden_size: int = 1024
    intermediate_size: int = 2816
    num_hidden_layers: int = 6
    num_attention_heads: int = 16
    num_query_tokens: int = 64
    attention_probs_dropout_prob: float = 0.1
    layer_norm_eps: float = 1e-6
    initializer_range: float = 0.02


class MplugOwlConfig(PreTrainedConfig):
    """mPLUG-Owl: vision encoder -> abstractor -> language model.

    Args:
        text_config: the language model's, LLaMA-7B by default.
        vision_config: the vision encoder's, CLIP ViT-L/14 with layer norms of eps 1e-6 by default.
        abstractor_config: the abstractor's.
        image_token_id: the id that an image's embeddings replace: `<0x00>`, which stands in no text.
        prompt_style: which of the original's prompts is meant when none is named: "readme", "server" or "lrv".
    """

    model_type = "mplug_owl"
    sub_configs = {
        "text_config": LlamaConfig,
        "vision_config": CLIPVisionConfig,
        "abstractor_config": MplugOwlAbstractorConfig,
    }

    text_config: dict | PreTrainedConfig | None = None
    vision_config: dict | PreTrainedConfig | None = None
    abstractor_config: dict | PreTrainedConfig | None = None
    image_token_id: int = 3
    prompt_style: str = "readme"
    initializer_range: float = 0.02
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: Any):
        if not isinstance(self.text_config, PreTrainedConfig):
            self.text_config = LlamaConfig(**_fields(self.text_config or {}))
        if not isinstance(self.vision_config, PreTrainedConfig):
            self.vision_config = CLIPVisionConfig(**{**_CLIP_VIT_L_14, **_fields(self.vision_config or {})})
        if not isinstance(self.abstractor_config, PreTrainedConfig):
            self.abstractor_config = MplugOwlAbstractorConfig(**_fields(self.abstractor_config or {}))
        super().__post_init__(**kwargs)
        self.tie_word_embeddings = self.text_config.tie_word_embeddings

    @property
    def num_image_embeds(self) -> int:
        """Q: embeddings that one image costs in the prompt, the end token among them."""
        return self.abstractor_config.num_query_tokens + 1

    @classmethod
    def from_published(cls, values: dict[str, Any]) -> "MplugOwlConfig":
        """From the `config.json` of a published checkpoint."""
        keys = MplugOwlAbstractorConfig().to_dict()
        abstractor = {key: value for key, value in values["visual_abstractor_config"].items() if key in keys}
        abstractor |= {"num_query_tokens": values.get("num_query_tokens", 64), "model_type": "mplug_owl_abstractor"}
        vision = {key: value for key, value in values["vision_config"].items() if key in _VISION_FIELDS}
        text = {key: value for key, value in values["text_config"].items() if key in _TEXT_FIELDS}
        return cls(text_config=text, vision_config=vision, abstractor_config=abstractor)


_VISION_FIELDS = [
    "attention_dropout",
    "hidden_act",
    "hidden_size",
    "image_size",
    "intermediate_size",
    "layer_norm_eps",
    "num_attention_heads",
    "num_channels",
    "num_hidden_layers",
    "patch_size",
]
_TEXT_FIELDS = [
    "bos_token_id",
    "eos_token_id",
    "hidden_act",
    "hidden_size",
    "initializer_range",
    "intermediate_size",
    "max_position_embeddings",
    "num_attention_heads",
    "num_hidden_layers",
    "rms_norm_eps",
    "tie_word_embeddings",
    "vocab_size",
]
_CLIP_VIT_L_14 = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "patch_size": 14,
    "image_size": 224,
    "layer_norm_eps": 1e-6,
    "hidden_act": "quick_gelu",
}


def _fields(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key != "model_type"}
