"""Mutated pictures: each comes out whole, or is refused with a reason, within its memory and its time.

A thousand by default; `pytest tests/pipelines/test_pipelines_images_fuzz.py --fuzz 10000` for more, `--fuzz-seed` for others.
"""

import io
import random
import sys

import pytest
from mutations import mutate
from picture_limits import load_limited
from PIL import Image, ImageDraw


def encode(image, fmt, **options):
    file = io.BytesIO()
    image.save(file, fmt, **options)
    return file.getvalue()


def seeds() -> dict[str, bytes]:
    """A picture in every format and its variants, as Pillow writes them here."""
    image = Image.linear_gradient("L").resize((48, 36)).convert("RGB")
    ImageDraw.Draw(image).ellipse((8, 6, 30, 28), fill=(200, 30, 60), outline=(0, 0, 255))
    alpha, grey = image.copy(), image.convert("L")
    alpha.putalpha(grey.rotate(180))
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    frames = {"save_all": True, "append_images": [image.rotate(90)]}
    deep = grey.convert("I").point(lambda v: v * 257).convert("I;16")
    kinds = {
        "png": lambda: encode(image, "PNG", exif=exif.tobytes()),
        "png-alpha": lambda: encode(alpha, "PNG"),
        "png-palette": lambda: encode(image.quantize(16), "PNG", transparency=3),
        "png-16-bit": lambda: encode(deep, "PNG"),
        "apng": lambda: encode(image, "PNG", **frames),
        "jpeg": lambda: encode(image, "JPEG", exif=exif.tobytes()),
        "jpeg-progressive": lambda: encode(image, "JPEG", progressive=True),
        "jpeg-restarts": lambda: encode(image, "JPEG", restart_marker_rows=1, comment=b"note"),
        "jpeg-cmyk": lambda: encode(image.convert("CMYK"), "JPEG"),
        "gif": lambda: encode(image, "GIF", comment=b"note", **frames),
        "bmp": lambda: encode(image, "BMP"),
        "tiff": lambda: encode(alpha, "TIFF"),
        "tiff-lzw": lambda: encode(image, "TIFF", compression="tiff_lzw", exif=exif),
        "tiff-jpeg": lambda: encode(image, "TIFF", compression="jpeg"),
        "tiff-float": lambda: encode(grey.convert("F"), "TIFF"),
        "ppm": lambda: encode(image, "PPM"),
        "pgm-16-bit": lambda: encode(deep, "PPM"),
        "ppm-text": lambda: b"P3\n# note\n4 3\n255\n" + b"1 2 3  " * 12,
        "webp": lambda: encode(image, "WEBP", exif=exif.tobytes()),
        "webp-lossless": lambda: encode(alpha, "WEBP", lossless=True, **frames),
    }
    return {name: make() for name, make in kinds.items()}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limits of a process are Linux's")
def test_mutated_pictures_are_whole_or_refused_within_their_limits(request):
    number, chance = request.config.getoption("--fuzz"), random.Random(request.config.getoption("--fuzz-seed"))
    files = seeds()
    names = [chance.choice(list(files)) for _ in range(number)]
    mutated = [mutate(files[name], chance.choice(list(files.values())), chance) for name in names]
    said = load_limited([*files.values(), *mutated])
    assert all(one.startswith("RGB") for one in said[: len(files)]), said[: len(files)]
    found = said[len(files) :]
    wrong = [
        f"{index} {name}: {one}" for index, (name, one) in enumerate(zip(names, found, strict=True)) if one.startswith("WRONG")
    ]
    assert not wrong, "\n".join(wrong[:20])
    refused = sum(one.startswith("refused") for one in found)
    assert number // 10 < refused < number, f"{refused} of {number} refused: these mutations test nothing"


@pytest.mark.skipif("AVIF" not in Image.registered_extensions().values(), reason="this Pillow has no AVIF")
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limits of a process are Linux's")
def test_mutated_avifs_are_whole_or_refused_within_their_limits(request):
    chance = random.Random(request.config.getoption("--fuzz-seed"))
    avif = encode(Image.linear_gradient("L").resize((48, 36)).convert("RGB"), "AVIF", speed=10)
    mutated = [mutate(avif, avif, chance) for _ in range(request.config.getoption("--fuzz") // 50)]
    said = load_limited([avif, *mutated])
    assert said[0] == "RGB 48x36"
    assert not [one for one in said if one.startswith("WRONG")]
