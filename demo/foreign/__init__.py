"""Pictures that are not of the world: what the demo model has to say "I do not know" to.

Kinds of "train" are taught, kinds of "held_out" are asked about in the exam only: what counts is that a picture of a kind that was
never seen is known to be foreign. Most are drawn; the photographs in photos/ are named with their licences in NOTICE.
"""

import random
from collections.abc import Callable

from PIL import Image

from .canvas import Size
from .held_out import flag, flowers, maze, music, night_sky, street_map, web_page
from .photographs import photos
from .shapes import HELD_OUT_SHAPES, OTHER_SHAPES, blob, built, near_miss, one_of, shapes, silhouette
from .taught import (
    bar_chart,
    big_letters,
    checks,
    clouds,
    code_square,
    collage,
    dots,
    face,
    gradient,
    landscape,
    line_plot,
    mosaic,
    noise,
    pie_chart,
    plain,
    ripples,
    scatter_plot,
    scribble,
    stick_figures,
    stripes,
    table,
    text_page,
    window,
)


def draw_foreign(kind: str, rng: random.Random, size_px: Size) -> Image.Image:
    """A picture of a kind of `KINDS`, RGB, of this width and height; the same `rng` draws the same."""
    return {**KINDS["train"], **KINDS["held_out"]}[kind](rng, size_px).convert("RGB")


KINDS: dict[str, dict[str, Callable[[random.Random, Size], Image.Image]]] = {
    "train": {
        "noise": noise, "clouds": clouds, "gradient": gradient, "plain": plain, "stripes": stripes, "checks": checks,
        "dots": dots, "text page": text_page, "big letters": big_letters, "table": table, "bar chart": bar_chart,
        "line plot": line_plot, "scatter plot": scatter_plot, "pie chart": pie_chart, "landscape": landscape, "face": face,
        "stick figures": stick_figures, "scribble": scribble, "mosaic": mosaic, "other shapes": shapes(one_of(OTHER_SHAPES)),
        "window": window, "code square": code_square, "ripples": ripples, "textures and far things": photos("train"),
        "collage": collage, "blobs": shapes(blob), "built things": shapes(built),
        "silhouettes": shapes(silhouette), "near misses": shapes(near_miss),
    },
    "held_out": {
        "photograph": photos("held_out"), "web page": web_page, "street map": street_map, "flowers": flowers, "maze": maze,
        "music": music, "night sky": night_sky, "flag": flag, "house, fish, cup": shapes(one_of(HELD_OUT_SHAPES)),
    },
}  # fmt: skip
"""Split -> kind -> what draws one."""
NEAREST = ("other shapes", "blobs", "built things", "silhouettes", "near misses")
"""Kinds that look most like the world, and are taught more often."""
