"""The tiny world: what is asked has one right answer, what is drawn is what the scene says, splits share nothing.

`solve` below answers questions from their words alone, without demo/grammar.py; every row of text is checked with it.
"""

import itertools
import random
import re
from collections import Counter

import pytest

from demo import world
from demo.grammar import WORDINGS, Question, answer, ask
from demo.scenes import MAX_THINGS, SIZES, Scene, Thing, split_of
from demo.small_talk import CHAT, FACTS

EN = {name: name for name in (*world.COLOURS, *world.SHAPES, *world.PLACES)}
ZH = {
    "red": "红色", "orange": "橙色", "yellow": "黄色", "green": "绿色",
    "blue": "蓝色", "purple": "紫色", "pink": "粉色", "black": "黑色",
    "circle": "圆形", "square": "正方形", "triangle": "三角形", "ring": "圆环", "cross": "十字", "star": "星形",
    "top left": "左上角", "top": "上方", "top right": "右上角", "left": "左边", "centre": "中间", "right": "右边",
    "bottom left": "左下角", "bottom": "下方", "bottom right": "右下角",
}  # fmt: skip
NAMES = {"en": EN, "zh": ZH}
FIRST_MATCH = {
    "en": {
        "both": "(both|all) pictures", "which": "which picture", "count": "how many|count the",
        "colour": "wh.* colour is", "shape": "wh.* shape is", "where": "^where|^find",
        "is_there": "^is there|^do you see|^does .* show an? ", "what": " at the ", "describe": "",
    },
    "zh": {
        "both": "都有", "which": "哪(一)?张图片", "count": "几个|多少个", "colour": "颜色", "shape": "形状",
        "where": "哪里|地方", "is_there": "吗|有没有|看得到", "what": "(角|方|边|间)(是|有)什么", "describe": "",
    },
}  # fmt: skip
ORDINALS = {"en": ("first", "second", "third"), "zh": ("第一", "第二", "第三")}
PLACES_LONGEST_FIRST = sorted(world.PLACES, key=len, reverse=True)


def text_of(message: dict) -> str:
    return "".join(item["text"] for item in message["content"] if item["type"] == "text")


def plain(text: str) -> str:
    text = text.lower().rstrip(".?!。？！")
    return text.replace("color", "colour").replace("center", "centre")


TALK = {
    plain(text)
    for language in world.LANGUAGES
    for wordings, _ in itertools.chain(CHAT[language], *FACTS[language])
    for text in wordings
}


def parse(description: str) -> list[tuple[str, str, str]]:
    """'top left: red circle; ...' in either language -> [(place, colour, shape), ...]."""
    things = []
    for part in filter(None, re.split("[;；] ?", description.lower().rstrip(".。"))):
        place, thing = re.split("[:：] ?", part)
        language = "en" if place in EN else "zh"
        name = {local: english for english, local in NAMES[language].items()}
        colour, shape = thing.split() if language == "en" else (thing[:2], thing[2:])
        things.append((name[place], name[colour], name[shape]))
    return things


def solve(text: str, language: str, scenes: list) -> str:
    """Answer a question about told scenes from its words alone; fails where it has no single answer."""
    is_english = language == "en"
    if not scenes:
        return "I see no picture." if is_english else "我没有看到图片。"
    kind = next(kind for kind, pattern in FIRST_MATCH[language].items() if re.search(pattern, text))
    named = [index for index, ordinal in enumerate(ORDINALS[language]) if ordinal in text]
    scene = scenes[named[0]] if named else scenes[-1]
    words = NAMES[language]
    place = next((p for p in PLACES_LONGEST_FIRST if (f"at the {p}" if is_english else words[p]) in text), None)
    colour = next((c for c in world.COLOURS if words[c] in text), None)
    shape = next((s for s in world.SHAPES if words[s] in text), None)
    wanted = (place, colour, shape)
    found = [[thing for thing in scene if all(w in (None, t) for w, t in zip(wanted, thing, strict=True))] for scene in scenes]
    here = found[named[0]] if named else found[-1]
    if kind in ("both", "which"):
        answered = across(kind, wanted, found, is_english)
    else:
        answered = about(kind, wanted, here, scene, is_english)
    if named and kind not in ("both", "which"):
        ordinal = ORDINALS[language][named[0]]
        answered = f"In the {ordinal} picture, {answered}" if is_english else f"{ordinal}张图片里，{answered}"
    return answered[0].upper() + answered[1:] + ("." if is_english else "。")


def called(place: str | None, colour: str | None, shape: str | None, is_english: bool, ending: str = "") -> str:
    """What a question asked for: 'red circle', 'thing at the top left', '左上角的东西'; `ending` makes it many."""
    if not is_english:
        owner = ZH[place] if place else ""
        look = (ZH[colour] if colour else "") + (ZH[shape] if shape else "")
        return owner + "的" * bool(place) + look + ("" if shape else "的" * bool(colour) + "东西")
    noun = " ".join(filter(None, (colour, (shape or "thing") + ("es" if shape == "cross" and ending else ending))))
    return noun + (f" at the {place}" if place else "")


def an(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def about(kind: str, wanted: tuple, here: list, scene: list, is_english: bool) -> str:
    """The answer about one picture, without the mark at its end."""
    name = called(*wanted, is_english)

    def listed(things: list) -> str:
        if is_english:
            return "; ".join(f"{place}: {colour} {shape}" for place, colour, shape in things)
        return "；".join(f"{ZH[place]}：{ZH[colour]}{ZH[shape]}" for place, colour, shape in things)

    if kind == "describe":
        assert wanted == (None, None, None)
        return listed(scene) or ("the picture is empty" if is_english else "图片是空的")
    if kind == "what":
        assert len(here) < 2
        return listed(here) or (f"{wanted[0]}: nothing" if is_english else f"{ZH[wanted[0]]}：什么也没有")
    if kind == "count":
        if is_english:
            return f"{called(*wanted, True, 's')}: {('none', 'one', 'two', 'three', 'four')[len(here)]}"
        return f"{name}有{'零一两三四'[len(here)]}个"
    if kind == "is_there":
        return f"{an(name)}? {'Yes' if here else 'No'}" if is_english else f"{name}？{'有' if here else '没有'}"
    assert len(here) < 2
    place, colour, shape = here[0] if here else (None, None, None)
    if kind == "where":
        return f"{name}: {place or 'not there'}" if is_english else f"{name}：{ZH[place] if place else '不在图片里'}"
    if not here:
        return f"the {name} is not there" if is_english else f"{name}不在图片里"
    if is_english:
        return f"the {name} is " + {"colour": colour, "shape": f"a {shape}"}[kind]
    return name + {"colour": f"是{ZH[colour]}", "shape": f"是{ZH[shape]}"}[kind]


def across(kind: str, wanted: tuple, found: list, is_english: bool) -> str:
    """The answer about several pictures, without the mark at its end."""
    name = called(*wanted, is_english)
    showing = [index for index, things in enumerate(found) if things]
    if kind == "both":
        is_yes = len(showing) == len(found)
        if is_english:
            return f"{an(name)} in {'both' if len(found) == 2 else 'all'} pictures? {'Yes' if is_yes else 'No'}"
        return f"{'两' if len(found) == 2 else '三'}张图片里的{name}？{'有' if is_yes else '没有'}"
    assert len(showing) < 2
    if not showing:
        return f"{name}: none of them" if is_english else f"{name}：都不在"
    ordinal = ORDINALS["en" if is_english else "zh"][showing[0]]
    return f"{name}: the {ordinal} picture" if is_english else f"{name}：{ordinal}张图片"


def first(n: int, rows) -> list:
    return list(itertools.islice(rows, n))


def shown(scene: Scene) -> tuple:
    return tuple((thing.place, thing.colour, thing.shape) for thing in scene.things)


def test_world_has_the_promised_variety():
    assert len(world.COLOURS) >= 8 and len(world.SHAPES) >= 6 and MAX_THINGS == 4
    scenes = first(2000, world.scenes(0))
    assert {len(scene.things) for scene in scenes} == set(range(MAX_THINGS + 1))
    assert len({scene.background for scene in scenes}) >= 4
    things = [thing for scene in scenes for thing in scene.things]
    assert {thing.size for thing in things} == set(SIZES)
    assert {(thing.colour, thing.shape) for thing in things} == set(itertools.product(world.COLOURS, world.SHAPES))


@pytest.mark.parametrize(
    "make",
    [
        world.caption_rows,
        world.instruction_rows,
        world.text_rows,
        lambda seed: world.exam(30, seed),
        lambda seed: itertools.chain.from_iterable(world.exchange_pairs(15, seed)),
    ],
    ids=["captions", "instructions", "texts", "exam", "exchange"],
)
def test_rows_same_seed_same_rows(make):
    def content(seed):
        return [(row["messages"], [image.tobytes() for image in row["images"]]) for row in first(30, make(seed))]

    random.seed(1)
    rows = content(5)
    random.seed(2)
    assert rows == content(5)
    assert rows != content(6)


def test_splits_share_no_picture():
    train = {shown(scene) for scene in first(3000, world.scenes(0, "train"))}
    held_out = {shown(scene) for scene in first(3000, world.scenes(0, "held_out"))}
    assert not train & held_out
    assert len(held_out) > 1000


def scene_of(description: str) -> Scene:
    return Scene(tuple(Thing(colour, shape, place) for place, colour, shape in parse(description)))


def test_rows_keep_to_their_split():
    for split in world.SPLITS:
        for row in first(300, world.caption_rows(0, split, 8)):
            description = text_of(row["messages"][-1])
            if description not in ("The picture is empty.", "图片是空的。"):
                assert split_of(scene_of(description)) == split
    described = [row for row in world.exam(320, 0, 8) if row["kind"] == "describe"]
    assert {split_of(scene_of(text_of(row["messages"][-1]))) for row in described} == {"held_out"}


def test_split_ignores_size_and_background():
    for scene in first(200, world.scenes(1)):
        other = Scene(tuple(Thing(t.colour, t.shape, t.place, "small") for t in scene.things), "cream")
        assert split_of(other) == "train"


def test_text_rows_answers_follow_from_the_words():
    kinds = Counter()
    for row in first(12000, world.text_rows(3)):
        scenes = []
        assert not row["images"]
        for user, assistant in zip(row["messages"][::2], row["messages"][1::2], strict=True):
            told = re.findall(r"\((.*?)\)", text_of(user))
            assert {split_of(scene_of(description)) for description in told} <= {"train"}
            scenes += [parse(description) for description in told]
            text = plain(re.sub(r"\(.*?\) ", "", text_of(user)))
            if text not in TALK:
                assert text_of(assistant) == solve(text, row["language"], scenes), (text_of(user), scenes)
                kinds[row["kind"]] += 1
    assert set(kinds) >= set(world.MIXTURE) - {"chat", "fact"}


@pytest.mark.parametrize("language", world.LANGUAGES)
def test_describe_lists_every_thing_in_reading_order(language):
    for scene in first(300, world.scenes(2)):
        if scene.things:
            assert tuple(parse(answer(Question("describe"), [scene], language))) == shown(scene)


def test_question_without_a_single_answer_has_none():
    two_circles = Scene((Thing("red", "circle", "top"), Thing("red", "circle", "left")))
    for question in (Question("where", "red", "circle"), Question("colour", shape="circle"), Question("shape", "red")):
        assert answer(question, [two_circles], "en") is None
    assert answer(Question("which", shape="circle"), [two_circles, two_circles], "en") is None
    assert answer(Question("count", shape="circle"), [two_circles], "en") == "Circles: two."


@pytest.mark.parametrize("language", world.LANGUAGES)
def test_facts_have_one_answer(language):
    answers = {}
    for wordings, right in itertools.chain(CHAT[language], *FACTS[language]):
        for text in wordings:
            assert answers.setdefault(plain(text), right) == right


def test_rows_have_one_image_per_image_item():
    for row in itertools.chain(first(300, world.instruction_rows(0, size_px=16)), world.exam(64, 0, 16)):
        items = [item["type"] for message in row["messages"] for item in message["content"]]
        assert items.count("image") == len(row["images"]) <= 3
        assert [message["role"] for message in row["messages"][:2]] == ["user", "assistant"]
        assert all(image.mode == "RGB" and min(image.size) == 16 for image in row["images"])


def test_exam_has_every_kind_in_both_languages_equally_often():
    counts = Counter((row["kind"], row["language"]) for row in world.exam(4 * len(world.MIXTURE), 0, 8))
    assert counts == dict.fromkeys(itertools.product(world.MIXTURE, world.LANGUAGES), 2)


def test_instruction_rows_are_mixed_as_documented():
    assert sum(world.MIXTURE.values()) == 100 and set(world.GROUPS) == set(world.MIXTURE)
    counts = Counter(row["kind"] for row in first(4000, world.instruction_rows(0, size_px=8)))
    for kind, percent in world.MIXTURE.items():
        assert counts[kind] / 40 == pytest.approx(percent, abs=2), kind


def test_instruction_rows_do_not_favour_yes_or_no():
    rows = [row for row in first(6000, world.instruction_rows(1, size_px=8)) if row["kind"] == "both"]
    yes = sum(text_of(row["messages"][-1]).endswith(("Yes.", "？有。")) for row in rows)
    assert yes / len(rows) == pytest.approx(0.5, abs=0.15)


def test_exchange_pairs_differ_in_pictures_and_answer_only():
    for one, other in world.exchange_pairs(80, 0, 16):
        assert one["messages"][0] == other["messages"][0]
        assert text_of(one["messages"][1]) != text_of(other["messages"][1])
        if len(one["images"]) == 2:
            assert one["images"] == other["images"][::-1]


def test_characters_cover_every_row():
    alphabet = set(world.characters())
    rows = itertools.chain(
        first(3000, world.text_rows(9)), first(500, world.instruction_rows(9, size_px=8)), world.exam(320, 9, 8)
    )
    for row in rows:
        for message in row["messages"]:
            assert set(text_of(message)) <= alphabet
    assert not alphabet & set("{}_")


@pytest.mark.parametrize("language", world.LANGUAGES)
def test_every_wording_is_filled_in(language):
    for kind, seed in itertools.product(WORDINGS[language], range(20)):
        text = ask(Question(kind, "orange", "star", "centre", 2), language, random.Random(seed), 3)
        assert not set(text) & set("{}") and "None" not in text


def test_attributes_name_the_thing_of_each_place():
    scene = Scene((Thing("black", "star", "bottom right"), Thing("red", "circle", "top")))
    assert world.attributes(scene) == [(0, 0), (1, 1), *[(0, 0)] * 6, (8, 6)]


def blobs(image) -> list[dict]:
    """The connected regions that differ from the ground: where they are, their colour, and what their middle shows."""
    width, height = image.size
    pixels = image.load()
    ground = pixels[0, 0]

    def is_thing(x, y):
        return sum(abs(a - b) for a, b in zip(pixels[x, y], ground, strict=True)) > 20

    left = {(x, y) for x in range(width) for y in range(height) if is_thing(x, y)}
    regions = []
    while left:
        todo = [left.pop()]
        region = list(todo)
        while todo:
            x, y = todo.pop()
            near = left & {(x + dx, y + dy) for dx in (-1, 0, 1) for dy in (-1, 0, 1)}
            left -= near
            todo += near
            region += near
        xs, ys = [x for x, _ in region], [y for _, y in region]
        middle = ((min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2)
        cell = int(middle[1] * 3 / height) * 3 + int(middle[0] * 3 / width)
        shade = Counter(pixels[spot] for spot in region).most_common(1)[0][0]
        has_hole = not is_thing(round(middle[0]), round(middle[1]))
        regions.append({"place": world.PLACES[cell], "shade": shade, "has_hole": has_hole})
    return regions


@pytest.mark.parametrize("size_px", [(96, 96), (96, 120), (64, 64)])
def test_draw_shows_what_the_scene_says(size_px):
    rng = random.Random(0)
    for scene in first(60, world.scenes(4)):
        found = {blob["place"]: blob for blob in blobs(world.draw(scene, rng, size_px))}
        assert found.keys() == {thing.place for thing in scene.things}
        for thing in scene.things:
            shade = found[thing.place]["shade"]
            distance = {
                colour: min(sum((a - b) ** 2 for a, b in zip(shade, base, strict=True)) for base in shades)
                for colour, shades in world.COLOURS.items()
            }
            assert min(distance, key=distance.get) == thing.colour
            assert found[thing.place]["has_hole"] == (thing.shape == "ring")


def test_draw_same_scene_looks_different_each_time():
    scene = next(world.scenes(0))
    assert len({world.draw(scene, random.Random(seed)).tobytes() for seed in range(10)}) == 10


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match=r"Unknown colour 'mauve'. The world has: red, "):
        Thing("mauve", "circle", "top")
    with pytest.raises(ValueError, match="Two things on one place"):
        Scene((Thing("red", "circle", "top"), Thing("blue", "star", "top")))
    with pytest.raises(ValueError, match="5 things in a scene, at most 4"):
        Scene(tuple(Thing("red", "circle", place) for place in world.PLACES[:5]))
    with pytest.raises(ValueError, match=r"Unknown split 'test'. Available: train, held_out"):
        next(world.scenes(0, "test"))
