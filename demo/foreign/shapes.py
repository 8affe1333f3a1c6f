"""Shapes that are none of the world's, drawn as the world's are."""

import math
import random
from collections.abc import Callable

from PIL import Image

from .canvas import Size, any_ink, canvas

Outlines = list[list[tuple[float, float]]]
_HEART = [
    (16 * math.sin(t) ** 3 / 17, -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 17)
    for t in (n * math.pi / 16 for n in range(32))
]
_MOON = [(math.cos(t), math.sin(t)) for t in (0.7 + n * 0.2 for n in range(25))] + [
    (0.55 * math.cos(t) + 0.45, 0.75 * math.sin(t)) for t in (5.3 - n * 0.2 for n in range(21))
]
OTHER_SHAPES = {
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
HELD_OUT_SHAPES = {
    "house": [(-0.8, 1), (-0.8, -0.1), (-1, -0.1), (0, -1), (0.5, -0.55), (0.5, -0.95), (0.75, -0.95), (0.75, -0.3), (1, -0.1), (0.8, -0.1), (0.8, 1), (0.25, 1), (0.25, 0.3), (-0.2, 0.3), (-0.2, 1)],
    "fish": [(-0.9, 0), (-0.4, -0.5), (0.2, -0.35), (0.55, -0.05), (1, -0.5), (0.85, 0), (1, 0.5), (0.55, 0.05), (0.2, 0.35), (-0.4, 0.5)],
    "cup": [(-0.8, -0.8), (0.5, -0.8), (0.5, -0.6), (1, -0.5), (1, 0.2), (0.5, 0.4), (0.45, 0.8), (-0.7, 0.8)],
}  # fmt: skip


def blob(rng: random.Random) -> Outlines:
    """A round thing with bumps."""
    waves = [(rng.randint(2, 5), rng.uniform(0.12, 0.35), rng.uniform(0, 6.3)) for _ in range(2)]
    turns = [n * math.pi / 24 for n in range(48)]
    radii = [1 + sum(height * math.cos(count * turn + at) for count, height, at in waves) for turn in turns]
    return [[(r / max(radii) * math.cos(turn), r / max(radii) * math.sin(turn)) for r, turn in zip(radii, turns, strict=True)]]


def built(rng: random.Random) -> Outlines:
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


def silhouette(rng: random.Random) -> Outlines:
    """A jagged outline, half of them the same on both sides."""
    if rng.random() < 0.5:
        turns = sorted(rng.uniform(0, 2 * math.pi) for _ in range(rng.randint(6, 13)))
        return [[(r * math.cos(turn), r * math.sin(turn)) for turn in turns for r in [rng.uniform(0.35, 1)]]]
    heights = sorted(rng.uniform(-1, 1) for _ in range(rng.randint(3, 6)))
    half = [(rng.uniform(0.2, 1), height) for height in heights]
    outline = [*half, *((-x, y) for x, y in reversed(half))]
    return [outline if rng.random() < 0.5 else [(y, x) for x, y in outline]]


def near_miss(rng: random.Random) -> Outlines:
    """A plain shape with something that does not belong to it: a handle, a chimney, a tail, an ear."""
    sides = rng.choice((3, 4, 4, 24))
    at = {3: -math.pi / 2, 4: math.pi / 4, 24: 0}[sides]
    reach, flat = rng.uniform(0.6, 0.8), rng.uniform(0.6, 1)
    body = [
        (reach * math.cos(at + n * 2 * math.pi / sides), flat * reach * math.sin(at + n * 2 * math.pi / sides))
        for n in range(sides)
    ]
    outlines = [body]
    for turn in rng.sample((0, 1, 2, 3, 4, 5, 6, 7), rng.randint(1, 2)):
        turn *= math.pi / 4
        width, inner, outer = rng.uniform(0.15, 0.4), reach * 0.3, rng.uniform(0.9, 1)
        begin, end = rng.choice(((1, 1), (1, 1), (0.3, 1.3), (1.3, 0.3)))
        corners = ((inner, -width * begin), (outer, -width * end), (outer, width * end), (inner, width * begin))
        cos, sin = math.cos(turn), math.sin(turn)
        outlines.append([(a * cos - b * sin, a * sin + b * cos) for a, b in corners])
    return outlines


def one_of(shapes: dict[str, list[tuple[float, float]]]) -> Callable[[random.Random], Outlines]:
    return lambda rng: [rng.choice(list(shapes.values()))]


def shapes(make: Callable[[random.Random], Outlines]) -> Callable[[random.Random, Size], Image.Image]:
    """Shapes that are not the world's, drawn as the world's are: a few, apart, on plain ground."""

    def drawn(rng: random.Random, size: Size) -> Image.Image:
        image, pen, ground = canvas(rng, size, rng.choice(((255, 255, 255), (228, 228, 228), (255, 249, 228), (226, 240, 255))))
        cells = rng.sample(range(9), rng.choices((1, 2, 3, 4), (4, 3, 2, 1))[0])
        for cell in cells:
            outlines, colour = make(rng), any_ink(rng, ground)
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
