"""Paper, ink, letters and numbers at random: what the foreign pictures are drawn with."""

import random
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

WORDS = [
    "the",
    "of",
    "and",
    "time",
    "people",
    "year",
    "way",
    "day",
    "man",
    "thing",
    "woman",
    "life",
    "child",
    "world",
    "school",
    "state",
    "family",
    "student",
    "group",
    "country",
    "problem",
    "hand",
    "part",
    "place",
    "case",
    "week",
    "company",
    "system",
    "program",
    "question",
    "work",
    "number",
    "night",
    "point",
    "home",
    "water",
    "room",
    "mother",
    "area",
    "money",
    "Total",
    "Price",
    "Date",
    "Name",
    "Sum",
    "Item",
    "Page",
    "12",
    "7",
    "2019",
    "100",
    "3.50",
    "85%",
    "File",
    "Edit",
    "View",
    "Help",
    "Home",
    "About",
    "Search",
    "OK",
    "Cancel",
]
Colour = tuple[int, int, int]
Size = tuple[int, int]


def any_colour(rng: random.Random) -> Colour:
    return rng.randrange(256), rng.randrange(256), rng.randrange(256)


def any_ground(rng: random.Random) -> Colour:
    """Paper, mostly light."""
    return rng.choice(((255, 255, 255), (250, 248, 240), (235, 240, 250), (30, 30, 36), any_colour(rng)))


def any_ink(rng: random.Random, ground: Colour) -> Colour:
    """Something that is seen on the ground."""
    while True:
        colour = rng.choice(((0, 0, 0), (255, 255, 255), (40, 40, 40), any_colour(rng), any_colour(rng)))
        if sum(abs(a - b) for a, b in zip(colour, ground, strict=True)) > 150:
            return colour


def canvas(rng: random.Random, size: Size, ground: Colour | None = None) -> tuple[Image.Image, ImageDraw.ImageDraw, Colour]:
    ground = any_ground(rng) if ground is None else ground
    image = Image.new("RGB", size, ground)
    return image, ImageDraw.Draw(image), ground


@cache
def font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)


def words(rng: random.Random, count: int) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(count))


def picture_of(values: np.ndarray) -> Image.Image:
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


def numpy_rng(rng: random.Random) -> np.random.Generator:
    return np.random.default_rng(rng.getrandbits(63))
