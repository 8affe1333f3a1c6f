"""LLaVA's configuration: transformers' `LlavaConfig`, and how the originals' settings become one.

Three settings of the originals have no field there and stand in it as they are called by them:

* `image_aspect_ratio`: "pad" pads a picture to a square with the mean colour (1.5); None cuts it to one (v0, 1.0).
* `mm_use_im_start_end`: `<im_start>` and `<im_end>` stand around a picture (v0).
* `mm_vision_tower`: the vision encoder's name.
"""

from typing import Any

from transformers import CONFIG_MAPPING, LlavaConfig

SETTINGS: dict[str, Any] = {"image_aspect_ratio": None, "mm_use_im_start_end": False, "mm_vision_tower": None}
_PUBLISHED_KEYS = ("mm_", "tune_mm_", "freeze_mm_", "use_mm_", "image_", "pretrain_mm_", "unfreeze_mm_", "tokenizer_")

CLIP_VIT_L_14 = {
    "model_type": "clip_vision_model",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "patch_size": 14,
    "projection_dim": 768,
}
VISION_ENCODERS = {
    "clip-vit-large-patch14": CLIP_VIT_L_14 | {"image_size": 224},
    "clip-vit-large-patch14-336": CLIP_VIT_L_14 | {"image_size": 336},
}
"""Published vision encoders by the last part of their name."""


def is_original(values: dict[str, Any]) -> bool:
    """Whether a `config.json` is the original project's: a language model's configuration with `mm_*` keys."""
    return (
        values.get("model_type") in ("llava", "llava_llama") and "text_config" not in values and "vision_config" not in values
    )


def text_config_of(values: dict[str, Any]) -> Any:
    """The language model's configuration in a `config.json` of the original project."""
    if values.get("architectures") not in (None, ["LlavaLlamaForCausalLM"], ["LlamaForCausalLM"]):
        raise ValueError(
            f"This LLaVA stands on {values['architectures']!r}; only those on LLaMA (LlavaLlamaForCausalLM) are read. Take the "
            "llava-hf edition of the model, where there is one."
        )
    return CONFIG_MAPPING["llama"](
        **{k: v for k, v in values.items() if k != "model_type" and not k.startswith(_PUBLISHED_KEYS)}
    )


def composed(
    text_config: Any, vision_config: Any, settings: dict[str, Any], is_linear: bool, image_token_id: int, bias: bool = True
) -> LlavaConfig:
    """The configuration of a model from its parts.

    Args:
        text_config: the language model's.
        vision_config: the vision encoder's.
        settings: `mm_*` and `image_aspect_ratio` of the original's `config.json`.
        is_linear: the projector is one linear layer (LLaVA 1), not two (1.5).
        image_token_id: the id that an image's embeddings replace.
        bias: the projector has biases.
    """
    strategy = {"patch": "default", "cls_patch": "full"}[settings.get("mm_vision_select_feature") or "patch"]
    config = LlavaConfig(
        text_config=text_config,
        vision_config=vision_config,
        projector_hidden_act="linear" if is_linear else "gelu",
        vision_feature_select_strategy=strategy,
        vision_feature_layer=settings.get("mm_vision_select_layer") or -2,
        image_token_index=image_token_id,
        multimodal_projector_bias=bias,
    )
    config.image_seq_length = num_image_embeds(config)
    for name, default in SETTINGS.items():
        setattr(config, name, settings.get(name, default))
    return config


def num_image_embeds(config: LlavaConfig) -> int:
    """Q: embeddings that one picture costs in the prompt."""
    vision = config.vision_config
    has_cls = vision.model_type == "clip_vision_model"
    patches = (vision.image_size // vision.patch_size) ** 2
    return (
        patches
        + (has_cls and config.vision_feature_select_strategy == "full")
        - (not has_cls and config.vision_feature_select_strategy == "default")
    )


def original_values(config: LlavaConfig) -> dict[str, Any]:
    """The `config.json` that the original project reads."""
    values = config.text_config.to_dict()
    values.pop("_name_or_path", None)
    return values | {
        "model_type": "llava",
        "architectures": ["LlavaLlamaForCausalLM"],
        "mm_vision_tower": config.mm_vision_tower or "openai/clip-vit-large-patch14",
        "mm_projector_type": "linear" if config.projector_hidden_act == "linear" else "mlp2x_gelu",
        "mm_hidden_size": config.vision_config.hidden_size,
        "mm_vision_select_layer": config.vision_feature_layer,
        "mm_vision_select_feature": {"default": "patch", "full": "cls_patch"}[config.vision_feature_select_strategy],
        "mm_use_im_start_end": config.mm_use_im_start_end,
        "mm_use_im_patch_token": False,
        "mm_vision_config": config.vision_config.to_dict(),
        "image_aspect_ratio": config.image_aspect_ratio,
        "use_mm_proj": True,
    }
