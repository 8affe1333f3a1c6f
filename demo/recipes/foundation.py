"""What stage 0 starts from: the demo model's tokenizer, its architecture with random weights, and rows of other kinds than the
world's own.

    python -m demo.recipes.foundation outputs/demo/foundation

How it is trained is in the YAML files beside this one.
"""

import argparse
import itertools
import random
from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import GenerationConfig, PreTrainedTokenizerFast
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from demo import world
from demo.conversations import ABOUT_NONE, ABOUT_ONE, ABOUT_SEVERAL, ask_about, ask_across, converse
from demo.grammar import CHINESE, ORDINALS, PHRASES, capital, pair, word
from demo.scenes import Scene, make_palette, make_scene
from pipelines.visualcla import (
    VisualCLAConfig,
    VisualCLAForConditionalGeneration,
    VisualCLAProcessor,
    add_image_tokens,
)
from pipelines.visualcla.saving import save_model_folder

SIDE_PX = 64
WHERE_IS_EACH = {
    "en": {"colour": "Where is each colour?", "shape": "Where is each shape?"},
    "zh": {"colour": "颜色在哪里？", "shape": "形状在哪里？"},
}
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
# In which order the lessons take in colours and shapes (easily told apart ones first), and after how many rows two more.
LESSON_COLOURS = ["red", "blue", "green", "black", "yellow", "pink", "orange", "purple"]
LESSON_SHAPES = ["circle", "star", "square", "cross", "triangle", "ring"]
ROWS_PER_PALETTE = 10_000


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Words of the world as one token each, every other text of its characters and of printable ASCII by pieces.

    No byte pieces: each token is whole characters, so a stream never stops in the middle of one. An unknown character
    becomes `<unk>`.
    """
    texts = ["### Instruction: \n\n### Response:", *world.all_texts()]
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
            vocab_size=1200,
            min_frequency=1,
            special_tokens=list(CONTROL_TOKENS),
            initial_alphabet=sorted({*PRINTABLE_ASCII, *world.characters(), "\n"}),
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


def make_processor() -> VisualCLAProcessor:
    """Tokenizer, template, and an image processor that squashes a picture to a square, so that no edge is cut off."""
    side = {"height": SIDE_PX, "width": SIDE_PX}
    image_processor = CLIPImageProcessorPil(size=side, do_center_crop=False)
    return VisualCLAProcessor(image_processor, make_tokenizer(), num_image_embeds=16)


def make_config(tokenizer: PreTrainedTokenizerFast, num_image_embeds: int) -> VisualCLAConfig:
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
            "image_size": SIDE_PX,
            "patch_size": 8,
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


def attribute_rows(seed: int) -> Iterator[dict]:
    """Endless rows of one picture and what is where: place, colour and shape, for each of the nine places.

    The place is the same in every row. To tell it nevertheless, a query has to carry along which place it speaks of, and
    the language model can find it by that.
    """
    for image, scene in world.pictures(seed):
        targets = [[place, colour, shape] for place, (colour, shape) in enumerate(world.attributes(scene))]
        yield {"images": [image], "targets": targets}


def lesson_rows(seed: int) -> Iterator[dict]:
    """Endless rows for stage 2: rows as the world mixes them, and talks, whose pictures have few colours and shapes at first.

    With all colours and shapes from the start, thousands of steps pass in which the model knows what a picture holds, but
    does not find a thing by its looks. With two of each it learns to look within 300 steps, and takes in the others soon.
    """
    rng = random.Random(f"lessons/{seed}")
    as_mixed = world.instruction_rows(seed)
    for count in itertools.count():
        size = 2 + 2 * (count // ROWS_PER_PALETTE)
        is_complete = size >= len(LESSON_COLOURS)
        if rng.random() < (0.4 if is_complete else 0.2):
            yield next(as_mixed)
        else:
            yield _talk(rng, None if is_complete else (LESSON_COLOURS[:size], LESSON_SHAPES[:size]))


def _talk(rng: random.Random, palette: tuple[list[str], list[str]] | None) -> dict:
    """Six questions about what was shown at the beginning: a picture, some pictures, or nothing.

    So a picture that was encoded once teaches six answers.
    """
    language = rng.choice(world.LANGUAGES)
    num_pictures = rng.choices((0, 1, 2, 3), weights=(1, 10, 6, 3))[0]
    if palette is None and rng.random() < 0.3:
        palette = make_palette(rng)
    shown = tuple(make_scene(rng, "train", palette) for _ in range(num_pictures))
    turns: list[tuple[str, str]] = []
    asked = set()
    while len(turns) < 6:
        if not shown:
            talk = converse(rng.choice(ABOUT_NONE), language, rng, "train")
            turns += [(turn.question, turn.answer) for turn in talk.turns]
            continue
        if num_pictures == 1 and shown[0].things and rng.random() < 0.2:
            turns.append(_listing(rng.choice(("colour", "shape")), shown[0], language))
            continue
        kinds = ABOUT_ONE if num_pictures == 1 else ABOUT_SEVERAL
        kind = rng.choices(kinds, [world.MIXTURE[kind] for kind in kinds])[0]
        question = ask_about(kind, shown[0], rng) if num_pictures == 1 else ask_across(kind, shown, rng)
        if question and (question not in asked or rng.random() < 0.1):
            asked.add(question)
            turns.append((world.ask(question, language, rng, num_pictures), world.answer(question, shown, language)))
    messages = []
    for index, (question, answer) in enumerate(turns):
        images = [{"type": "image"} for _ in shown] if index == 0 else []
        messages.append({"role": "user", "content": [*images, {"type": "text", "text": question}]})
        messages.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
    return {"messages": messages, "images": [world.draw(scene, rng) for scene in shown]}


def _listing(field: str, scene: Scene, language: str) -> tuple[str, str]:
    """Where every colour or every shape is: many things found by their looks in one short answer."""
    places: dict[str, list[str]] = {}
    for thing in scene.things:
        places.setdefault(getattr(thing, field), []).append(word(thing.place, language))
    phrases = PHRASES[language]
    items = [
        pair(word(look, language), ("、" if language == "zh" else ", ").join(places[look]), language)
        for look in (*world.COLOURS, *world.SHAPES)
        if look in places
    ]
    return WHERE_IS_EACH[language][field], capital(phrases["comma"].join(items) + phrases["stop"])


def terse_rows(seed: int) -> Iterator[dict]:
    """The world's conversations with answers in lower case and without the mark at their end: what an adapter can change."""
    for row in world.instruction_rows(seed):
        messages = [
            {**message, "content": [{"type": "text", "text": terse(item["text"])} for item in message["content"]]}
            if message["role"] == "assistant"
            else message
            for message in row["messages"]
        ]
        yield {**row, "messages": messages}


def terse(answer: str) -> str:
    """
    >>> terse("A red circle.")
    'a red circle'
    """
    return answer.lower().rstrip(".!。！")


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
