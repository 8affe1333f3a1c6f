"""Tiny random models of every other image-text-to-text family, from transformers' own configurations: sizes shrunk by their names.

A row of `ROWS` says what a family has of its own: what its chat template writes for a picture, its processor's settings and tokens,
and the sizes that the rule does not get right.
"""

import json
import re
from pathlib import Path
from typing import Any

import torch
from native_models import CHAT, MROPE, QWEN_SIDES, SIDE, TILE
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import CONFIG_MAPPING, AutoModelForImageTextToText, PreTrainedTokenizerFast
from transformers.models.auto.feature_extraction_auto import FEATURE_EXTRACTOR_MAPPING_NAMES
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

SIZES = {
    **dict.fromkeys(("hidden_size", "embed_dim", "out_hidden_size", "projector_hidden_size", "text_hidden_size", "base_channels"), 32),
    **dict.fromkeys(("intermediate_size", "mlp_dim", "ffn_hidden_size"), 48),
    **dict.fromkeys(("num_hidden_layers", "depth", "num_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "num_heads", "attention_heads", "num_experts", "n_routed_experts", "num_local_experts"), 4),
    **dict.fromkeys(("num_key_value_heads", "num_experts_per_tok"), 2),
    **dict.fromkeys(("n_group", "topk_group", "first_k_dense_replace"), 1),
    **dict.fromkeys(("head_dim", "global_head_dim", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim"), 8),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size", "kv_lora_rank", "q_lora_rank", "qk_head_dim"), 16),
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input"), 512), "hidden_size_per_layer_input": 8, "initializer_range": 0.2,
    **dict.fromkeys(("max_position_embeddings", "position_embedding_size"), 4096),
}  # fmt: skip
"""What a number of this name becomes in every part of a configuration."""

VISION = ("<|vision_start|><|image_pad|><|vision_end|>", "<|image_pad|>")
GLM = ("<|begin_of_image|><|image|><|end_of_image|>", "<|image|>")
GLM_TOKENS = {
    "tokens": {"video_token": "<|video|>"}, "special": ["<|begin_of_video|>", "<|end_of_video|>"],
    "ids": {"image_start": "<|begin_of_image|>", "image_end": "<|end_of_image|>"},
}  # fmt: skip
GEMMA = {
    "boi_token": "<|image>",
    "eoi_token": "<image|>",
    "audio_token": "<|audio|>",
    "boa_token": "<|audio>",
    "eoa_token": "<audio|>",
}
SLICES = {
    "video_token": "<|video_pad|>", "image_start_token": "<image>", "image_end_token": "</image>", "slice_start_token": "<slice>", "slice_end_token": "</slice>",
    "image_id_start_token": "<image_id>", "image_id_end_token": "</image_id>",
}  # fmt: skip
TILES = [f"{row}_col_{column}" for row in range(1, 5) for column in range(1, 5)]
PINPOINTS = [[28, 56], [56, 28], [56, 56]]
SIDES_16 = {"size": {"shortest_edge": 1024, "longest_edge": 65536}, "min_pixels": 1024, "max_pixels": 65536, "patch_size": 16}


def _row(mark: str, token: str | None = None, **given: Any) -> dict[str, Any]:
    """A family: what its template writes for a picture, the token in it that stands for the picture, and what is its own.

    Args:
        mark: what the chat template writes.
        token: the mark itself if None.
        given: `image`, `video`, `processor`: settings of the processor's parts; `tokens`: special tokens with the names by which the
            tokenizer knows them, and `special` without; `ids`: token ids that the configuration calls otherwise; `parts`: given to the
            configuration's class before sizes are shrunk; `config`: sizes of its own; `dtype` of the weights; `keeps`: whose weights are its class's; `needs`: packages;
            `template`: instead of `CHAT`; `alone`: its processor takes texts alone, and puts a BOS before them; `asked` of it; `since`: a version of transformers;
            `is_task`: its processor makes a prompt of a bare text.
    """
    return {"mark": mark, "token": token or mark.strip(), **given}


ROWS: dict[str, dict[str, Any]] = {
    "aria": _row("<image>", processor={"size_conversion": {"980": 4}}, config={"projector_patch_to_query_dict": {49: 4}, "vision_config": {"image_size": 980, "patch_size": 140}, "text_config": {"moe_num_experts": 4, "moe_topk": 2}}),
    "cohere2_vision": _row("<image>", image={"size": SIDE, "patch_size": 2, "max_patches": 4}, tokens={"boi_token": "<boi>", "eoi_token": "<eoi>", "img_line_break_token": "<brk>"}, config={"vision_config": {"image_size": 28, "patch_size": 7}}),
    "cohere_compass": _row("<|VISION_START|><|IMAGE_PAD|><|VISION_END|>", "<|IMAGE_PAD|>", image=SIDES_16, special=["<|VIDEO_PAD|>"], ids={"vision_start": "<|VISION_START|>", "vision_end": "<|VISION_END|>"}, config={"text_config": {"layer_types": ["sliding_attention", "full_attention"], "rope_parameters": {"sliding_attention": MROPE, "full_attention": MROPE}, "num_key_value_heads": 2}, "vision_config": {"deepstack_visual_indexes": [0], "num_position_embeddings": 64}}),
    "cosmos3_edge": _row(*VISION, image=SIDES_16, asked={"return_mm_token_type_ids": True}),
    "cosmos3_omni": _row(*VISION, image=SIDES_16, processor={"processor_class": "Qwen3VLProcessor"}),
    "deepseek_ocr2": _row("<image>\n", image={"size": {"height": 192, "width": 192}, "tile_size": 192, "max_patches": 2}, processor={"patch_size": 4}, config={"text_config": {"num_experts_per_tok": 2, "n_group": 1, "topk_group": 1, "mlp_layer_types": ["dense", "sparse"]}, "vision_config": {"sam_config": {"image_size": 192, "patch_size": 4, "output_channels": 32, "global_attn_indexes": [1], "window_size": 6, "downsample_channels": [32, 32]}, "encoder_config": {"num_key_value_heads": 2}}}),
    "deepseek_vl_hybrid": _row("<image>\n", image={"size": SIDE, "high_res_size": {"height": 64, "width": 64}}, processor={"num_image_tokens": 4}, config={"vision_config": TILE, "high_res_vision_config": {"image_size": 64, "patch_size": 16, "global_attn_indexes": [1], "output_channels": 16, "window_size": 2}}),
    "dots3_note": _row("<|img|><|imgpad|><|endofimg|>", "<|imgpad|>", image={**QWEN_SIDES, "temporal_patch_size": 1}, special=["<|audio_comp_pad|>"], config={"vision_config": {"adapter_in_dim": 32, "adapter_out_dim": 32, "head_dim": 8}, "audio_config": {"adapter_input_size": 32, "adapter_out_dim": 32, "downsample_hidden_size": 32}}),
    "emu3": _row("<image>", image={"min_pixels": 1024, "max_pixels": 4096, "size": {"shortest_edge": 1024, "longest_edge": 4096}}, tokens={"boi_token": "<boi>", "eoi_token": "<eoi>", "image_wrapper_token": "<wrap>", "eof_token": "<eof>"}, config=lambda ids: {"vocabulary_map": {"<image>": ids["image"], "<|extra_200|>": 301, **{f"<|visual token {code:06d}|>": 310 + code for code in range(64)}}, "vq_config": {"codebook_size": 64, "base_channels": 32, "hidden_size": 128}}, alone=True, since="5.23"),
    "ernie4_5_vl_moe": _row("<|IMAGE_START|><|IMAGE_PLACEHOLDER|><|IMAGE_END|>", "<|IMAGE_PLACEHOLDER|>", image=QWEN_SIDES, tokens={"image_start_token": "<|IMAGE_START|>", "image_end_token": "<|IMAGE_END|>", "video_token": "<|VIDEO|>", "video_start_token": "<|VIDEO_START|>", "video_end_token": "<|VIDEO_END|>"}, config={"text_config": {"rope_parameters": MROPE, "moe_intermediate_size": [16, 16], "moe_num_experts": 4, "moe_k": 2}}, video={"draw_on_frames": False}),
    "exaone4_5": _row(*VISION, image=QWEN_SIDES),
    "fast_vlm": _row("<image>\n", image={"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 128}, "crop_size": {"height": 128, "width": 128}}, processor={"processor_class": "LlavaProcessor", "patch_size": 32, "vision_feature_select_strategy": "full", "num_additional_image_tokens": 0}, needs=["timm"], keeps="model.vision_tower", config={"image_seq_length": 16, "vision_config": {"hidden_size": 1024, "architecture": "fastvit_mci0", "do_pooling": True, "global_pool": "avg", "model_args": {"inference_mode": True}}}),
    "gemma3n": _row("<image_soft_token>", image={"size": {"height": 256, "width": 256}, "image_processor_type": "SiglipImageProcessor"}, tokens=GEMMA, needs=["timm"], keeps="model.vision_tower", config={"text_config": {"intermediate_size": 48, "layer_types": ["sliding_attention", "full_attention"], "laurel_rank": 8, "num_kv_shared_layers": 0, "activation_sparsity_pattern": [0.0, 0.0]}, "vision_config": {"hidden_size": 2048, "vocab_size": 8, "vocab_offset": 512}, "audio_config": {"vocab_size": 8, "vocab_offset": 520, "conf_num_attention_heads": 4, "conf_num_hidden_layers": 1}}),
    "gemma4": _row("<|image|>", image={"max_soft_tokens": 70}, tokens=GEMMA, parts={"vision_config": {}}),
    "gemma4_unified": _row("<|image|>", image={"max_soft_tokens": 70}, tokens=GEMMA, parts={"vision_config": {}}, config={"vision_config": {"mm_embed_dim": 32, "output_proj_dims": 32, "mm_posemb_size": 64}}),
    "glm5_next": _row(*GLM, image={"min_image_tokens": 1, "max_image_tokens": 64}, **GLM_TOKENS, config={"text_config": {"qk_rope_head_dim": 0, "head_dim": 0, "layer_types": ["linear_attention", "indexed_attention"], "index_head_dim": 8, "index_n_heads": 2, "index_topk": 2048, "linear_head_dim": 8, "linear_num_heads": 4}}),
    "glm_ocr": _row(*GLM, image={"image_processor_type": "Glm46VImageProcessor", "size": {"shortest_edge": 1568, "longest_edge": 100352}}, processor={"processor_class": "Glm46VProcessor"}, **GLM_TOKENS, config={"text_config": {"rope_parameters": MROPE}}),
    "glmga": _row(*GLM, image={"size": {"shortest_edge": 1568, "longest_edge": 100352}}, processor={"processor_class": "Glm46VProcessor"}, **GLM_TOKENS, config={"text_config": {"rope_parameters": MROPE}}),
    "granite4_vision": _row("<image>\n", image={"size": SIDE, "image_grid_pinpoints": PINPOINTS, "crop_size": SIDE}, processor={"patch_size": 7, "vision_feature_select_strategy": "full", "downsample_rate": "1/2"}, parts={"vision_config": {"model_type": "siglip_vision_model"}}, config={"image_grid_pinpoints": PINPOINTS, "vision_feature_select_strategy": "full", "downsample_rate": "1/2", "deepstack_layer_map": [[0, 0]], "spatial_target_layers": [0, 1, 0, 1], "vision_config": {"image_size": 28, "patch_size": 7, "hidden_size": 64}}),
    "granite_docling": _row("<image>", image={"size": {"height": 64, "width": 64}, "max_patches": 4}, processor={"image_seq_len": 1}, special=["<fake_token_around_image>", "<global-img>", *(f"<row_{tile}>" for tile in TILES)], config={"vision_config": {"image_size": 64}}),
    "hunyuan_vl": _row("<is><image><ie>", "<image>", image=SIDES_16, tokens={"image_start_token": "<is>", "image_end_token": "<ie>"}, config={"text_config": {"head_dim": 8, "num_key_value_heads": 2, "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 1, 1]}}}),
    "hyperclovax_vision_v2": _row(*VISION, image=QWEN_SIDES),
    "inkling2": _row("<|content_image|><|img|>", "<|img|>"),
    "inkling_mm_model": _row("<|content_image|><|img|>", "<|img|>", image={"size": {"height": 2, "width": 2}}, tokens={"audio_token": "<aud>"}, special=["<|content_audio_input|>"], config={"vision_config": {"patch_size": 2}, "text_config": {"max_position_embeddings": 131072, "swa_num_attention_heads": 4, "swa_num_key_value_heads": 2, "swa_head_dim": 8, "layer_types": ["hybrid_sliding", "hybrid"], "rel_extent": 16, "d_rel": 8}}),
    "janus": _row("<image_placeholder>\n", image={"size": SIDE}, processor={"num_image_tokens": 4}, tokens={"boi_token": "<boi>", "eoi_token": "<eoi>"}, config={"vision_config": {"image_size": 28, "patch_size": 14, "projection_dim": 32}, "vq_config": {"num_embeddings": 64, "base_channels": 32, "num_res_blocks": 1, "channel_multiplier": [1, 2]}}, since="5.23"),
    "kimi_k25": _row("<|media_begin|><|media_pad|><|media_end|>", "<|media_pad|>", image={"max_patches": 64}, config={"projection_hidden_size": 32}),
    "lfm2_vl": _row("<image>", image={"tile_size": 64, "min_image_tokens": 1, "max_image_tokens": 4, "max_tiles": 4, "size": {"height": 64, "width": 64}}, special=["<|image_start|>", "<|image_end|>", "<|img_thumbnail|>", *(f"<|img_row_{tile}|>" for tile in TILES)]),
    "lfm3_vl": _row(*VISION, image=SIDES_16, config={"text_config": {"layer_types": ["conv", "full_attention"]}}),
    "llama4": _row("<|image|>", image={"size": SIDE, "max_patches": 4}, processor={"patch_size": 7}, special=["<|image_start|>", "<|image_end|>", "<|patch|>", "<|tile_x_separator|>", "<|tile_y_separator|>"], ids={"image": "<|patch|>"}, config={"vision_config": {"image_size": 28, "patch_size": 7, "intermediate_size": 128, "projector_input_dim": 32, "projector_output_dim": 32, "vision_output_dim": 32}, "text_config": {"intermediate_size_mlp": 48}}, dtype=torch.bfloat16),
    "minicpm_ocr": _row("<|image_pad|>", image={"scale_resolution": 56}, tokens=SLICES, parts={"image_token_id": 1, "video_token_id": 1}, config={"vision_config": {"patch_size": 14}, "text_config": {"layer_types": ["linear_attention", "full_attention"], "linear_num_key_heads": 2, "linear_num_value_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8}, "insert_layer_id": 0}),
    "minicpmv4_6": _row("<|image_pad|>", image={"scale_resolution": 56}, tokens=SLICES, parts={"image_token_id": 1, "video_token_id": 1}, config={"vision_config": {"patch_size": 14}, "text_config": {"layer_types": ["linear_attention", "full_attention"], "linear_num_key_heads": 2, "linear_num_value_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8}, "insert_layer_id": 0}),
    "minicpmv4_7": _row("<|image_pad|>", image={"scale_resolution": 56}, tokens=SLICES, parts={"image_token_id": 1, "video_token_id": 1}, config={"vision_config": {"patch_size": 14}, "text_config": {"layer_types": ["linear_attention", "full_attention"], "linear_num_key_heads": 2, "linear_num_value_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8}, "insert_layer_id": 0}),
    "minimax_m3_vl": _row("]<]image[>[", image=QWEN_SIDES, special=["]<]video[>[", "]<]start of image[>[", "]<]end of image[>["]),
    "mistral_large4": _row("[IMG]", image={"size": {"longest_edge": 112}, "patch_size": 14}, processor={"patch_size": 14, "spatial_merge_size": 2, "image_token": "[IMG]", "image_break_token": "[IMG_BREAK]", "image_end_token": "[IMG_END]"}, special=["[IMG_BREAK]", "[IMG_END]"], config={"vision_config": {"image_size": 112, "patch_size": 14}}),
    "molmo2": _row("<|image|>", image={"size": SIDE, "max_crops": 2, "overlap_margins": [0, 0], "patch_size": 14}, special=["<im_patch>", "<im_col>", "<im_start>", "<low_res_im_start>", "<frame_start>", "<im_end>", "<frame_end>", "<im_low>"], ids={"image_patch": "<im_patch>", "image": "<|image|>"}, config={"adapter_config": {"vision_feature_layer": [1, 0]}, "vision_config": {"num_position_embeddings": 4, "image_size": [28, 28]}}, alone=True),
    "muse_glimmer": _row("<|patch|>", image={"max_image_tokens": 16}, special=["<|image_start|>", "<|image_end|>", "<|video|>"], config={"out_hidden_size": 128}),
    "muse_spark": _row("<|patch|>", image={"max_image_tokens": 16}, special=["<|image_start|>", "<|image_end|>", "<|video|>", "<|audio|>"], config={"audio_config": {"num_hidden_layers": 4, "hidden_sizes": [8, 8, 8, 8]}, "out_hidden_size": 128, "text_config": {"moe_hidden_size": 32}}),
    "nemotron_h_omni": _row("<image>", image={"min_num_patches": 4, "max_num_patches": 64, "feature_extractor_type": "ParakeetFeatureExtractor"}, special=["<img>", "</img>", "<so_embedding>", "<so_start>", "<so_end>"], parts={"image_token_id": 1}, config={"vision_config": {"video_temporal_patch_size": 2}, "vision_hidden_size": 32}),
    "ovis2": _row("<image>", image={"size": SIDE, "max_patches": 4}, processor={"image_seq_length": 4}, special=["<IMG_START>", "<IMG_ATOM>", "<IMG_GRID>", "<IMG_COL>", "<IMG_ROW>", "<IMG_END>"], ids={"image": "<IMG_ATOM>"}, config={"vision_config": TILE}),
    "paddleocr_vl": _row("<|IMAGE_START|><|IMAGE_PLACEHOLDER|><|IMAGE_END|>", "<|IMAGE_PLACEHOLDER|>", image=QWEN_SIDES, ids={"vision_start": "<|IMAGE_START|>", "vision_end": "<|IMAGE_END|>"}, config={"text_config": {"rope_parameters": MROPE}}),
    "paligemma": _row("<image>", image={"size": SIDE, "image_seq_length": 4}, config={"vision_config": {"image_size": 28, "patch_size": 14, "projection_dim": 32}, "projection_dim": 32}, template="", is_task=True),
    "qianfan_ocr": _row("<image>", image={"size": SIDE, "crop_to_patches": True, "max_patches": 4}, processor={"image_seq_length": 1}, tokens={"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>"}, ids={"image": "<IMG_CONTEXT>"}, config={"vision_config": {"image_size": [28, 28], "patch_size": [14, 14]}, "image_seq_length": 1}),
    "qwen4_exp": _row(*VISION, image=SIDES_16, config={"text_config": {"indexer_n_heads": 2, "indexer_kv_heads": 1, "indexer_head_dim": 8, "indexer_budget": 64, "indexer_compress_ratio": 4, "layer_types": ["linear_attention", "full_attention"], "linear_num_key_heads": 2, "linear_num_value_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8}}),
    "step3p7": _row("<im_patch>", image={"size": {"height": 56, "width": 56}}, special=["<patch_start>", "<patch_end>", "<patch_newline>", "<im_start>", "<im_end>"], config={"text_config": {"sliding_window": 64}}),
    "unlimited_ocr": _row("<image>", image={"size": {"height": 128, "width": 128}, "tile_size": 64}, config={"vision_config": {"sam_config": {"image_size": 64, "output_channels": 32, "global_attn_indexes": [1], "window_size": 2, "downsample_channels": [32, 32]}}}),
    "video_llava": _row("<image>\n", image={"size": {"shortest_edge": 28}, "crop_size": SIDE}, tokens={"video_token": "<video>"}, config={"vision_config": TILE}, since="5.23"),
}  # fmt: skip


def shrunk(values: dict[str, Any], own: dict[str, Any], ids: dict[str, int]) -> dict[str, Any]:
    """The sizes and ids of a configuration made small; what is left out is the class's own choice, or follows from the sizes.

    Args:
        values: of the full configuration.
        own: what the family's row wants instead.
        ids: of special tokens, by the names that configurations give them.
    """
    small = {}
    for name, value in values.items():
        token = re.fullmatch(r"(\w+?)_(token_)?(id|index)", str(name))
        if isinstance(value, dict) and name.endswith("_config"):
            small[name] = shrunk(value, own.get(name) or {}, ids)
        elif isinstance(value, dict) and "mrope_section" in value:
            small[name] = {**value, "mrope_section": [1, 1, 2]}
        elif token and isinstance(value, int | list):
            small[name] = ids.get(token[1], ids["none"])
        elif name == "model_type" or (name in SIZES and isinstance(value, int | float)):
            small[name] = SIZES.get(name, value)
    if small.get("num_key_value_heads") and values["num_key_value_heads"] == values.get("num_attention_heads"):
        small["num_key_value_heads"] = small["num_attention_heads"]
    return small | {name: value for name, value in own.items() if not name.endswith("_config")}


def tokenizer(name: str) -> PreTrainedTokenizerFast:
    """Bytes, and the special tokens that the family's row names."""
    row = ROWS[name]
    vocabulary = {character: index for index, character in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    bare = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bare.decoder = decoders.ByteLevel()
    own = {"image_token": row["token"], **row.get("tokens", {})}
    made = PreTrainedTokenizerFast(
        tokenizer_object=bare, pad_token="<|pad|>", bos_token="<|bos|>", eos_token="<|eos|>", extra_special_tokens=own, padding_side="left"
    )  # fmt: skip
    special = ["<|turn|>", "<|/turn|>", "<|none|>", *re.findall(r"<[^<>]+>", row["mark"]), *row.get("special", ())]
    made.add_special_tokens({"additional_special_tokens": list(dict.fromkeys(special))})
    made.chat_template = row.get("template", CHAT).replace("IMAGE", row["mark"]) or None
    return made


def write(name: str, folder: Path, seed: int = 0) -> Path:
    """Write a tiny model of a family: configuration, weights, tokenizer and the processor's files."""
    row = ROWS[name]
    tokens = tokenizer(name)
    tokens.save_pretrained(folder)
    named = {"image": row["token"], "none": "<|none|>", **{each: f"<|{each}|>" for each in ("pad", "bos", "eos")}}
    named |= {each.removesuffix("_token"): token for each, token in row.get("tokens", {}).items()} | row.get("ids", {})
    special = {each: tokens.convert_tokens_to_ids(token) for each, token in named.items()}
    kind = CONFIG_MAPPING[name]
    mine = row.get("config", {})
    mine = mine(special) if callable(mine) else mine
    config = kind.from_dict(shrunk(kind(**row.get("parts", {})).to_dict(), mine, special))
    torch.manual_seed(seed)
    model = AutoModelForImageTextToText.from_config(config)
    with torch.no_grad():
        for where, parameter in model.named_parameters():
            if parameter.ndim > 1 and not where.startswith(row.get("keeps", "-")):
                parameter.normal_(0, 0.3)
    for each in ("pad", "bos", "eos"):
        setattr(model.generation_config, f"{each}_token_id", special[each])
    model.to(row.get("dtype", torch.float32)).save_pretrained(folder)
    kinds = IMAGE_PROCESSOR_MAPPING_NAMES.get(name) or {}
    image = {"image_processor_type": kinds.get("torchvision") or kinds.get("pil"), **row.get("image", {})}
    if name in FEATURE_EXTRACTOR_MAPPING_NAMES:
        image["feature_extractor_type"] = FEATURE_EXTRACTOR_MAPPING_NAMES[name]
    processor = {"processor_class": PROCESSOR_MAPPING_NAMES.get(name), **row.get("processor", {})}
    (folder / "preprocessor_config.json").write_text(json.dumps(image))
    (folder / "processor_config.json").write_text(json.dumps(processor))
    if "video" in row:
        (folder / "video_preprocessor_config.json").write_text(json.dumps(row["video"]))
    return folder


def needs(name: str) -> list[str]:
    """Packages beside torch and Pillow that a family's processor or model wants."""
    kinds = IMAGE_PROCESSOR_MAPPING_NAMES.get(name) or {}
    return [*(["torchvision"] if kinds and "pil" not in kinds else []), *ROWS[name].get("needs", [])]
