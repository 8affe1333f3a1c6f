"""What stage 0 starts from: the demo model's tokenizer, and its architecture with random weights.

    python -m demo.recipes.foundation outputs/demo/foundation

How it is trained is in the YAML files beside this one, on the rows of rows.py.
"""

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path

from pipelines.own_python import hand_over

if __name__ == "__main__":
    hand_over("demo.recipes.foundation")

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import GenerationConfig, PreTrainedTokenizerFast
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from demo import world
from demo.grammar import CHINESE, ORDINALS
from pipelines.visualcla import (
    VisualCLAConfig,
    VisualCLAForConditionalGeneration,
    VisualCLAProcessor,
    add_image_tokens,
)
from pipelines.visualcla.saving import save_model_folder

SIDE_PX, PATCHES_PER_SIDE = 64, 8
CONTROL_TOKENS = ("<unk>", "<s>", "</s>", "<pad>")
PRINTABLE_ASCII = "".join(map(chr, range(32, 127)))
# What is one token: a place in two words, a word of the world in Chinese, an English word with the space before it, a run of
# "#" or of line ends; everything else character by character.
PLACES = r" ?(?i:top|bottom) (?:left|right)\b"
CHINESE_WORDS = "|".join(sorted({*CHINESE.values(), *ORDINALS["zh"], "图片", "颜色", "形状", "什么"}, key=len, reverse=True))
PIECES = rf"{PLACES}|{CHINESE_WORDS}| ?[A-Za-z]+| ?#+|\n+| ?[!-~]|[\s\S]"
# What the template repeats is one token each: short rows, and an answer stands close to its question.
TEMPLATE_TOKENS = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.",
    "\n\n### Instruction: \n",
    "\n\n### Response:",
)
SEED = 1


def make_tokenizer(further: Sequence[str] = ()) -> PreTrainedTokenizerFast:
    """Words of the world and of further texts as one token each, every other text of their characters and of printable ASCII by pieces.

    No byte pieces: each token is whole characters, so a stream never stops in the middle of one. An unknown character
    becomes `<unk>`.
    """
    texts = ["### Instruction: \n\n### Response:", *world.all_texts(), *further]
    texts += [
        item["text"]
        for row in itertools.islice(world.text_rows(SEED), 4000)
        for message in row["messages"]
        for item in message["content"]
    ]
    backend = Tokenizer(models.BPE(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(PIECES), "isolated")
    backend.decoder = decoders.Fuse()
    backend.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=2000,
            min_frequency=1,
            special_tokens=list(CONTROL_TOKENS),
            initial_alphabet=sorted({*PRINTABLE_ASCII, *world.characters(further), "\n"}),
            show_progress=False,
        ),
    )
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", backend.token_to_id("<s>"))]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        clean_up_tokenization_spaces=False,
        model_max_length=2048,
    )
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in TEMPLATE_TOKENS])
    add_image_tokens(tokenizer)
    return tokenizer


def make_processor(side_px: int = SIDE_PX, further: Sequence[str] = ()) -> VisualCLAProcessor:
    """Tokenizer, template, and an image processor that squashes a picture to a square, so that no edge is cut off."""
    side = {"height": side_px, "width": side_px}
    image_processor = CLIPImageProcessorPil(size=side, do_center_crop=False)
    return VisualCLAProcessor(image_processor, make_tokenizer(further), num_image_embeds=16)


def make_config(tokenizer: PreTrainedTokenizerFast, num_image_embeds: int, side_px: int = SIDE_PX) -> VisualCLAConfig:
    """VisualCLA, small: widths are multiples of 64, so that every loader's quantisation can take them."""
    return VisualCLAConfig(
        text_config={
            "model_type": "llama",
            "vocab_size": len(tokenizer),
            "hidden_size": 192,
            "intermediate_size": 512,
            "num_hidden_layers": 6,
            "num_attention_heads": 6,
            "max_position_embeddings": 2048,
            "initializer_range": 0.06,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={
            "model_type": "clip_vision_model",
            "hidden_size": 128,
            "intermediate_size": 512,
            "num_hidden_layers": 6,
            "num_attention_heads": 4,
            "image_size": side_px,
            "patch_size": side_px // PATCHES_PER_SIDE,
            "projection_dim": 128,
        },
        visual_resampler_config={
            "hidden_size": 128,
            "intermediate_size": 512,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_query_tokens": num_image_embeds,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
            "layer_norm_eps": 1e-5,
        },
        image_token_id=tokenizer.convert_tokens_to_ids("<img_token>"),
        initializer_range=0.06,
    )


@torch.no_grad()
def make_model(config: VisualCLAConfig) -> VisualCLAForConditionalGeneration:
    """Random weights, and a sense of place from the start: waves as position embeddings, queries that differ.

    With CLIP's own start (position embeddings of 0.02 under patches of 0.5) the loss of telling what is where was 0.85 after
    740 steps; with this one, 0.36 after 160.
    """
    model = VisualCLAForConditionalGeneration(config)
    positions = model.vision_model.embeddings.position_embedding.weight
    side = config.vision_config.image_size // config.vision_config.patch_size
    frequencies = torch.pi / side * 2 ** torch.linspace(0, 3, positions.shape[1] // 4)
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    waves = [wave(place.flatten()[:, None] * frequencies) for place in (rows, columns) for wave in (torch.sin, torch.cos)]
    positions[1:] = torch.cat(waves, dim=1) / 2  # the first is the CLS token's
    model.visual_resampler.query_embeddding.normal_()
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the untrained demo model.")
    parser.add_argument("folder", type=Path, help="where the model folder goes")
    folder = parser.parse_args().folder
    torch.manual_seed(SEED)
    processor = make_processor()
    model = make_model(make_config(processor.tokenizer, processor.num_image_embeds))
    tokens = processor.tokenizer
    model.text_model.generation_config = GenerationConfig(
        bos_token_id=tokens.bos_token_id,
        eos_token_id=tokens.eos_token_id,
        pad_token_id=tokens.pad_token_id,
        max_new_tokens=128,
    )
    save_model_folder(model, processor, folder)
    print(f"{model.num_parameters() / 1e6:.1f} million parameters, {len(tokens)} tokens: {folder}")


if __name__ == "__main__":
    main()
