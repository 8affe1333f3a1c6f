"""Pictures that are not of the world: what the demo model has to say "I do not know" to.

Kinds of "train" are taught, kinds of "held_out" are asked about in the exam only: what counts is that a picture of a kind that was
never seen is known to be foreign. Most are drawn; the photographs in photos/ are named with their licences in NOTICE.
"""

import math
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

PHOTOS = Path(__file__).resolve().parent / "photos"
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
Outlines = list[list[tuple[float, float]]]


def draw_foreign(kind: str, rng: random.Random, size_px: Size) -> Image.Image:
    """A picture of a kind of `KINDS`, RGB, of this width and height; the same `rng` draws the same."""
    return {**KINDS["train"], **KINDS["held_out"]}[kind](rng, size_px).convert("RGB")


def _any_colour(rng: random.Random) -> Colour:
    return rng.randrange(256), rng.randrange(256), rng.randrange(256)


def _ground(rng: random.Random) -> Colour:
    """Paper, mostly light."""
    return rng.choice(((255, 255, 255), (250, 248, 240), (235, 240, 250), (30, 30, 36), _any_colour(rng)))


def _ink(rng: random.Random, ground: Colour) -> Colour:
    """Something that is seen on the ground."""
    while True:
        colour = rng.choice(((0, 0, 0), (255, 255, 255), (40, 40, 40), _any_colour(rng), _any_colour(rng)))
        if sum(abs(a - b) for a, b in zip(colour, ground, strict=True)) > 150:
            return colour


def _canvas(rng: random.Random, size: Size, ground: Colour | None = None) -> tuple[Image.Image, ImageDraw.ImageDraw, Colour]:
    ground = _ground(rng) if ground is None else ground
    image = Image.new("RGB", size, ground)
    return image, ImageDraw.Draw(image), ground


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)


def _words(rng: random.Random, count: int) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(count))


def _array(values: np.ndarray) -> Image.Image:
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


def _numpy(rng: random.Random) -> np.random.Generator:
    return np.random.default_rng(rng.getrandbits(63))


def noise(rng: random.Random, size: Size) -> Image.Image:
    coarse = rng.choice((1, 2, 4, 8))
    shape = (max(2, size[1] // coarse), max(2, size[0] // coarse), rng.choice((1, 3)))
    values = _numpy(rng).normal(rng.uniform(60, 200), rng.uniform(25, 110), shape)
    return _array(np.broadcast_to(values, (*shape[:2], 3))).resize(size, rng.choice((Image.NEAREST, Image.BILINEAR)))


def clouds(rng: random.Random, size: Size) -> Image.Image:
    numbers, total = _numpy(rng), np.zeros((size[1], size[0]), np.float32)
    for octave in range(rng.randint(2, 6)):
        side = 2 ** (octave + 1)
        layer = Image.fromarray(numbers.normal(0, 1, (side, side)).astype(np.float32))
        total += np.asarray(layer.resize(size, Image.BICUBIC)) / (1.5**octave)
    share = ((total - total.min()) / max(float(np.ptp(total)), 1e-6))[..., None]
    first, second, third = (np.array(_any_colour(rng), np.float32) for _ in range(3))
    return _array(np.where(share < 0.5, first + (second - first) * share * 2, second + (third - second) * (share * 2 - 1)))


def gradient(rng: random.Random, size: Size) -> Image.Image:
    source = rng.choice((Image.linear_gradient, Image.radial_gradient))("L").rotate(rng.choice((0, 0, 90, 180, 270)))
    share = np.asarray(source.resize(size), np.float32)[..., None] / 255
    first = np.array(_any_colour(rng), np.float32)
    second = (first + np.array([rng.choice((-1, 1)) * rng.randint(70, 190) for _ in range(3)])) % 256
    return _array(first + (second - first) * share)


def plain(rng: random.Random, size: Size) -> Image.Image:
    """One colour all over, which is no paper's: dark or strong."""
    low, high = sorted(rng.sample(range(200), 2))
    return Image.new("RGB", size, tuple(rng.sample((low, high, rng.randrange(200)), 3)))


def stripes(rng: random.Random, size: Size) -> Image.Image:
    image, pen, _ = _canvas(rng, size)
    step, colours, along = rng.randint(4, 24), [_any_colour(rng) for _ in range(rng.randint(2, 4))], rng.randrange(4)
    for number, at in enumerate(range(-size[1] if along > 1 else 0, max(size) + size[1], step)):
        lean = size[1] if along > 1 else 0
        line = (at, 0, at + lean, size[1]) if along != 1 else (0, at, size[0], at)
        pen.line(line, fill=colours[number % len(colours)], width=max(2, step * 2 // 3))
    return image


def checks(rng: random.Random, size: Size) -> Image.Image:
    columns, rows = rng.randint(4, 20), rng.randint(4, 20)
    colours = np.array([_any_colour(rng) for _ in range(rng.randint(2, 4))], np.uint8)
    places = np.indices((rows, columns)).sum(0) if rng.random() < 0.5 else _numpy(rng).integers(0, 99, (rows, columns))
    return Image.fromarray(colours[places % len(colours)]).resize(size, Image.NEAREST)


def dots(rng: random.Random, size: Size) -> Image.Image:
    image, pen, ground = _canvas(rng, size)
    step = rng.randint(6, 18)
    radius, colour = step * rng.uniform(0.15, 0.42), _ink(rng, ground)
    for y in range(step // 2, size[1] + step, step):
        for x in range(step // 2, size[0] + step, step):
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    return image


def text_page(rng: random.Random, size: Size) -> Image.Image:
    image, pen, ground = _canvas(rng, size)
    height = rng.randint(6, 16)
    ink = _ink(rng, ground)
    for y in range(rng.randint(2, 16), size[1], round(height * rng.uniform(1.2, 1.7))):
        if rng.random() < 0.9:
            pen.text(
                (rng.choice((4, 4, 12)), y),
                _words(rng, rng.randint(1, 3 + size[0] // (4 * height))),
                fill=ink,
                font=_font(height),
            )
    return image


def big_letters(rng: random.Random, size: Size) -> Image.Image:
    image, pen, ground = _canvas(rng, size)
    signs = "ABDEFGHJKLMNPQRSUVWYZabdefghkmnpqrsuwy23456789&%?$@"
    text = rng.choice(("".join(rng.choices(signs, k=rng.randint(1, 4))), rng.choice(WORDS)))
    height = max(12, round(min(size[1] * rng.uniform(0.3, 0.9), 1.4 * size[0] / max(len(text), 1))))
    at = (size[0] * rng.uniform(0.02, 0.35), size[1] * rng.uniform(0, 0.4))
    pen.text(at, text, fill=_ink(rng, ground), font=_font(height))
    return image


def table(rng: random.Random, size: Size) -> Image.Image:
    image, pen, ground = _canvas(rng, size)
    ink, columns, rows = _ink(rng, ground), rng.randint(2, 6), rng.randint(3, 9)
    for row in range(rows + 1):
        y = 2 + row * (size[1] - 5) / rows
        pen.line((2, y, size[0] - 3, y), fill=ink)
        for column in range(columns):
            if row < rows:
                pen.text((5 + column * size[0] / columns, y + 2), rng.choice(WORDS), fill=ink, font=_font(9))
    for column in range(columns + 1):
        x = 2 + column * (size[0] - 5) / columns
        pen.line((x, 2, x, size[1] - 3), fill=ink)
    return image


def _axes(rng: random.Random, size: Size) -> tuple[Image.Image, ImageDraw.ImageDraw, Colour, tuple[int, int, int, int]]:
    image, pen, ground = _canvas(rng, size, rng.choice(((255, 255, 255), (245, 245, 245), (25, 25, 30))))
    ink = (0, 0, 0) if sum(ground) > 300 else (230, 230, 230)
    box = (size[0] // 8, size[1] // 10, size[0] - size[0] // 16, size[1] - size[1] // 7)
    pen.line((box[0], box[1], box[0], box[3], box[2], box[3]), fill=ink, width=rng.randint(1, 2))
    for tick in range(5):
        pen.text((1, box[1] + tick * (box[3] - box[1]) / 5), str(rng.randrange(100)), fill=ink, font=_font(8))
        pen.text((box[0] + tick * (box[2] - box[0]) / 5, box[3] + 2), rng.choice(WORDS)[:5], fill=ink, font=_font(8))
    return image, pen, ground, box


def bar_chart(rng: random.Random, size: Size) -> Image.Image:
    image, pen, ground, (left, top, right, bottom) = _axes(rng, size)
    count, colour = rng.randint(3, 10), _ink(rng, ground)
    width = (right - left) / count
    for number in range(count):
        colour = _ink(rng, ground) if rng.random() < 0.4 else colour
        x, y = left + (number + 0.15) * width, bottom - rng.uniform(0.05, 1) * (bottom - top)
        pen.rectangle((x, y, x + width * 0.7, bottom), fill=colour)
    return image


def line_plot(rng: random.Random, size: Size) -> Image.Image:
    image, pen, ground, (left, top, right, bottom) = _axes(rng, size)
    for _ in range(rng.randint(1, 4)):
        level, points = rng.random(), []
        for step in range(count := rng.randint(6, 40)):
            level = min(1, max(0, level + rng.gauss(0, 0.15)))
            points.append((left + step * (right - left) / count, bottom - level * (bottom - top)))
        pen.line(points, fill=_ink(rng, ground), width=rng.randint(1, 3))
    return image


def scatter_plot(rng: random.Random, size: Size) -> Image.Image:
    image, pen, ground, (left, top, right, bottom) = _axes(rng, size)
    colours = [_ink(rng, ground) for _ in range(rng.randint(1, 3))]
    for _ in range(rng.randint(25, 120)):
        x, y, r = rng.uniform(left, right), rng.uniform(top, bottom), rng.uniform(1, 3)
        pen.ellipse((x - r, y - r, x + r, y + r), fill=rng.choice(colours))
    return image


def pie_chart(rng: random.Random, size: Size) -> Image.Image:
    image, pen, _ = _canvas(rng, size, rng.choice(((255, 255, 255), (240, 240, 240))))
    r = min(size) * rng.uniform(0.25, 0.45)
    x, y, start = size[0] / 2, size[1] / 2, rng.uniform(0, 360)
    cuts = sorted([start, *(start + rng.uniform(10, 350) for _ in range(rng.randint(2, 6)))])
    for first, last in zip(cuts, [*cuts[1:], cuts[0] + 360], strict=True):
        pen.pieslice((x - r, y - r, x + r, y + r), first, last, fill=_any_colour(rng), outline=(255, 255, 255))
    return image


def landscape(rng: random.Random, size: Size) -> Image.Image:
    sky = (rng.randint(90, 200), rng.randint(150, 230), 255)
    image, pen, _ = _canvas(rng, size, sky)
    r, x = min(size) * rng.uniform(0.08, 0.16), size[0] * rng.uniform(0.1, 0.9)
    pen.ellipse((x - r, r / 2, x + r, 2.5 * r), fill=rng.choice(((255, 220, 40), (255, 250, 220), (255, 140, 60))))
    for layer in range(rng.randint(1, 3)):
        level, phase = size[1] * (0.55 + layer * 0.14), rng.uniform(0, 6)
        ridge = [
            (at, level + size[1] * 0.1 * math.sin(phase + at / size[0] * rng.uniform(3, 9))) for at in range(0, size[0] + 8, 8)
        ]
        pen.polygon(
            [*ridge, (size[0], size[1]), (0, size[1])], fill=(rng.randint(20, 120), rng.randint(90, 180), rng.randint(20, 90))
        )
    return image


def face(rng: random.Random, size: Size) -> Image.Image:
    image, pen, ground = _canvas(rng, size)
    r = min(size) * rng.uniform(0.25, 0.46)
    x, y, ink = size[0] / 2, size[1] / 2, _ink(rng, ground)
    skin = rng.choice(((255, 220, 60), (250, 215, 180), (140, 90, 60), ground))
    pen.ellipse((x - r, y - r, x + r, y + r), fill=skin, outline=ink, width=max(1, round(r / 12)))
    for side in (-1, 1):
        pen.ellipse((x + side * r * 0.4 - r / 8, y - r * 0.35, x + side * r * 0.4 + r / 8, y - r * 0.1), fill=(10, 10, 10))
    pen.arc(
        (x - r / 2, y - r / 4, x + r / 2, y + r * 0.6),
        rng.choice((20, 200)),
        rng.choice((160, 340)),
        fill=(60, 0, 0),
        width=max(2, round(r / 12)),
    )
    return image


def stick_figures(rng: random.Random, size: Size) -> Image.Image:
    image, pen, ground = _canvas(rng, size)
    ink, tall, width = _ink(rng, ground), size[1] * rng.uniform(0.4, 0.8), rng.randint(1, 5)
    for number in range(count := rng.randint(1, 4)):
        x, y, lean = (number + 0.5) * size[0] / count, size[1] * 0.9, rng.uniform(-0.15, 0.15) * tall
        pen.ellipse((x - tall / 9, y - tall, x + tall / 9, y - tall * 0.78), outline=ink, width=width)
        pen.line((x, y - tall * 0.78, x, y - tall * 0.35), fill=ink, width=width)
        pen.line(
            (x - tall / 5, y - tall * 0.55 + lean, x, y - tall * 0.65, x + tall / 5, y - tall * 0.55 - lean),
            fill=ink,
            width=width,
        )
        pen.line((x - tall / 6, y, x, y - tall * 0.35, x + tall / 6, y), fill=ink, width=width)
    return image


def scribble(rng: random.Random, size: Size) -> Image.Image:
    image, pen, ground = _canvas(rng, size)
    for _ in range(rng.randint(1, 6)):
        x, y, turn, points = rng.uniform(0, size[0]), rng.uniform(0, size[1]), rng.uniform(0, 6), []
        for _ in range(rng.randint(15, 90)):
            turn += rng.gauss(0, 0.5)
            x, y = min(max(x + 5 * math.cos(turn), 0), size[0]), min(max(y + 5 * math.sin(turn), 0), size[1])
            points.append((x, y))
        pen.line(points, fill=_ink(rng, ground), width=rng.randint(1, 5))
    return image


def mosaic(rng: random.Random, size: Size) -> Image.Image:
    """Overlapping polygons and ellipses up to the edges."""
    image, pen, _ = _canvas(rng, size, _any_colour(rng))
    for _ in range(rng.randint(12, 40)):
        points = [(rng.uniform(-0.2, 1.2) * size[0], rng.uniform(-0.2, 1.2) * size[1]) for _ in range(rng.randint(3, 5))]
        if rng.random() < 0.3:
            (left, right), (top, bottom) = (sorted(point[axis] for point in points[:2]) for axis in (0, 1))
            pen.ellipse((left, top, right, bottom), fill=_any_colour(rng))
        else:
            pen.polygon(points, fill=_any_colour(rng))
    return image


_HEART = [
    (16 * math.sin(t) ** 3 / 17, -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 17)
    for t in (n * math.pi / 16 for n in range(32))
]
_MOON = [(math.cos(t), math.sin(t)) for t in (0.7 + n * 0.2 for n in range(25))] + [
    (0.55 * math.cos(t) + 0.45, 0.75 * math.sin(t)) for t in (5.3 - n * 0.2 for n in range(21))
]
_OTHER_SHAPES = {
    "heart": _HEART,
    "crescent": _MOON,
    "arrow": [(-1, -0.25), (0.2, -0.25), (0.2, -0.7), (1, 0), (0.2, 0.7), (0.2, 0.25), (-1, 0.25)],
    "lightning": [(0.1, -1), (-0.6, 0.15), (-0.1, 0.15), (-0.3, 1), (0.6, -0.25), (0.1, -0.25), (0.5, -1)],
    "key": [
        (-1, -0.4),
        (-0.3, -0.4),
        (-0.3, -0.12),
        (1, -0.12),
        (1, 0.4),
        (0.75, 0.4),
        (0.75, 0.12),
        (-0.3, 0.12),
        (-0.3, 0.4),
        (-1, 0.4),
    ],
    "stairs": [(-1, 1), (-1, 0.5), (-0.35, 0.5), (-0.35, 0), (0.3, 0), (0.3, -0.5), (1, -0.5), (1, 1)],
}
_HELD_OUT_SHAPES = {
    "house": [(-0.8, 1), (-0.8, -0.1), (-1, -0.1), (0, -1), (0.5, -0.55), (0.5, -0.95), (0.75, -0.95), (0.75, -0.3), (1, -0.1), (0.8, -0.1), (0.8, 1), (0.25, 1), (0.25, 0.3), (-0.2, 0.3), (-0.2, 1)],
    "fish": [(-0.9, 0), (-0.4, -0.5), (0.2, -0.35), (0.55, -0.05), (1, -0.5), (0.85, 0), (1, 0.5), (0.55, 0.05), (0.2, 0.35), (-0.4, 0.5)],
    "cup": [(-0.8, -0.8), (0.5, -0.8), (0.5, -0.6), (1, -0.5), (1, 0.2), (0.5, 0.4), (0.45, 0.8), (-0.7, 0.8)],
}  # fmt: skip


def _blob(rng: random.Random) -> Outlines:
    """A round thing with bumps."""
    waves = [(rng.randint(2, 5), rng.uniform(0.12, 0.35), rng.uniform(0, 6.3)) for _ in range(2)]
    turns = [n * math.pi / 24 for n in range(48)]
    radii = [1 + sum(height * math.cos(count * turn + at) for count, height, at in waves) for turn in turns]
    return [[(r / max(radii) * math.cos(turn), r / max(radii) * math.sin(turn)) for r, turn in zip(radii, turns, strict=True)]]


def _built(rng: random.Random) -> Outlines:
    """A thing put together from boxes, wedges and discs of one colour, as buildings, tools and animals are."""
    outlines = []
    for _ in range(rng.randint(2, 4)):
        x, y = rng.uniform(-0.55, 0.55), rng.uniform(-0.55, 0.55)
        wide, tall = rng.uniform(0.15, 1 - abs(x)), rng.uniform(0.15, 1 - abs(y))
        kind = rng.choice(("box", "wedge", "disc"))
        if kind == "box":
            outline = [(-1, -1), (1, -1), (1, 1), (-1, 1)]
        elif kind == "wedge":
            outline = rng.choice((((-1, 1), (0, -1), (1, 1)), ((-1, -1), (1, 0), (-1, 1)), ((1, -1), (-1, 0), (1, 1))))
        else:
            outline = [(math.cos(n * math.pi / 12), math.sin(n * math.pi / 12)) for n in range(24)]
        outlines.append([(x + wide * a, y + tall * b) for a, b in outline])
    return outlines


def _of(shapes: dict[str, list[tuple[float, float]]]) -> Callable[[random.Random], Outlines]:
    return lambda rng: [rng.choice(list(shapes.values()))]


def _shapes(make: Callable[[random.Random], Outlines]) -> Callable[[random.Random, Size], Image.Image]:
    """Shapes that are not the world's, drawn as the world's are: a few, apart, on plain ground."""

    def drawn(rng: random.Random, size: Size) -> Image.Image:
        image, pen, ground = _canvas(
            rng, size, rng.choice(((255, 255, 255), (228, 228, 228), (255, 249, 228), (226, 240, 255)))
        )
        cells = rng.sample(range(9), rng.choices((1, 2, 3, 4), (4, 3, 2, 1))[0])
        for cell in cells:
            outlines, colour = make(rng), _ink(rng, ground)
            radius = min(size) * (rng.uniform(0.25, 0.42) if len(cells) == 1 else rng.uniform(0.1, 0.17))
            x, y = ((axis + 0.5) / 3 * side for axis, side in zip((cell % 3, cell // 3), size, strict=True))
            x, y = (min(max(at, radius), side - radius) for at, side in zip((x, y), size, strict=True))
            cos, sin = math.cos(tilt := rng.uniform(-0.2, 0.2)), math.sin(tilt)
            for points in outlines:
                pen.polygon(
                    [(x + radius * (a * cos - b * sin), y + radius * (a * sin + b * cos)) for a, b in points], fill=colour
                )
        return image

    return drawn


def window(rng: random.Random, size: Size) -> Image.Image:
    """A program's window: title, buttons, fields, or code in colours."""
    image, pen, ground = _canvas(rng, size)
    ink, bar = _ink(rng, ground), max(8, size[1] // 12)
    pen.rectangle((0, 0, size[0], bar), fill=_any_colour(rng))
    pen.text((3, 0), _words(rng, 2), fill=(255, 255, 255), font=_font(bar - 2))
    for line, y in enumerate(range(bar + 4, size[1] - 8, rng.randint(9, 14))):
        indent = rng.choice((4, 4, 14, 24))
        if rng.random() < 0.25:
            pen.rectangle(
                (indent, y, indent + size[0] * rng.uniform(0.2, 0.7), y + 9),
                outline=ink,
                fill=_any_colour(rng) if line % 3 == 0 else None,
            )
        for word in _words(rng, rng.randint(1, 6)).split():
            pen.text((indent, y), word, fill=_ink(rng, ground) if rng.random() < 0.4 else ink, font=_font(8))
            indent += 6 * len(word) + 4
    return image


def code_square(rng: random.Random, size: Size) -> Image.Image:
    """Like a QR code."""
    side = rng.randint(15, 33)
    bits = Image.fromarray((_numpy(rng).random((side, side)) < 0.5).astype(np.uint8) * 255)
    pen = ImageDraw.Draw(bits)
    for x, y in ((0, 0), (side - 7, 0), (0, side - 7)):
        for inset, shade in ((0, 0), (1, 255), (2, 0)):
            pen.rectangle((x + inset, y + inset, x + 6 - inset, y + 6 - inset), fill=shade)
    image = Image.new("L", size, 255)
    width = round(min(size) * rng.uniform(0.6, 0.95))
    image.paste(bits.resize((width, width), Image.NEAREST), ((size[0] - width) // 2, (size[1] - width) // 2))
    return image


def ripples(rng: random.Random, size: Size) -> Image.Image:
    y, x = np.mgrid[: size[1], : size[0]].astype(np.float32)
    far = np.hypot(x - rng.uniform(0, 1) * size[0], y - rng.uniform(0, 1) * size[1])
    share = (np.sin(far / rng.uniform(1.5, 6)) + 1)[..., None] / 2
    first, second = (np.array(_any_colour(rng), np.float32) for _ in range(2))
    return _array(first + (second - first) * share)


@cache
def _photo(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


def _photos(folder: str) -> Callable[[random.Random, Size], Image.Image]:
    paths = sorted((PHOTOS / folder).glob("*.jpg"))

    def crop(rng: random.Random, size: Size) -> Image.Image:
        photo = _photo(rng.choice(paths))
        share = rng.uniform(0.3, 1)
        width, height = round(photo.width * share), round(photo.height * share)
        left, top = rng.randint(0, photo.width - width), rng.randint(0, photo.height - height)
        image = photo.resize(size, Image.BILINEAR, (left, top, left + width, top + height))
        if folder == "train":  # a few photographs stand for all: turned, tinted, washed out, blurred
            image = image.transpose(rng.choice((Image.FLIP_LEFT_RIGHT, Image.FLIP_TOP_BOTTOM, Image.ROTATE_180)))
            tint = np.array([rng.uniform(0.5, 1.3) for _ in range(3)], np.float32)
            image = _array((np.asarray(image, np.float32) - 128) * rng.uniform(0.4, 1.3) * tint + rng.uniform(70, 190))
            image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0, 2))) if rng.random() < 0.4 else image
        return image

    return crop


def collage(rng: random.Random, size: Size) -> Image.Image:
    """Several foreign pictures side by side."""
    parts = [clouds, stripes, text_page, mosaic, _photos("train"), noise, bar_chart]
    image, half = Image.new("RGB", size), (size[0] // 2 + 1, size[1] // 2 + 1)
    for x in (0, half[0]):
        for y in (0, half[1]):
            image.paste(rng.choice(parts)(rng, half).convert("RGB"), (x, y))
    return image


def web_page(rng: random.Random, size: Size) -> Image.Image:
    image, pen, _ = _canvas(rng, size, (255, 255, 255))
    pen.rectangle((0, 0, size[0], size[1] // 7), fill=_any_colour(rng))
    pen.text((4, 2), _words(rng, 3), fill=(255, 255, 255), font=_font(max(8, size[1] // 12)))
    middle = size[0] * rng.uniform(0.3, 0.7)
    image.paste(clouds(rng, (max(8, round(size[0] - middle)) - 6, size[1] // 3)), (round(middle), size[1] // 5))
    for y in range(size[1] // 5, size[1], 9):
        end = middle - 6 if y < size[1] * 0.56 else size[0] - 4
        pen.line((4, y, rng.uniform(0.6, 1) * end, y), fill=(90, 90, 90), width=rng.choice((1, 2, 4)))
    return image


def street_map(rng: random.Random, size: Size) -> Image.Image:
    image, pen, _ = _canvas(rng, size, (240, 237, 228))
    pen.polygon([(rng.uniform(0, 1) * size[0], rng.uniform(0, 1) * size[1]) for _ in range(5)], fill=(170, 210, 230))
    pen.polygon([(rng.uniform(0, 1) * size[0], rng.uniform(0, 1) * size[1]) for _ in range(5)], fill=(200, 225, 180))
    for _ in range(rng.randint(6, 14)):
        ends = (-5, rng.uniform(0, size[1]), size[0] + 5, rng.uniform(0, size[1]))
        if rng.random() < 0.5:
            ends = (rng.uniform(0, size[0]), -5, rng.uniform(0, size[0]), size[1] + 5)
        width = rng.choice((2, 3, 5))
        pen.line(ends, fill=(180, 170, 160), width=width + 2)
        pen.line(ends, fill=rng.choice(((255, 255, 255), (255, 225, 130))), width=width)
    return image


def flowers(rng: random.Random, size: Size) -> Image.Image:
    image, pen, ground = _canvas(rng, size, rng.choice(((255, 255, 255), (200, 230, 255))))
    for number in range(count := rng.randint(1, 3)):
        x, y, r = (number + 0.5) * size[0] / count, size[1] * rng.uniform(0.3, 0.45), min(size) * rng.uniform(0.08, 0.15)
        pen.line((x, y, x + rng.uniform(-r, r), size[1]), fill=(40, 130, 50), width=max(2, round(r / 4)))
        petal = _ink(rng, ground)
        for turn in range(petals := rng.randint(5, 8)):
            px, py = x + r * math.cos(turn * 2 * math.pi / petals), y + r * math.sin(turn * 2 * math.pi / petals)
            pen.ellipse((px - r * 0.6, py - r * 0.6, px + r * 0.6, py + r * 0.6), fill=petal, outline=(90, 60, 60))
        pen.ellipse((x - r / 2, y - r / 2, x + r / 2, y + r / 2), fill=(255, 210, 50))
    return image


def maze(rng: random.Random, size: Size) -> Image.Image:
    image, pen, ground = _canvas(rng, size, (255, 255, 255))
    step, ink, width = rng.randint(8, 20), _ink(rng, ground), rng.randint(1, 3)
    for x in range(0, size[0], step):
        for y in range(0, size[1], step):
            ends = (x, y, x + step, y + step) if rng.random() < 0.5 else (x, y + step, x + step, y)
            pen.line(ends, fill=ink, width=width)
    return image


def music(rng: random.Random, size: Size) -> Image.Image:
    image, pen, _ = _canvas(rng, size, (255, 255, 250))
    gap = max(3, size[1] // 30)
    for top in range(gap * 2, size[1] - gap * 5, gap * 9):
        for line in range(5):
            pen.line((3, top + line * gap, size[0] - 3, top + line * gap), fill=(0, 0, 0))
        for x in range(gap * 3, size[0] - gap * 2, gap * 3):
            y = top + rng.uniform(-1, 5) * gap
            pen.ellipse((x - gap * 0.7, y - gap / 2, x + gap * 0.7, y + gap / 2), fill=(0, 0, 0))
            pen.line((x + gap * 0.6, y, x + gap * 0.6, y - gap * 3), fill=(0, 0, 0))
    return image


def night_sky(rng: random.Random, size: Size) -> Image.Image:
    image, pen, _ = _canvas(rng, size, (rng.randrange(15), rng.randrange(15), rng.randint(10, 50)))
    for _ in range(rng.randint(40, 160)):
        x, y, r = rng.uniform(0, size[0]), rng.uniform(0, size[1]), rng.choice((0.5, 0.5, 1, 1.6))
        pen.ellipse((x - r, y - r, x + r, y + r), fill=(255, 255, rng.randint(180, 255)))
    return image


def flag(rng: random.Random, size: Size) -> Image.Image:
    colours = np.array([[_any_colour(rng) for _ in range(3)]], np.uint8)
    return Image.fromarray(colours if rng.random() < 0.5 else colours.transpose(1, 0, 2)).resize(size, Image.NEAREST)


KINDS: dict[str, dict[str, Callable[[random.Random, Size], Image.Image]]] = {
    "train": {
        "noise": noise, "clouds": clouds, "gradient": gradient, "plain": plain, "stripes": stripes, "checks": checks,
        "dots": dots, "text page": text_page, "big letters": big_letters, "table": table, "bar chart": bar_chart,
        "line plot": line_plot, "scatter plot": scatter_plot, "pie chart": pie_chart, "landscape": landscape, "face": face,
        "stick figures": stick_figures, "scribble": scribble, "mosaic": mosaic, "other shapes": _shapes(_of(_OTHER_SHAPES)),
        "window": window, "code square": code_square, "ripples": ripples, "textures and far things": _photos("train"),
        "collage": collage, "blobs": _shapes(_blob), "built things": _shapes(_built),
    },
    "held_out": {
        "photograph": _photos("held_out"), "web page": web_page, "street map": street_map, "flowers": flowers, "maze": maze,
        "music": music, "night sky": night_sky, "flag": flag, "house, fish, cup": _shapes(_of(_HELD_OUT_SHAPES)),
    },
}  # fmt: skip
"""Split -> kind -> what draws one."""

NEAREST = ("other shapes", "blobs", "built things")
"""Kinds that look most like the world, and are taught more often."""
