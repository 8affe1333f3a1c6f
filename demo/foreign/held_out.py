"""Kinds of pictures that only the exam shows."""

import math
import random

import numpy as np
from PIL import Image

from .canvas import Size, any_colour, any_ink, canvas, font, words
from .taught import clouds


def web_page(rng: random.Random, size: Size) -> Image.Image:
    image, pen, _ = canvas(rng, size, (255, 255, 255))
    pen.rectangle((0, 0, size[0], size[1] // 7), fill=any_colour(rng))
    pen.text((4, 2), words(rng, 3), fill=(255, 255, 255), font=font(max(8, size[1] // 12)))
    middle = size[0] * rng.uniform(0.3, 0.7)
    image.paste(clouds(rng, (max(8, round(size[0] - middle)) - 6, size[1] // 3)), (round(middle), size[1] // 5))
    for y in range(size[1] // 5, size[1], 9):
        end = middle - 6 if y < size[1] * 0.56 else size[0] - 4
        pen.line((4, y, rng.uniform(0.6, 1) * end, y), fill=(90, 90, 90), width=rng.choice((1, 2, 4)))
    return image


def street_map(rng: random.Random, size: Size) -> Image.Image:
    image, pen, _ = canvas(rng, size, (240, 237, 228))
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
    image, pen, ground = canvas(rng, size, rng.choice(((255, 255, 255), (200, 230, 255))))
    for number in range(count := rng.randint(1, 3)):
        x, y, r = (number + 0.5) * size[0] / count, size[1] * rng.uniform(0.3, 0.45), min(size) * rng.uniform(0.08, 0.15)
        pen.line((x, y, x + rng.uniform(-r, r), size[1]), fill=(40, 130, 50), width=max(2, round(r / 4)))
        petal = any_ink(rng, ground)
        for turn in range(petals := rng.randint(5, 8)):
            px, py = x + r * math.cos(turn * 2 * math.pi / petals), y + r * math.sin(turn * 2 * math.pi / petals)
            pen.ellipse((px - r * 0.6, py - r * 0.6, px + r * 0.6, py + r * 0.6), fill=petal, outline=(90, 60, 60))
        pen.ellipse((x - r / 2, y - r / 2, x + r / 2, y + r / 2), fill=(255, 210, 50))
    return image


def maze(rng: random.Random, size: Size) -> Image.Image:
    image, pen, ground = canvas(rng, size, (255, 255, 255))
    step, ink, width = rng.randint(8, 20), any_ink(rng, ground), rng.randint(1, 3)
    for x in range(0, size[0], step):
        for y in range(0, size[1], step):
            ends = (x, y, x + step, y + step) if rng.random() < 0.5 else (x, y + step, x + step, y)
            pen.line(ends, fill=ink, width=width)
    return image


def music(rng: random.Random, size: Size) -> Image.Image:
    image, pen, _ = canvas(rng, size, (255, 255, 250))
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
    image, pen, _ = canvas(rng, size, (rng.randrange(15), rng.randrange(15), rng.randint(10, 50)))
    for _ in range(rng.randint(40, 160)):
        x, y, r = rng.uniform(0, size[0]), rng.uniform(0, size[1]), rng.choice((0.5, 0.5, 1, 1.6))
        pen.ellipse((x - r, y - r, x + r, y + r), fill=(255, 255, rng.randint(180, 255)))
    return image


def flag(rng: random.Random, size: Size) -> Image.Image:
    colours = np.array([[any_colour(rng) for _ in range(3)]], np.uint8)
    return Image.fromarray(colours if rng.random() < 0.5 else colours.transpose(1, 0, 2)).resize(size, Image.NEAREST)
