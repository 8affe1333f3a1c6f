"""VisualCLA's configuration: one language model, one vision encoder, the resampler between them.

Reads the `config.json` of the released checkpoints as it is, and every `config.json` that this project writes.
"""

import os
from pathlib import Path
from typing import Any

from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig
from transformers.utils import cached_file

from ..json_files import read_json


class VisualResamplerConfig(PreTrainedConfig):
    """The resampler: a stack of post-norm BERT-like blocks in which learnt queries look at the image tokens.

    The released checkpoints write the first five fields only; the others are the defaults of the original code.

    Args:
        hidden_size: width Dv of queries and image tokens; equals the vision encoder's width.
        intermediate_size: width of the feed-forward layer.
        num_hidden_layers: number of blocks.
        num_attention_heads: heads per block; divides `hidden_size`.
        num_query_tokens: Q, how many tokens an image becomes.
        hidden_act: activation of the feed-forward layer.
        hidden_dropout_prob: dropout after each linear output, in 0..1.
        attention_probs_dropout_prob: dropout on attention weights, in 0..1.
        layer_norm_eps: epsilon of every layer norm (1e-12 is 0 in fp16, as in the original).
        initializer_range: standard deviation of freshly made weights.

    Source: Visual-Chinese-LLaMA-Alpaca, models/visualcla/modeling_visual_resampler.py and configuration_visualcla.py,
        commit 6f93ced, Apache-2.0. Fields that the original never reads are gone.
    """

    model_type = "visualcla_resampler"
    base_config_key = "visual_resampler_config"

    hidden_size: int = 1024
    intermediate_size: int = 4096
    num_hidden_layers: int = 6
    num_attention_heads: int = 16
    num_query_tokens: int = 64
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    layer_norm_eps: float = 1e-12
    initializer_range: float = 0.02


class VisualCLAConfig(PreTrainedConfig):
    """VisualCLA: vision encoder -> resampler -> projector -> language model.

    Args:
        text_config: the language model's configuration (any causal language model of transformers), LLaMA by default.
        vision_config: the vision encoder's configuration (CLIP or SigLIP vision model), CLIP ViT-L/14 by default.
        visual_resampler_config: the resampler's configuration.
        use_visual_resampler: without the resampler every token of the vision encoder goes to the projector.
        image_token_id: id of `<img_token>`, the placeholder whose embedding an image feature replaces. None in the
            released configurations: their loader takes it from the tokenizer.
        tie_word_embeddings: ignored here; `text_config` decides whether the language model's embeddings are tied.

    Example:
        >>> config = VisualCLAConfig()
        >>> config.num_image_embeds
        64
    """

    model_type = "visualcla"
    sub_configs = {
        "text_config": AutoConfig,
        "vision_config": AutoConfig,
        "visual_resampler_config": VisualResamplerConfig,
    }

    text_config: dict | PreTrainedConfig | None = None
    vision_config: dict | PreTrainedConfig | None = None
    visual_resampler_config: dict | PreTrainedConfig | None = None
    use_visual_resampler: bool = True
    image_token_id: int | None = None
    initializer_range: float = 0.02
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: Any):
        self.text_config = _sub_config(self.text_config, "llama", {})
        self.vision_config = _sub_config(self.vision_config, "clip_vision_model", _CLIP_VIT_L_14)
        if not hasattr(self.vision_config, "image_size"):
            raise ValueError(
                f"The vision encoder {self.vision_config.model_type!r} has no image_size: its number of tokens depends on the "
                "picture, which a resampler of this kind cannot take. Use a CLIP or SigLIP vision model of one image size."
            )
        if self.visual_resampler_config is None:
            width = self.vision_config.hidden_size
            self.visual_resampler_config = {"hidden_size": width, "intermediate_size": 4 * width}
        if isinstance(self.visual_resampler_config, dict):
            self.visual_resampler_config = VisualResamplerConfig(**self.visual_resampler_config)
        # The original writes the size of the composite's vocabulary here; the language model's own is the one that counts.
        kwargs.pop("vocab_size", None)
        super().__post_init__(**kwargs)
        self.tie_word_embeddings = False

    @property
    def num_image_tokens(self) -> int:
        """P: tokens that the vision encoder makes of one image (patches, plus the CLS token where there is one)."""
        patches = (self.vision_config.image_size // self.vision_config.patch_size) ** 2
        return patches + (self.vision_config.model_type == "clip_vision_model")

    @property
    def num_image_embeds(self) -> int:
        """Q: embeddings that one image costs in the prompt."""
        return self.visual_resampler_config.num_query_tokens if self.use_visual_resampler else self.num_image_tokens


def load_config(name_or_path: str | os.PathLike, **hub_kwargs: Any) -> VisualCLAConfig:
    """The configuration of any layout.

    Raises:
        FileNotFoundError: there is no configuration of a VisualCLA model.
    """
    name = os.fspath(name_or_path)
    for file_name in ("vision/config.json", "config.json"):
        path = cached_file(name, file_name, _raise_exceptions_for_missing_entries=False, **hub_kwargs)
        values = read_json(Path(path)) if path else {}
        if values.get("model_type") == "visualcla":
            return VisualCLAConfig.from_dict(values)
    raise FileNotFoundError(
        f"{name!r} holds no configuration of a VisualCLA model: neither 'vision/config.json' nor a 'config.json' whose model_type "
        "is 'visualcla'. Make one: python -m training merge --help"
    )


AUTO_MODULE = "auto_visualcla"
AUTO_MAP = {
    "AutoConfig": f"{AUTO_MODULE}.VisualCLAConfig",
    "AutoModel": f"{AUTO_MODULE}.VisualCLAModel",
    "AutoModelForImageTextToText": f"{AUTO_MODULE}.VisualCLAForConditionalGeneration",
    "AutoProcessor": f"{AUTO_MODULE}.VisualCLAProcessor",
}
"""For the `config.json` of a composite folder: where programs that take `trust_remote_code` find the classes."""

AUTO_SOURCE = '''"""Where transformers and serving engines find this model's classes: in the package multimodal-vcla, which must be installed."""

try:
    from pipelines.visualcla import VisualCLAConfig, VisualCLAForConditionalGeneration, VisualCLAModel, VisualCLAProcessor
except ImportError as error:
    raise ImportError("This model needs the package multimodal-vcla in this Python: pip install the project's folder.") from error
'''
"""The file `auto_visualcla.py` beside that `config.json`."""

_CLIP_VIT_L_14 = {
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
        return given
    values = PreTrainedConfig._decode_special_floats(dict(defaults if given is None else given))
    return CONFIG_MAPPING[values.pop("model_type", None) or model_type](**values)
