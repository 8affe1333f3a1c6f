"""The recipes are one chain, from the untrained model to the shipped one, and their data is what they promise."""

import itertools
from pathlib import Path

import yaml

from demo import scenes, world
from demo.conversations import Turn
from demo.recipes import rows as recipe_rows
from demo.recipes.foundation import SIDE_PX, make_config, make_processor, make_tokenizer
from demo.recipes.rows import attribute_rows, complete_lesson_rows, lesson_rows, lesson_text_rows, terse_rows
from training.config import parse

RECIPES = sorted(Path("demo/recipes").glob("*.yaml"))
STAGES = [recipe for recipe in RECIPES if recipe.stem[0] in "012"]
ORDER = ("0_vision", "0_resampler", "0_language", "1_captions", "2_instructions", "2_over_turns")


def test_every_stage_starts_from_what_the_one_before_leaves():
    assert sorted(recipe.stem for recipe in STAGES) == sorted(ORDER)
    folder = "outputs/demo/foundation"
    for name in ORDER:
        recipe, arguments = parse(["--config", f"demo/recipes/{name}.yaml"])
        assert recipe.model == folder
        folder = f"{arguments.output_dir}/{recipe.result}"


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


def test_lessons_begin_with_few_colours_and_shapes_and_end_with_all(monkeypatch):
    monkeypatch.setattr(recipe_rows, "ROWS_PER_PALETTE", 100)
    shown = []

    def make_scene(rng, split, palette=None):
        shown.append(palette)
        return scenes.make_scene(rng, split, palette)

    monkeypatch.setattr(recipe_rows, "make_scene", make_scene)
    rows = lesson_rows(3)
    early = list(itertools.islice(rows, 100))
    assert shown and all(palette == (["red", "blue"], ["circle", "star"]) for palette in shown)
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
    for row in itertools.islice(complete_lesson_rows(3), 600):
        counts = [sum(item["type"] == "image" for item in message["content"]) for message in row["messages"]]
        orders.add(tuple(count for count in counts if count))
    assert {(1,), (2,), (1, 1), (3,), (2, 1), (1, 2), (1, 1, 1)} <= orders


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
            assert words.count(")") == sum(item["type"] == "image" for item in seen["content"])
    assert compared > 20


def test_a_listing_says_where_every_look_is():
    scene = world.Scene(
        (world.Thing("red", "star", "top"), world.Thing("blue", "star", "left"), world.Thing("red", "ring", "right"))
    )
    assert recipe_rows._listing("colour", scene, "en") == Turn("Where is each colour?", "Red: top, right; blue: left.")
    assert recipe_rows._listing("shape", scene, "zh") == Turn("形状在哪里？", "圆环：右边；星形：上方、左边。")


def test_terse_answers_say_the_same():
    for plain, terse in zip(itertools.islice(world.instruction_rows(3), 40), terse_rows(3), strict=False):
        said, shortened = (row["messages"][-1]["content"][0]["text"] for row in (plain, terse))
        assert shortened == said.lower().rstrip(".!。！")
