"""What a picture of the world shows, and how it is drawn.

A `Scene` is the meaning of a picture: up to four coloured shapes, each on its own place of a 3x3 grid, on plain
ground; or that it is not of the world at all (foreign/). `draw` makes a picture of it; shade, exact spot, exact size, strokes
and tilt vary from drawing to drawing, as they do between people. Two scenes of the same things are the same picture (see `split_of`).

Questions and answers do not belong here (grammar.py), nor does training data (world.py).
"""

import hashlib
import math
import random
from dataclasses import dataclass

from PIL import Image, ImageDraw

from .foreign import KINDS, NEAREST, draw_foreign

# Every colour has several shades, as in a paint program's palette; a drawing varies around one of them.
COLOURS = {
    "red": ((237, 28, 36), (255, 0, 0), (200, 20, 30)),
    "orange": ((255, 127, 39), (255, 140, 0), (245, 120, 10)),
    "yellow": ((255, 242, 0), (255, 255, 0), (255, 230, 30)),
    "green": ((34, 177, 76), (0, 128, 0), (0, 210, 0), (0, 255, 0)),
    "blue": ((63, 72, 204), (0, 0, 255), (0, 100, 225), (30, 50, 150)),
    "purple": ((163, 73, 164), (128, 0, 128), (110, 40, 165)),
    "pink": ((255, 174, 201), (255, 105, 180), (255, 150, 190)),
    "black": ((0, 0, 0), (10, 10, 10), (35, 35, 35)),
}
SHAPES = ("circle", "square", "triangle", "ring", "cross", "star")
PLACES = ("top left", "top", "top right", "left", "centre", "right", "bottom left", "bottom", "bottom right")
# Radius as a share of the picture's shorter side, from and to; smaller where neighbours leave less room.
SIZES = {"small": (0.09, 0.12), "medium": (0.12, 0.16), "large": (0.16, 0.24)}
BACKGROUNDS = {
    "white": (255, 255, 255),
    "grey": (228, 228, 228),
    "cream": (255, 249, 228),
    "light blue": (226, 240, 255),
    "light green": (229, 246, 229),
}
SPLITS = ("train", "held_out")
MAX_THINGS = 4

_HELD_OUT_SHARE = 0.1
_SMALLEST = 0.085  # the radius that always fits, whatever stands around
_REACH = 0.28  # how far a thing may be from the middle of its cell, in cells: 0.5 would be the neighbour's border
_ROOM = 1.22  # the room a thing takes, in radii: corners stick out
_SUPERSAMPLING = 3
_LARGE_PX = 160 * 160  # edges of larger pictures need less of it
_THINNEST_PX = 3.0  # the thinnest stroke

_ROUND = [(math.cos(turn * math.pi / 24), math.sin(turn * math.pi / 24)) for turn in range(48)]
_STAR = [
    (length * math.sin(turn * math.pi / 5), -length * math.cos(turn * math.pi / 5))
    for turn, length in enumerate((1.1, 0.45) * 5)
]
_ARM = 0.3
_CROSS = [(_ARM, -1), (_ARM, -_ARM), (1, -_ARM), (1, _ARM), (_ARM, _ARM), (_ARM, 1)]
_CROSS += [(-x, -y) for x, y in _CROSS]
_CORNERED = {
    "square": [(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)],
    "triangle": [(0, -0.95), (0.95, 0.75), (-0.95, 0.75)],
    "star": _STAR,
}


@dataclass(frozen=True)
class Thing:
    """A coloured shape on a place. The size is never asked for: it only varies the picture."""

    colour: str
    shape: str
    place: str
    size: str = "medium"

    def __post_init__(self):
        for field, allowed in (("colour", COLOURS), ("shape", SHAPES), ("place", PLACES), ("size", SIZES)):
            if getattr(self, field) not in allowed:
                raise ValueError(f"Unknown {field} {getattr(self, field)!r}. The world has: {', '.join(allowed)}.")


@dataclass(frozen=True)
class Scene:
    """Things in reading order (they are sorted on creation), at most one on each place."""

    things: tuple[Thing, ...] = ()
    background: str = "white"
    foreign: str | None = None
    """A kind of `foreign.KINDS`: the picture is not of the world, and shows no things."""

    def __post_init__(self):
        if self.background not in BACKGROUNDS:
            raise ValueError(f"Unknown background {self.background!r}. The world has: {', '.join(BACKGROUNDS)}.")
        if self.foreign is not None and (self.things or not any(self.foreign in kinds for kinds in KINDS.values())):
            raise ValueError(f"A foreign picture of kind {self.foreign!r} with {len(self.things)} things: see foreign.KINDS.")
        if len(self.things) > MAX_THINGS:
            raise ValueError(f"{len(self.things)} things in a scene, at most {MAX_THINGS} are allowed.")
        if len({thing.place for thing in self.things}) < len(self.things):
            raise ValueError(f"Two things on one place: {[thing.place for thing in self.things]!r}.")
        object.__setattr__(self, "things", tuple(sorted(self.things, key=lambda thing: PLACES.index(thing.place))))


def split_of(scene: Scene) -> str:
    """The one split a scene belongs to, decided by a hash of what it shows.

    Size and background are left out: a scene on other ground, or with a larger circle, is still the same picture.
    So the empty picture exists once, and is in "train". A foreign picture goes by its kind.
    """
    if scene.foreign:
        return next(split for split, kinds in KINDS.items() if scene.foreign in kinds)
    shown = "; ".join(f"{thing.place}: {thing.colour} {thing.shape}" for thing in scene.things)
    share = int.from_bytes(hashlib.sha256(shown.encode()).digest()[:4], "big") / 2**32
    return "held_out" if share < _HELD_OUT_SHARE else "train"


def make_scene(rng: random.Random, split: str, palette: tuple[list[str], list[str]] | None = None) -> Scene:
    """A random scene of this split.

    Args:
        palette: the colours and the shapes to choose from (see `make_palette`); a fresh one if not given.

    Raises:
        ValueError: there is no such split.
    """
    if split not in SPLITS:
        raise ValueError(f"Unknown split {split!r}. Available: {', '.join(SPLITS)}.")
    while True:
        colours, shapes = palette or make_palette(rng)
        count = rng.choices(range(MAX_THINGS + 1), weights=(1, 8, 12, 12, 12))[0]
        things = tuple(
            Thing(rng.choice(colours), rng.choice(shapes), place, rng.choice(tuple(SIZES)))
            for place in rng.sample(PLACES, count)
        )
        background = "white" if rng.random() < 0.5 else rng.choice(tuple(BACKGROUNDS))
        scene = Scene(things, background)
        if split_of(scene) == split:
            return scene


def make_foreign(rng: random.Random, split: str) -> Scene:
    """A picture that is not of the world, of a kind of this split; of the training split every other is of `NEAREST`."""
    kinds = NEAREST if split == "train" and rng.random() < 1 / 2 else tuple(KINDS[split])
    return Scene(foreign=rng.choice(kinds))


def make_palette(rng: random.Random) -> tuple[list[str], list[str]]:
    """Colours and shapes a scene is made of: often few, so that there are equal ones to count and near misses."""
    colours = rng.sample(tuple(COLOURS), rng.choice((2, 3, len(COLOURS), len(COLOURS))))
    shapes = rng.sample(SHAPES, rng.choice((2, 3, len(SHAPES), len(SHAPES))))
    return colours, shapes


def attributes(scene: Scene) -> list[tuple[int, int]]:
    """(colour, shape) of the nine places in reading order, for pre-training a vision encoder.

    0 means empty, otherwise 1 + the index in `COLOURS` and in `SHAPES`.
    """
    at = {thing.place: thing for thing in scene.things}
    colours = list(COLOURS)
    return [
        (1 + colours.index(at[place].colour), 1 + SHAPES.index(at[place].shape)) if place in at else (0, 0) for place in PLACES
    ]


def draw(scene: Scene, rng: random.Random, size_px: tuple[int, int] = (128, 128)) -> Image.Image:
    """Draw a scene, anti-aliased; what the scene leaves open is taken from `rng`.

    Args:
        size_px: width and height of the picture.

    Returns:
        An RGB image.
    """
    if scene.foreign:
        return draw_foreign(scene.foreign, rng, size_px)
    finer = _SUPERSAMPLING if size_px[0] * size_px[1] < _LARGE_PX else _SUPERSAMPLING - 1
    width, height = (side * finer for side in size_px)
    ground = _shade(rng, BACKGROUNDS[scene.background], 0 if scene.background == "white" else 4)
    image = Image.new("RGB", (width, height), ground)
    pen = ImageDraw.Draw(image)
    spots = _layout(scene, rng, width, height)
    for thing in scene.things:
        x, y, radius = spots[thing.place]
        colour = _shade(rng, rng.choice(COLOURS[thing.colour]), 12)
        for fill, outline in zip((colour, ground), _outlines(thing.shape, rng, _THINNEST_PX * finer / radius), strict=False):
            pen.polygon([(x + radius * dx, y + radius * dy) for dx, dy in outline], fill=fill)
    return image.reduce(finer)


def _shade(rng: random.Random, base: tuple[int, ...], spread: int) -> tuple[int, ...]:
    return tuple(min(255, max(0, channel + rng.randint(-spread, spread))) for channel in base)


def _layout(scene: Scene, rng: random.Random, width: int, height: int) -> dict[str, tuple[float, float, float]]:
    """Place -> (x, y, radius) in pixels: near the middle of its cell, inside the picture, touching nothing else.

    Every thing first gets the smallest size in the middle of its cell, where all fit; then each takes what it can.
    """
    side = min(width, height)
    spots = {}
    for place in (thing.place for thing in scene.things):
        row, column = divmod(PLACES.index(place), 3)
        spots[place] = ((column + 0.5) * width / 3, (row + 0.5) * height / 3, _SMALLEST * side)
    for thing in scene.things:
        smallest, largest = SIZES[thing.size]
        if thing.size != "small" and len(spots) == 1:
            largest = 0.42 if thing.place == "centre" else 0.26  # one thing that fills the picture: what many people draw first
        middle_x, middle_y, _ = spots[thing.place]
        others = [spot for place, spot in spots.items() if place != thing.place]
        radius = rng.uniform(smallest, largest) * side
        while radius > _SMALLEST * side:
            x = middle_x + rng.uniform(-_REACH, _REACH) * width / 3
            y = middle_y + rng.uniform(-_REACH, _REACH) * height / 3
            x = min(max(x, _ROOM * radius), width - _ROOM * radius)
            y = min(max(y, _ROOM * radius), height - _ROOM * radius)
            if all(math.hypot(x - far_x, y - far_y) > _ROOM * (radius + far) for far_x, far_y, far in others):
                spots[thing.place] = (x, y, radius)
                break
            radius *= 0.92
    return spots


def _outlines(shape: str, rng: random.Random, thinnest: float) -> list[list[tuple[float, float]]]:
    """The outlines of a shape of radius 1 around (0, 0), a little uneven; the second one, if any, is a hole.

    Strokes of rings and crosses are `thinnest` or wider, in radii.
    """
    is_thin = rng.random() < 0.3
    if shape == "cross":
        arm = rng.uniform(min(0.3, max(0.1, thinnest / 2)), 0.3) if is_thin else _ARM
        widths = {_ARM: arm, -_ARM: -arm}
        outlines = [[(widths.get(x, x), widths.get(y, y)) for x, y in _CROSS]]
    elif shape in _CORNERED:
        outlines = [[(x + rng.uniform(-0.05, 0.05), y + rng.uniform(-0.05, 0.05)) for x, y in _CORNERED[shape]]]
    else:
        hole = rng.uniform(0.7, max(0.7, min(0.9, 1 - thinnest))) if is_thin else rng.uniform(0.5, 0.7)
        outlines = [_ROUND, [(hole * x, hole * y) for x, y in _ROUND]][: 2 if shape == "ring" else 1]
    narrow = rng.uniform(0.7 if is_thin else 0.86, 1)
    wide, tall = rng.choice(((1, narrow), (narrow, 1)))
    tilt = rng.uniform(-0.14, 0.14)
    cos, sin = math.cos(tilt), math.sin(tilt)
    return [[(wide * x * cos - tall * y * sin, wide * x * sin + tall * y * cos) for x, y in line] for line in outlines]
