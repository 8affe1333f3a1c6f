"""MiniGPT-4's configuration: EVA-CLIP-g, BLIP-2's Q-Former, a linear projection, Vicuna or LLaMA-2-Chat."""

from typing import Any

from transformers import Blip2QFormerConfig, Blip2VisionConfig, LlamaConfig, PreTrainedConfig


class MiniGPT4Config(PreTrainedConfig):
    """MiniGPT-4: vision encoder -> Q-Former -> projection -> language model.

    Args:
        text_config: the language model's, LLaMA-7B by default.
        vision_config: the vision encoder's: EVA-CLIP-g with 39 of its 40 blocks by default.
        qformer_config: the Q-Former's: BERT-base with cross-attention in every other layer by default.
        use_qformer: without it (the LLaMA-2 variant) CLS is dropped and every four neighbouring image tokens are joined.
        num_query_tokens: queries of the Q-Former.
        image_token_id: the id that an image's embeddings replace: `<0x00>`, which stands in no text.
        prompt_style: which prompt is meant when none is named: "v1", "main" or "llama2".
    """

    model_type = "minigpt4"
    sub_configs = {"text_config": LlamaConfig, "vision_config": Blip2VisionConfig, "qformer_config": Blip2QFormerConfig}

    text_config: dict | PreTrainedConfig | None = None
    vision_config: dict | PreTrainedConfig | None = None
    qformer_config: dict | PreTrainedConfig | None = None
    use_qformer: bool = True
    num_query_tokens: int = 32
    image_token_id: int = 3
    prompt_style: str = "v1"
    initializer_range: float = 0.02
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: Any):
        for name, config_class in self.sub_configs.items():
            given = getattr(self, name)
            if not isinstance(given, PreTrainedConfig):
                values = {key: value for key, value in (given or {}).items() if key != "model_type"}
                setattr(self, name, config_class(**values))
        super().__post_init__(**kwargs)
        self.tie_word_embeddings = self.text_config.tie_word_embeddings

    @property
    def num_image_embeds(self) -> int:
        """Q: embeddings that one image costs in the prompt."""
        if self.use_qformer:
            return self.num_query_tokens
        return (self.vision_config.image_size // self.vision_config.patch_size) ** 2 // 4
