"""Kinds of pictures that are taught: patterns, texts, tables, plots, scenes, doodles, and several of them side by side."""

import math
import random

import numpy as np
from PIL import Image, ImageDraw

from .canvas import WORDS, Colour, Size, any_colour, any_ink, canvas, font, numpy_rng, picture_of, words
from .photographs import photos


def noise(rng: random.Random, size: Size) -> Image.Image:
    coarse = rng.choice((1, 2, 4, 8))
    shape = (max(2, size[1] // coarse), max(2, size[0] // coarse), rng.choice((1, 3)))
    values = numpy_rng(rng).normal(rng.uniform(60, 200), rng.uniform(25, 110), shape)
    return picture_of(np.broadcast_to(values, (*shape[:2], 3))).resize(size, rng.choice((Image.NEAREST, Image.BILINEAR)))


def clouds(rng: random.Random, size: Size) -> Image.Image:
    numbers, total = numpy_rng(rng), np.zeros((size[1], size[0]), np.float32)
    for octave in range(rng.randint(2, 6)):
        side = 2 ** (octave + 1)
        layer = Image.fromarray(numbers.normal(0, 1, (side, side)).astype(np.float32))
        total += np.asarray(layer.resize(size, Image.BICUBIC)) / (1.5**octave)
    share = ((total - total.min()) / max(float(np.ptp(total)), 1e-6))[..., None]
    first, second, third = (np.array(any_colour(rng), np.float32) for _ in range(3))
    return picture_of(np.where(share < 0.5, first + (second - first) * share * 2, second + (third - second) * (share * 2 - 1)))


def gradient(rng: random.Random, size: Size) -> Image.Image:
    source = rng.choice((Image.linear_gradient, Image.radial_gradient))("L").rotate(rng.choice((0, 0, 90, 180, 270)))
    share = np.asarray(source.resize(size), np.float32)[..., None] / 255
    first = np.array(any_colour(rng), np.float32)
    second = (first + np.array([rng.choice((-1, 1)) * rng.randint(70, 190) for _ in range(3)])) % 256
    return picture_of(first + (second - first) * share)


def plain(rng: random.Random, size: Size) -> Image.Image:
    """One colour all over, which is no paper's: dark or strong."""
    low, high = sorted(rng.sample(range(200), 2))
    return Image.new("RGB", size, tuple(rng.sample((low, high, rng.randrange(200)), 3)))


def stripes(rng: random.Random, size: Size) -> Image.Image:
    image, pen, _ = canvas(rng, size)
    step, colours, along = rng.randint(4, 24), [any_colour(rng) for _ in range(rng.randint(2, 4))], rng.randrange(4)
    for number, at in enumerate(range(-size[1] if along > 1 else 0, max(size) + size[1], step)):
        lean = size[1] if along > 1 else 0
        line = (at, 0, at + lean, size[1]) if along != 1 else (0, at, size[0], at)
        pen.line(line, fill=colours[number % len(colours)], width=max(2, step * 2 // 3))
    return image


def checks(rng: random.Random, size: Size) -> Image.Image:
    columns, rows = rng.randint(4, 20), rng.randint(4, 20)
    colours = np.array([any_colour(rng) for _ in range(rng.randint(2, 4))], np.uint8)
    places = np.indices((rows, columns)).sum(0) if rng.random() < 0.5 else numpy_rng(rng).integers(0, 99, (rows, columns))
    return Image.fromarray(colours[places % len(colours)]).resize(size, Image.NEAREST)


def dots(rng: random.Random, size: Size) -> Image.Image:
    image, pen, ground = canvas(rng, size)
    step = rng.randint(6, 18)
    radius, colour = step * rng.uniform(0.15, 0.42), any_ink(rng, ground)
    for y in range(step // 2, size[1] + step, step):
        for x in range(step // 2, size[0] + step, step):
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    return image


def text_page(rng: random.Random, size: Size) -> Image.Image:
    image, pen, ground = canvas(rng, size)
    height = rng.randint(6, 16)
    ink = any_ink(rng, ground)
    for y in range(rng.randint(2, 16), size[1], round(height * rng.uniform(1.2, 1.7))):
        if rng.random() < 0.9:
            pen.text(
                (rng.choice((4, 4, 12)), y),
                words(rng, rng.randint(1, 3 + size[0] // (4 * height))),
                fill=ink,
                font=font(height),
            )
    return image


def big_letters(rng: random.Random, size: Size) -> Image.Image:
    image, pen, ground = canvas(rng, size)
    signs = "ABDEFGHJKLMNPQRSUVWYZabdefghkmnpqrsuwy23456789&%?$@"
    text = rng.choice(("".join(rng.choices(signs, k=rng.randint(1, 4))), rng.choice(WORDS)))
    height = max(12, round(min(size[1] * rng.uniform(0.3, 0.9), 1.4 * size[0] / max(len(text), 1))))
    at = (size[0] * rng.uniform(0.02, 0.35), size[1] * rng.uniform(0, 0.4))
    pen.text(at, text, fill=any_ink(rng, ground), font=font(height))
    return image


def table(rng: random.Random, size: Size) -> Image.Image:
    image, pen, ground = canvas(rng, size)
    ink, columns, rows = any_ink(rng, ground), rng.randint(2, 6), rng.randint(3, 9)
    for row in range(rows + 1):
        y = 2 + row * (size[1] - 5) / rows
        pen.line((2, y, size[0] - 3, y), fill=ink)
        for column in range(columns):
            if row < rows:
                pen.text((5 + column * size[0] / columns, y + 2), rng.choice(WORDS), fill=ink, font=font(9))
    for column in range(columns + 1):
        x = 2 + column * (size[0] - 5) / columns
        pen.line((x, 2, x, size[1] - 3), fill=ink)
    return image


def _axes(rng: random.Random, size: Size) -> tuple[Image.Image, ImageDraw.ImageDraw, Colour, tuple[int, int, int, int]]:
    image, pen, ground = canvas(rng, size, rng.choice(((255, 255, 255), (245, 245, 245), (25, 25, 30))))
    ink = (0, 0, 0) if sum(ground) > 300 else (230, 230, 230)
    box = (size[0] // 8, size[1] // 10, size[0] - size[0] // 16, size[1] - size[1] // 7)
    pen.line((box[0], box[1], box[0], box[3], box[2], box[3]), fill=ink, width=rng.randint(1, 2))
    for tick in range(5):
        pen.text((1, box[1] + tick * (box[3] - box[1]) / 5), str(rng.randrange(100)), fill=ink, font=font(8))
        pen.text((box[0] + tick * (box[2] - box[0]) / 5, box[3] + 2), rng.choice(WORDS)[:5], fill=ink, font=font(8))
    return image, pen, ground, box


def bar_chart(rng: random.Random, size: Size) -> Image.Image:
    image, pen, ground, (left, top, right, bottom) = _axes(rng, size)
    count, colour = rng.randint(3, 10), any_ink(rng, ground)
    width = (right - left) / count
    for number in range(count):
        colour = any_ink(rng, ground) if rng.random() < 0.4 else colour
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
        pen.line(points, fill=any_ink(rng, ground), width=rng.randint(1, 3))
    return image


def scatter_plot(rng: random.Random, size: Size) -> Image.Image:
    image, pen, ground, (left, top, right, bottom) = _axes(rng, size)
    colours = [any_ink(rng, ground) for _ in range(rng.randint(1, 3))]
    for _ in range(rng.randint(25, 120)):
        x, y, r = rng.uniform(left, right), rng.uniform(top, bottom), rng.uniform(1, 3)
        pen.ellipse((x - r, y - r, x + r, y + r), fill=rng.choice(colours))
    return image


def pie_chart(rng: random.Random, size: Size) -> Image.Image:
    image, pen, _ = canvas(rng, size, rng.choice(((255, 255, 255), (240, 240, 240))))
    r = min(size) * rng.uniform(0.25, 0.45)
    x, y, start = size[0] / 2, size[1] / 2, rng.uniform(0, 360)
    cuts = sorted([start, *(start + rng.uniform(10, 350) for _ in range(rng.randint(2, 6)))])
    for first, last in zip(cuts, [*cuts[1:], cuts[0] + 360], strict=True):
        pen.pieslice((x - r, y - r, x + r, y + r), first, last, fill=any_colour(rng), outline=(255, 255, 255))
    return image


def landscape(rng: random.Random, size: Size) -> Image.Image:
    sky = (rng.randint(90, 200), rng.randint(150, 230), 255)
    image, pen, _ = canvas(rng, size, sky)
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
    image, pen, ground = canvas(rng, size)
    r = min(size) * rng.uniform(0.25, 0.46)
    x, y, ink = size[0] / 2, size[1] / 2, any_ink(rng, ground)
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
    image, pen, ground = canvas(rng, size)
    ink, tall, width = any_ink(rng, ground), size[1] * rng.uniform(0.4, 0.8), rng.randint(1, 5)
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
    image, pen, ground = canvas(rng, size)
    for _ in range(rng.randint(1, 6)):
        x, y, turn, points = rng.uniform(0, size[0]), rng.uniform(0, size[1]), rng.uniform(0, 6), []
        for _ in range(rng.randint(15, 90)):
            turn += rng.gauss(0, 0.5)
            x, y = min(max(x + 5 * math.cos(turn), 0), size[0]), min(max(y + 5 * math.sin(turn), 0), size[1])
            points.append((x, y))
        pen.line(points, fill=any_ink(rng, ground), width=rng.randint(1, 5))
    return image


def mosaic(rng: random.Random, size: Size) -> Image.Image:
    """Overlapping polygons and ellipses up to the edges."""
    image, pen, _ = canvas(rng, size, any_colour(rng))
    for _ in range(rng.randint(12, 40)):
        points = [(rng.uniform(-0.2, 1.2) * size[0], rng.uniform(-0.2, 1.2) * size[1]) for _ in range(rng.randint(3, 5))]
        if rng.random() < 0.3:
            (left, right), (top, bottom) = (sorted(point[axis] for point in points[:2]) for axis in (0, 1))
            pen.ellipse((left, top, right, bottom), fill=any_colour(rng))
        else:
            pen.polygon(points, fill=any_colour(rng))
    return image


def window(rng: random.Random, size: Size) -> Image.Image:
    """A program's window: title, buttons, fields, or code in colours."""
    image, pen, ground = canvas(rng, size)
    ink, bar = any_ink(rng, ground), max(8, size[1] // 12)
    pen.rectangle((0, 0, size[0], bar), fill=any_colour(rng))
    pen.text((3, 0), words(rng, 2), fill=(255, 255, 255), font=font(bar - 2))
    for line, y in enumerate(range(bar + 4, size[1] - 8, rng.randint(9, 14))):
        indent = rng.choice((4, 4, 14, 24))
        if rng.random() < 0.25:
            pen.rectangle(
                (indent, y, indent + size[0] * rng.uniform(0.2, 0.7), y + 9),
                outline=ink,
                fill=any_colour(rng) if line % 3 == 0 else None,
            )
        for word in words(rng, rng.randint(1, 6)).split():
            pen.text((indent, y), word, fill=any_ink(rng, ground) if rng.random() < 0.4 else ink, font=font(8))
            indent += 6 * len(word) + 4
    return image


def code_square(rng: random.Random, size: Size) -> Image.Image:
    """Like a QR code."""
    side = rng.randint(15, 33)
    bits = Image.fromarray((numpy_rng(rng).random((side, side)) < 0.5).astype(np.uint8) * 255)
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
    first, second = (np.array(any_colour(rng), np.float32) for _ in range(2))
    return picture_of(first + (second - first) * share)


def collage(rng: random.Random, size: Size) -> Image.Image:
    """Several foreign pictures side by side."""
    parts = [clouds, stripes, text_page, mosaic, photos("train"), noise, bar_chart]
    image, half = Image.new("RGB", size), (size[0] // 2 + 1, size[1] // 2 + 1)
    for x in (0, half[0]):
        for y in (0, half[1]):
            image.paste(rng.choice(parts)(rng, half).convert("RGB"), (x, y))
    return image
