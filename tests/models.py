"""Models of a few thousand parameters, made on the spot: any language model, CLIP or SigLIP, with and without a resampler."""

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
    SiglipVisionConfig,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from pipelines.visualcla import (
    VisualCLAConfig,
    VisualCLAForConditionalGeneration,
    VisualCLAProcessor,
    VisualResamplerConfig,
    add_image_tokens,
)

WORDS = [
    "a",
    "an",
    "the",
    "what",
    "is",
    "red",
    "green",
    "blue",
    "circle",
    "square",
    "left",
    "right",
    "where",
    "which",
    "picture",
    "shows",
    "two",
    "yes",
    "no",
    "below",
]
TEXT = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
TEXT |= {"num_key_value_heads": 2, "max_position_embeddings": 512, "pad_token_id": 3, "bos_token_id": 1, "eos_token_id": 2}
VISION = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
VISION |= {"image_size": 32, "patch_size": 8}


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Words, single printable characters, and VisualCLA's image tokens."""
    characters = [chr(code) for code in range(33, 127)] + ["\n"]
    vocab = {token: index for index, token in enumerate(["<unk>", "<s>", "</s>", "<pad>", *dict.fromkeys(WORDS + characters)])}
    backend = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<pad>"
    )
    add_image_tokens(tokenizer)
    return tokenizer


def make_model(text: str = "llama", vision: str = "clip", resampler: bool = True, seed: int = 0, **text_settings):
    """A random model in evaluation mode, with its processor."""
    tokenizer = make_tokenizer()
    settings = {**TEXT, "vocab_size": len(tokenizer), **text_settings}
    text_config = LlamaConfig(**settings) if text == "llama" else Qwen3Config(head_dim=16, **settings)
    vision_config = CLIPVisionConfig(**VISION) if vision == "clip" else SiglipVisionConfig(**VISION)
    image_processor = (CLIPImageProcessorPil if vision == "clip" else SiglipImageProcessorPil)(
        size={"height": 32, "width": 32}, do_center_crop=False
    )
    config = VisualCLAConfig(
        text_config=text_config,
        vision_config=vision_config,
        visual_resampler_config=VisualResamplerConfig(
            hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_query_tokens=5
        ),
        use_visual_resampler=resampler,
        image_token_id=tokenizer.convert_tokens_to_ids("<img_token>"),
        initializer_range=0.2,
    )
    torch.manual_seed(seed)
    model = VisualCLAForConditionalGeneration(config).eval()
    model.processor = VisualCLAProcessor(image_processor, tokenizer, num_image_embeds=config.num_image_embeds)
    return model
