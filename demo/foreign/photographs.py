"""Crops of the photographs in demo/photos; NOTICE names their licences."""

import random
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from .canvas import Size, picture_of

PHOTOS = Path(__file__).resolve().parents[1] / "photos"


@cache
def _photo(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


def photos(folder: str) -> Callable[[random.Random, Size], Image.Image]:
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
            image = picture_of((np.asarray(image, np.float32) - 128) * rng.uniform(0.4, 1.3) * tint + rng.uniform(70, 190))
            image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0, 2))) if rng.random() < 0.4 else image
        return image

    return crop
