"""The recipes are one chain, from the untrained model to the shipped one, and their data is what they promise."""

import itertools
from pathlib import Path

import pytest
import torch
import yaml

from demo import foreign, scenes, world
from demo.conversations import Turn
from demo.grammar import is_refusal
from demo.recipes import rows as recipe_rows
from demo.recipes.foundation import PATCHES_PER_SIDE, SIDE_PX, make_config, make_model, make_processor, make_tokenizer
from demo.recipes.grow import grown_patches, grown_words
from demo.recipes.rows import (
    attribute_rows,
    lesson_rows,
    lesson_text_rows,
    terse_rows,
    wide_caption_rows,
    wide_lesson_rows,
)
from demo.wordings import HELD_OUT, ORDINARY, is_held_out
from training.config import parse

RECIPES = sorted(Path("demo/recipes").glob("*.yaml"))
STAGES = [recipe for recipe in RECIPES if recipe.stem[0] in "01234"]
ORDER = (
    "0_vision", "0_resampler", "0_language", "1_captions", "2_instructions", "2_over_turns", "3_wide_captions", "4_wide_instructions", "4_wide_end",
)  # fmt: skip
GROWN = {
    "outputs/demo/2_over_turns/model": "outputs/demo/grown",
    "outputs/demo/3_wide_captions/model": "outputs/demo/grown_again",
}
"""What `demo.recipes.grow` is given, and what it leaves."""


def test_every_stage_starts_from_what_the_one_before_leaves():
    assert sorted(recipe.stem for recipe in STAGES) == sorted(ORDER)
    folder = "outputs/demo/foundation"
    for name in ORDER:
        recipe, arguments = parse(["--config", f"demo/recipes/{name}.yaml"])
        assert recipe.model == folder
        folder = f"{arguments.output_dir}/{recipe.result}"
        folder = GROWN.get(folder, folder)


def test_a_grown_model_answers_as_before():
    processor = make_processor()
    config = make_config(processor.tokenizer, processor.num_image_embeds)
    small = make_model(config).vision_model.embeddings.patch_embedding.weight
    side_px = 2 * SIDE_PX
    large = grown_patches(small, side_px // PATCHES_PER_SIDE)
    picture = torch.nn.functional.interpolate(torch.rand(1, 3, 4, 4), (SIDE_PX, SIDE_PX), mode="bilinear")
    enlarged = torch.nn.functional.interpolate(picture, (side_px, side_px), mode="bilinear")
    seen, seen_enlarged = (
        torch.nn.functional.conv2d(image, weight, stride=weight.shape[-1])
        for image, weight in ((picture, small), (enlarged, large))
    )
    assert torch.nn.functional.cosine_similarity(seen.flatten(), seen_enlarged.flatten(), dim=0) > 0.98
    assert 0.9 < seen_enlarged.norm() / seen.norm() < 1.1
    wider = make_tokenizer(["telescopic"])
    rows = torch.randn(len(processor.tokenizer), 4)
    grown, old = grown_words(rows, processor.tokenizer, wider), processor.tokenizer
    assert torch.equal(grown[wider.get_vocab()[" red"]], rows[old.get_vocab()[" red"]])
    pieces = old("telescopic", add_special_tokens=False)["input_ids"]
    assert len(pieces) > 1 and torch.allclose(grown[wider.get_vocab()["telescopic"]], rows[pieces].mean(0))


def test_recipes_name_their_seeds_and_steps_and_need_no_accelerator():
    for recipe in RECIPES:
        values = yaml.safe_load(recipe.read_text(encoding="utf-8"))
        assert {"seed", "max_steps", "use_cpu"} <= values.keys()


def test_words_of_the_world_are_one_token_and_every_character_comes_back():
    tokenizer = make_tokenizer()
    for words in ("红色|的|圆形", "A| red| circle|.", "The| red| circle| is| at| the| top left|.", "第一张|图片|里"):
        ids = tokenizer(words.replace("|", ""), add_special_tokens=False)["input_ids"]
        assert [tokenizer.decode(token) for token in ids] == words.split("|")
    everything = world.characters()
    assert tokenizer.decode(tokenizer(everything, add_special_tokens=False)["input_ids"]) == everything


def test_model_is_small_and_its_context_long():
    processor = make_processor()
    config = make_config(processor.tokenizer, processor.num_image_embeds)
    assert config.text_config.max_position_embeddings >= 2048
    assert config.vision_config.image_size == SIDE_PX


def test_targets_of_the_eyes_are_what_the_picture_shows():
    for row in itertools.islice(attribute_rows(3), 20):
        assert [place for place, _, _ in row["targets"]] == list(range(len(world.PLACES)))
        assert 0 <= sum(colour > 0 for _, colour, _ in row["targets"]) <= 4


def test_the_wide_world_has_every_shape_and_pictures_that_are_none_of_it():
    rows = list(itertools.islice(wide_caption_rows(3), 200))
    refused = [is_refusal(row["messages"][-1]["content"][0]["text"]) for row in rows]
    assert 0 < sum(refused) < len(rows) / 3
    shapes = [width / height for row in rows for width, height in (image.size for image in row["images"])]
    assert min(shapes) < 0.4 and max(shapes) > 3 and shapes.count(1) > 40


@pytest.mark.parametrize(
    "make", [attribute_rows, wide_caption_rows, lesson_rows, wide_lesson_rows, lesson_text_rows, terse_rows]
)
def test_workers_share_the_rows_without_making_those_of_others(make):
    rows = [str(row) for row in itertools.islice(without_pictures(make(5)), 12)]
    shared = [list(itertools.islice(without_pictures(make(5, start=worker, step=3)), 4)) for worker in range(3)]
    assert [str(shared[index % 3][index // 3]) for index in range(12)] == rows


def without_pictures(rows):
    """Rows with the bytes of their pictures."""
    return ({**row, "images": [image.tobytes()[:4000] for image in row["images"]]} for row in rows)


def test_nothing_that_only_the_exam_asks_is_taught():
    kinds = set()
    for row in itertools.islice(wide_lesson_rows(11), 1500):
        for message in row["messages"]:
            said = "".join(item.get("text", "") for item in message["content"])
            assert message["role"] != "user" or not is_held_out(said.split("You: ")[-1]), said
        kinds.add(row["kind"])
    assert "talk" in kinds
    assert not foreign.KINDS["train"].keys() & foreign.KINDS["held_out"].keys()


@pytest.mark.parametrize("language", world.LANGUAGES)
def test_exam_asks_at_least_thirty_sentences_that_are_not_taught(language):
    sentences = [sentence for own in HELD_OUT[language].values() for sentence in own]
    taught = [sentence for own in ORDINARY[language].values() for sentence in own]
    assert len(set(sentences)) >= 30 and not set(sentences) & set(taught)
    assert all(is_held_out(sentence.replace("{", "x").replace("}", "x")) for sentence in sentences)


def test_lessons_begin_with_few_colours_and_shapes_and_end_with_all(monkeypatch):
    monkeypatch.setattr(recipe_rows, "ROWS_PER_PALETTE", 100)
    shown = []

    def make_scene(rng, split, palette=None):
        shown.append(palette)
        return scenes.make_scene(rng, split, palette)

    monkeypatch.setattr(recipe_rows, "make_scene", make_scene)
    rows = lesson_rows(3)
    early = list(itertools.islice(rows, 100))
    talks = [palette for palette in shown if palette is not None]
    assert talks and all(palette == (["red", "blue"], ["circle", "star"]) for palette in talks)
    assert sorted(recipe_rows.LESSON_COLOURS) == sorted(world.COLOURS) and sorted(recipe_rows.LESSON_SHAPES) == sorted(
        world.SHAPES
    )
    list(itertools.islice(rows, 250))
    shown.clear()
    late = list(itertools.islice(rows, 60))
    assert None in shown
    for row in early + late:
        images = [sum(item["type"] == "image" for item in message["content"]) for message in row["messages"]]
        assert sum(images) == len(row["images"])
        assert row["kind"] != "talk" or len(row["messages"]) >= 10


def test_pictures_of_a_talk_come_together_and_over_turns_in_every_order():
    orders = set()
    for row in itertools.islice(wide_lesson_rows(3), 600):
        counts = [sum(item["type"] == "image" for item in message["content"]) for message in row["messages"]]
        orders.add(tuple(count for count in counts if count))
    assert {(1,), (2,), (1, 1), (3,), (2, 1), (1, 2), (1, 1, 1), (4,)} <= orders


def test_lessons_in_words_tell_what_lessons_show():
    compared = 0
    for seed in range(30):
        shown, told = next(lesson_rows(seed)), next(lesson_text_rows(seed))
        if shown["kind"] != "talk":
            continue
        compared += len(shown["images"])
        assert not told["images"]
        for seen, read in zip(shown["messages"], told["messages"], strict=True):
            words = "".join(item.get("text", "") for item in read["content"])
            assert words.endswith(seen["content"][-1]["text"])
            assert words.count(") ") == sum(item["type"] == "image" for item in seen["content"])
    assert compared > 20


def test_a_listing_says_where_every_look_is():
    scene = world.Scene(
        (world.Thing("red", "star", "top"), world.Thing("blue", "star", "left"), world.Thing("red", "ring", "right"))
    )
    assert recipe_rows._listing("colour", scene, "en") == Turn("Where is each colour?", "Red: top, right; blue: left.")
    assert recipe_rows._listing("shape", scene, "zh") == Turn("形状在哪里？", "圆环：右边；星形：上方、左边。")


def test_terse_answers_say_the_same():
    for plain, terse in zip(itertools.islice(wide_lesson_rows(3), 40), terse_rows(3), strict=False):
        said, shortened = (row["messages"][-1]["content"][0]["text"] for row in (plain, terse))
        assert shortened == said.lower().rstrip(".!。！")
