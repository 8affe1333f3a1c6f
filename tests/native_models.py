"""Tiny random image-text-to-text models in folders as transformers publishes them: configuration, weights, processor files."""

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedTokenizerFast

TEXT = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 4096, "head_dim": 8, "initializer_range": 0.2, "vocab_size": 320,
}  # fmt: skip
CLIP = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "initializer_range": 0.2}
MROPE = {"rope_type": "default", "type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
SIDE = {"height": 28, "width": 28}
EDGE = {"shortest_edge": 28}
QWEN_SIDES = {"size": {"shortest_edge": 784, "longest_edge": 50176}, "min_pixels": 784, "max_pixels": 50176}

IMAGE = "{% for item in m['content'] %}{% if item['type'] == 'image' %}IMAGE{% else %}{{ item['text'] }}{% endif %}{% endfor %}"
CHAT = (
    "{% for m in messages %}<|turn|>{{ m['role'] }}\n" + IMAGE + "<|/turn|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}"
)


PICTURES_FIRST = (
    "{% for m in messages %}{{ m['role'].upper() + ': ' }}"
    "{% for item in m['content'] | selectattr('type', 'equalto', 'image') %}{{ 'IMAGE' }}{% endfor %}"
    "{% for item in m['content'] | selectattr('type', 'equalto', 'text') %}{% generation %}{{ item['text'] + ' ' }}{% endgeneration %}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
TEXT_OR_ITEMS = (
    "{% for m in messages %}<|turn|>{{ m['role'] }}\n{% if m['content'] is string %}{{ m['content'] | trim }}{% else %}"
    "{% for item in m['content'] %}{% if item['type'] == 'image' %}IMAGE{% else %}{{ item['text'] | trim }}{% endif %}{% endfor %}"
    "{% endif %}<|/turn|>\n{% endfor %}{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}"
)
TEMPLATES = {"llava": PICTURES_FIRST, "llava_next": PICTURES_FIRST, "gemma3": TEXT_OR_ITEMS, "mllama": TEXT_OR_ITEMS}
"""Chat templates as these families write them: all pictures of a message before its text, or texts as they are; the others take items only."""


def _llava(text="llama", **vision):
    return {"text_config": {"model_type": text, **TEXT}, "vision_config": {"model_type": "clip_vision_model", **CLIP, **vision}}


def _qwen(text, **vision):
    return {
        "text_config": {"model_type": text, **TEXT, "rope_parameters": MROPE, "rope_scaling": MROPE},
        "vision_config": {"depth": 2, "num_heads": 4, "patch_size": 14, "temporal_patch_size": 2, "spatial_merge_size": 2,
                          "initializer_range": 0.2, **vision},
    }  # fmt: skip


SIGLIP = {"model_type": "siglip_vision_model", **CLIP, "image_size": 28, "patch_size": 14}
TILE = {"image_size": 28, "patch_size": 14}
FAKE = {
    "fake_image_token": "<fake_token_around_image>",
    "global_image_token": "<global-img>",
    "end_of_utterance_token": "<end_of_utterance>",
}

FAMILIES: dict[str, dict] = {
    "llava": {
        "config": _llava(**TILE), "mark": "<image>\n", "image": {"image_processor_type": "CLIPImageProcessor", "size": EDGE, "crop_size": SIDE},
        "processor": {"processor_class": "LlavaProcessor", "patch_size": 14, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1},
    },
    "vipllava": {
        "config": {**_llava(**TILE), "vision_feature_layers": [-2, -1]}, "mark": "<image>\n",
        "image": {"image_processor_type": "CLIPImageProcessor", "size": EDGE, "crop_size": SIDE},
        "processor": {"processor_class": "LlavaProcessor", "patch_size": 14, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1},
    },
    "llava_next": {
        "config": {**_llava(**TILE), "image_grid_pinpoints": [[28, 56], [56, 28], [56, 56]]}, "mark": "<image>\n",
        "image": {"image_processor_type": "LlavaNextImageProcessor", "size": EDGE, "crop_size": SIDE, "image_grid_pinpoints": [[28, 56], [56, 28], [56, 56]]},
        "processor": {"processor_class": "LlavaNextProcessor", "patch_size": 14, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1},
    },
    "llava_onevision": {
        "config": {"text_config": {"model_type": "qwen2", **TEXT}, "vision_config": SIGLIP, "image_grid_pinpoints": [[28, 56], [56, 28], [56, 56]], "vision_feature_select_strategy": "full"},
        "mark": "<image>\n",
        "image": {"image_processor_type": "LlavaOnevisionImageProcessor", "size": SIDE, "image_grid_pinpoints": [[28, 56], [56, 28], [56, 56]]},
        "processor": {"processor_class": "LlavaOnevisionProcessor", "num_image_tokens": 4, "vision_feature_select_strategy": "full"},
    },
    "qwen2_vl": {
        "config": _qwen("qwen2_vl_text", embed_dim=32, hidden_size=32, mlp_ratio=2), "mark": "<|vision_start|><|image_pad|><|vision_end|>",
        "image": {"image_processor_type": "Qwen2VLImageProcessor", **QWEN_SIDES}, "processor": {"processor_class": "Qwen2VLProcessor"},
    },
    "qwen2_5_vl": {
        "config": _qwen("qwen2_5_vl_text", hidden_size=32, out_hidden_size=32, intermediate_size=48, fullatt_block_indexes=[1], window_size=56),
        "mark": "<|vision_start|><|image_pad|><|vision_end|>",
        "image": {"image_processor_type": "Qwen2VLImageProcessor", **QWEN_SIDES}, "processor": {"processor_class": "Qwen2_5_VLProcessor"},
    },
    "qwen3_vl": {
        "config": _qwen("qwen3_vl_text", hidden_size=32, out_hidden_size=32, intermediate_size=48, deepstack_visual_indexes=[0], num_position_embeddings=64),
        "mark": "<|vision_start|><|image_pad|><|vision_end|>",
        "image": {"image_processor_type": "Qwen2VLImageProcessor", **QWEN_SIDES}, "processor": {"processor_class": "Qwen3VLProcessor"},
    },
    "gemma3": {
        "config": {"text_config": {"model_type": "gemma3_text", **TEXT, "sliding_window": 64, "query_pre_attn_scalar": 8, "tie_word_embeddings": False}, "tie_word_embeddings": False, "vision_config": {**SIGLIP, "image_size": 56}, "mm_tokens_per_image": 4,},
        "mark": "<start_of_image>", "image": {"image_processor_type": "Gemma3ImageProcessor", "size": {"height": 56, "width": 56}, "do_pan_and_scan": None},
        "processor": {"processor_class": "Gemma3Processor", "image_seq_length": 4},
        "tokens": {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"},
    },
    "idefics3": {
        "config": {"text_config": {"model_type": "llama", **TEXT}, "vision_config": {"model_type": "idefics3_vision", **CLIP, **TILE}, "scale_factor": 2},
        "mark": "<image>", "tokens": FAKE,
        "image": {"image_processor_type": "Idefics3ImageProcessor", "size": {"longest_edge": 56}, "max_image_size": {"longest_edge": 28}},
        "processor": {"processor_class": "Idefics3Processor", "image_seq_len": 1},
    },
    "smolvlm": {
        "config": {"text_config": {"model_type": "llama", **TEXT}, "vision_config": {"model_type": "smolvlm_vision", **CLIP, **TILE}, "scale_factor": 2},
        "mark": "<image>", "tokens": FAKE,
        "image": {"image_processor_type": "SmolVLMImageProcessor", "size": {"longest_edge": 56}, "max_image_size": {"longest_edge": 28}},
        "processor": {"processor_class": "SmolVLMProcessor", "image_seq_len": 1},
    },
    "internvl": {
        "config": {"text_config": {"model_type": "qwen2", **TEXT}, "vision_config": {"model_type": "internvl_vision", **CLIP, "image_size": [28, 28], "patch_size": [14, 14]}, "image_seq_length": 1, "downsample_ratio": 0.5},
        "mark": "<IMG_CONTEXT>\n", "tokens": {"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>", "video_token": "<video>"},
        "image": {"image_processor_type": "GotOcr2ImageProcessor", "size": SIDE, "crop_to_patches": True, "max_patches": 4},
        "processor": {"processor_class": "InternVLProcessor", "image_seq_length": 1},
    },
    "mistral3": {
        "config": {"text_config": {"model_type": "mistral", **TEXT}, "vision_config": {"model_type": "pixtral", **CLIP, "image_size": 112, "patch_size": 14}, "spatial_merge_size": 2},
        "mark": "[IMG]", "image": {"image_processor_type": "PixtralImageProcessor", "size": {"longest_edge": 112}, "patch_size": 14},
        "processor": {"processor_class": "PixtralProcessor", "patch_size": 14, "spatial_merge_size": 2, "image_token": "[IMG]", "image_break_token": "[IMG_BREAK]", "image_end_token": "[IMG_END]"},
    },
    "aya_vision": {
        "config": {"text_config": {"model_type": "cohere2", **TEXT, "sliding_window": 64}, "vision_config": SIGLIP, "downsample_factor": 2, "adapter_intermediate_size": 32 * 4},
        "mark": "<image>", "image": {"image_processor_type": "GotOcr2ImageProcessor", "size": SIDE, "crop_to_patches": True, "max_patches": 4},
        "processor": {"processor_class": "AyaVisionProcessor", "patch_size": 14, "img_size": 28, "image_token": "<image>", "downsample_factor": 2,
                      "start_of_img_token": "<|START_OF_IMG|>", "end_of_img_token": "<|END_OF_IMG|>", "img_patch_token": "<|IMG_PATCH|>"},
    },
    "mllama": {
        "config": {"text_config": {"model_type": "mllama_text_model", **TEXT, "num_hidden_layers": 3, "cross_attention_layers": [1]},
                   "vision_config": {"model_type": "mllama_vision_model", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_global_layers": 1, "attention_heads": 4,
                                     "image_size": 28, "patch_size": 14, "vision_output_dim": 64, "intermediate_layers_indices": [0], "max_num_tiles": 4, "initializer_range": 0.2,
                                     "supported_aspect_ratios": [[1, 1], [1, 2], [1, 3], [1, 4], [2, 1], [2, 2], [3, 1], [4, 1]]}},
        "mark": "<|image|>", "image": {"image_processor_type": "MllamaImageProcessor", "size": SIDE, "max_image_tiles": 4},
        "processor": {"processor_class": "MllamaProcessor"},
    },
    "glm4v": {
        "config": _qwen("glm4v_text", hidden_size=32, out_hidden_size=32, intermediate_size=48, image_size=112),
        "mark": "<|begin_of_image|><|image|><|end_of_image|>",
        "image": {"image_processor_type": "Glm4vImageProcessor", "size": {"shortest_edge": 1568, "longest_edge": 100352}}, "processor": {"processor_class": "Glm4vProcessor"},
    },
}  # fmt: skip
"""`model_type` to its sizes, the files of its processor, and what its chat template writes for a picture."""


def _like(family: str, text: dict | None = None, vision: dict | None = None, **changed) -> dict:
    """The sizes and files of a family's next of kin."""
    spec = FAMILIES[family]
    config = {
        **spec["config"],
        "text_config": {**spec["config"]["text_config"], **(text or {})},
        "vision_config": {**spec["config"]["vision_config"], **(vision or {})},
    }
    return {**spec, "config": config, "like": family, **changed}


EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
LINEAR = {
    "layer_types": ["linear_attention", "full_attention"], "linear_num_key_heads": 2, "linear_num_value_heads": 2, "linear_key_head_dim": 8,
    "linear_value_head_dim": 8, "rope_parameters": {**MROPE, "mrope_interleaved": True, "partial_rotary_factor": 1.0},
}  # fmt: skip
KIN: dict[str, dict] = {
    "qwen3_vl_moe": _like("qwen3_vl", {"model_type": "qwen3_vl_moe_text", **EXPERTS}),
    "qwen3_5": _like("qwen3_vl", {"model_type": "qwen3_5_text", **LINEAR}, {"deepstack_visual_indexes": []}),
    "qwen3_5_moe": _like(
        "qwen3_vl", {"model_type": "qwen3_5_moe_text", **LINEAR, **EXPERTS, "shared_expert_intermediate_size": 16}, {"deepstack_visual_indexes": []}
    ),
    "glm46v": _like(
        "glm4v", image={**FAMILIES["glm4v"]["image"], "image_processor_type": "Glm46VImageProcessor"}, processor={"processor_class": "Glm46VProcessor"}
    ),
    "glm4v_moe": _like("glm4v", {
        "model_type": "glm4v_moe_text", "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "n_group": 1, "topk_group": 1,
        "first_k_dense_replace": 1, "rope_parameters": {**MROPE, "partial_rotary_factor": 1.0}, "partial_rotary_factor": 1.0,
    }),
    "llava_next_video": _like("llava_next", processor={**FAMILIES["llava_next"]["processor"], "processor_class": "LlavaNextVideoProcessor"}),
    "lighton_ocr": _like(
        "mistral3", {"model_type": "qwen3"}, processor={"processor_class": "LightOnOcrProcessor", "patch_size": 14, "spatial_merge_size": 2},
        tokens={"image_break_token": "[IMG_BREAK]", "image_end_token": "[IMG_END]"},
    ),
    "video_llama_3": {
        "config": {"text_config": {"model_type": "qwen2", **TEXT}, "vision_config": {"model_type": "video_llama_3_vision", **CLIP, "patch_size": 14}},
        "mark": FAMILIES["qwen2_vl"]["mark"], "like": "qwen2_vl",
        "image": {"image_processor_type": "VideoLlama3ImageProcessor", **QWEN_SIDES, "merge_size": 1}, "processor": {"processor_class": "VideoLlama3Processor"},
    },
    "deepseek_vl": {
        "config": {"text_config": {"model_type": "llama", **TEXT}, "vision_config": SIGLIP}, "mark": "<image>\n", "like": "llava",
        "image": {"image_processor_type": "DeepseekVLImageProcessor", "size": SIDE}, "processor": {"processor_class": "DeepseekVLProcessor", "num_image_tokens": 4},
    },
}  # fmt: skip
"""Families made of the parts of another: tried once over turns (`test_native_table.py`)."""

SPECIAL = [
    "<|pad|>", "<|bos|>", "<|eos|>", "<|turn|>", "<|/turn|>", "<image>", "<video>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>",
    "<|video_pad|>", "<start_of_image>", "<end_of_image>", "<image_soft_token>", "<fake_token_around_image>", "<global-img>",
    "<end_of_utterance>", "<img>", "</img>", "<IMG_CONTEXT>", "[IMG]", "[IMG_BREAK]", "[IMG_END]", "<|START_OF_IMG|>", "<|END_OF_IMG|>",
    "<|IMG_PATCH|>", "TILE_GLOBAL", "<|image|>", "<|python_tag|>", "<|begin_of_image|>", "<|end_of_image|>", "<|begin_of_video|>",
    "<|end_of_video|>", "<|video|>", *(f"<row_{row}_col_{column}>" for row in (1, 2) for column in (1, 2)),
]  # fmt: skip
IMAGE_TOKENS = {
    "gemma3": "<image_soft_token>", "internvl": "<IMG_CONTEXT>", "mistral3": "[IMG]", "aya_vision": "<|IMG_PATCH|>",
    **dict.fromkeys(("mllama", "glm4v"), "<|image|>"), **dict.fromkeys(("qwen2_vl", "qwen2_5_vl", "qwen3_vl"), "<|image_pad|>"),
}  # fmt: skip


def image_token(family: str) -> str:
    return IMAGE_TOKENS.get(KIN.get(family, {}).get("like", family), "<image>")


def tokenizer(family: str) -> PreTrainedTokenizerFast:
    """Bytes, and every special token of the families."""
    vocabulary = {character: index for index, character in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    bare = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bare.decoder = decoders.ByteLevel()
    spec = KIN.get(family) or FAMILIES[family]
    image = {"image_token": image_token(family), **spec.get("tokens", {})}
    made = PreTrainedTokenizerFast(
        tokenizer_object=bare, pad_token="<|pad|>", bos_token="<|bos|>", eos_token="<|eos|>", extra_special_tokens=image, padding_side="left"
    )  # fmt: skip
    made.add_special_tokens({"additional_special_tokens": SPECIAL})
    begin = "{{ bos_token }}" if family == "mllama" else ""
    made.chat_template = begin + TEMPLATES.get(spec.get("like", family), CHAT).replace("IMAGE", spec["mark"])
    return made


def write(family: str, folder: Path, seed: int = 0, wide: bool = False) -> Path:
    """Write a tiny model of a family; a wide one has layers that 4 bits can be made of."""
    spec = KIN.get(family) or FAMILIES[family]
    tokens = tokenizer(family)
    tokens.save_pretrained(folder)
    ids = tokens.convert_tokens_to_ids
    image_id = ids(image_token(family))
    special = {"pad_token_id": ids("<|pad|>"), "bos_token_id": ids("<|bos|>"), "eos_token_id": ids("<|eos|>")}
    names = {"vision_start_token_id": ids("<|vision_start|>"), "vision_end_token_id": ids("<|vision_end|>"), "video_token_id": ids("<|video_pad|>"),
             "image_start_token_id": ids("<|begin_of_image|>"), "image_end_token_id": ids("<|end_of_image|>")}  # fmt: skip
    config = {
        **spec["config"],
        "model_type": family,
        "image_token_id": image_id,
        "image_token_index": image_id,
        **names,
        **special,
    }
    width = {"hidden_size": 64, "intermediate_size": 64, "head_dim": 16} if wide else {}
    config["text_config"] = {**config["text_config"], **special, **width}
    if wide and "out_hidden_size" in config["vision_config"]:
        rope = {**MROPE, "mrope_section": [2, 2, 4]}
        config["text_config"] |= {"rope_parameters": rope, "rope_scaling": rope}
        config["vision_config"] = {**config["vision_config"], "out_hidden_size": 64}
    (folder / "config.json").write_text(json.dumps(config))
    torch.manual_seed(seed)
    model = AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(folder))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.3)
            if "gate" in name and parameter.numel() == 1:  # Mllama's are closed at first
                parameter.fill_(1.0)
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(spec["image"]))
    (folder / "processor_config.json").write_text(json.dumps(spec["processor"]))
    return folder
