"""The one door through which pictures come into the project: untrusted bytes in, a plain RGB or RGBA picture out.

Limits stand before decoding, hostile input ends in one exception, the result carries no file handle and no metadata.
What a picture may cost stands in image_files.py. Resizing, normalising and what alpha means belong to the model families;
fetching http addresses belongs to the caller.

Read are the raster formats of `FORMATS`, AVIF where Pillow can, HEIF with pillow-heif. Left out on purpose:
EPS and PDF start interpreters, WMF and SVG hold programs, ICO tells its true size only when decoded, JPEG 2000 has a
bad record with hostile files.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import importlib
import io
import math
import os
import threading
from collections.abc import Iterator
from typing import Any, BinaryIO

from PIL import Image, ImageChops, ImageFile, UnidentifiedImageError

from . import image_worker
from .image_files import MAX_ASPECT, MAX_BYTES, MAX_PIXELS, ImageError, essential, exif_orientation, lacks_only_its_end
from .image_sources import describe, foreign, iso_format, read_source

__all__ = ["FORMATS", "MAX_BYTES", "MAX_PIXELS", "ImageError", "image_key", "image_size", "load_image", "to_data_uri"]

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "HEIF")

_TURNS = {  # EXIF orientation -> what sets the picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_STRIP_PIXELS = 2**20
# What may stand where the end of a JPEG is missing, in this or the next restart interval: if it makes no difference, no
# pixel is missing.
_RESTARTS = [bytes([0xFF, 0xD0 + number]) for number in range(8)]
_FILLINGS = [
    filling + b"".join(restart + filling for restart in _RESTARTS)
    for filling in (b"", bytes(4096), b"\x55" * 4096, b"\xaa" * 4096, b"\xff\x00" * 4096)  # ten blocks at their longest
]


def load_image(
    source: bytes | bytearray | memoryview | str | os.PathLike | BinaryIO | Image.Image,
    *,
    max_bytes: int = MAX_BYTES,
    max_pixels: int = MAX_PIXELS,
    background: str | tuple[int, int, int] | None = None,
) -> Image.Image:
    """Open a picture from an untrusted source.

    For RGB, RGBA and grey files `load_image(x).convert("RGB")` equals `Image.open(x).convert("RGB")` bit for bit, EXIF
    orientation aside. Greys of more than 8 bits are scaled, where Pillow would clip them to white.

    Args:
        source: The bytes of a file; a path (regular files only); a `data:` URI (base64 or percent-encoded); a binary
            file object, read from its start where it can seek; or a PIL image, which stays as it is and gives the frame
            it stands at. A str with another URL scheme is refused; a file named like one goes in as `pathlib.Path`.
        max_bytes: Limit for the encoded picture, checked before it is read or base64-decoded.
        max_pixels: Limit for width x height, checked in the header. Above twice `PIL.Image.MAX_IMAGE_PIXELS` Pillow's
            own limit holds.
        background: The colour that shines through transparency, as a person sees the picture: "white" where a person
            hands it in. None keeps alpha, and with it the colours that nobody sees, as the original models take them.

    Returns:
        The first frame, EXIF orientation applied, decoded, detached from its source, without metadata, always a new
        image: "RGBA" where the source has transparency of any kind (alpha not premultiplied) and no background is
        given, else "RGB". More than `MAX_ASPECT` times as long as wide, it is squeezed to that.

    Raises:
        ImageError: anything else. An `OSError` of the file system is its `__cause__`.
    """
    try:
        with _truncation_is_an_error:
            image = _load(source, max_bytes, max_pixels)
        return image if background is None or image.mode == "RGB" else _blend(image, background)
    except Exception as error:  # hostile bytes make Pillow raise almost anything, from struct.error to MemoryError
        raise _refusal(source, error) from (error.__cause__ if isinstance(error, ImageError) and error.__cause__ else error)


def image_size(
    source: bytes | bytearray | memoryview | str | os.PathLike | BinaryIO | Image.Image,
    *,
    max_bytes: int = MAX_BYTES,
    max_pixels: int = MAX_PIXELS,
) -> tuple[int, int]:
    """(width, height) that `load_image` would give, from the header alone.

    Raises:
        ImageError: the header already says that `load_image` would refuse it.
    """
    try:
        data = b"" if isinstance(source, Image.Image) else read_source(source, max_bytes)
        if iso_format(data):
            answer, _ = image_worker.ask({"max_pixels": max_pixels, "only": "size"}, _readable(data))
            return tuple(answer["size"])
        image = source if isinstance(source, Image.Image) else _open(essential(data))
        _check_pixels(image, max_pixels)
        return _upright_size(image)
    except Exception as error:
        raise _refusal(source, error) from (error.__cause__ or error)


def image_key(image: Image.Image) -> str:
    """Name a picture by its content: equal pixels, equal key.

    Returns:
        32 hex digits: BLAKE2b-128 of mode, size and pixels. Modes other than RGB and RGBA are converted as `load_image`
        converts them, so a grey picture and its RGB copy have one key.
    """
    image = image if image.mode in ("RGB", "RGBA") else _to_rgb_or_rgba(image)
    digest = hashlib.blake2b(f"{image.mode} {image.width}x{image.height} ".encode(), digest_size=16)
    digest.update(image.tobytes())
    return digest.hexdigest()


def to_data_uri(image: Image.Image) -> str:
    """Write a picture as a PNG `data:` URI, without loss for RGB and RGBA and without metadata."""
    file = io.BytesIO()
    _to_rgb_or_rgba(image).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def serve_worker() -> None:
    """Decode one AVIF or HEIF in this process, which `image_worker.ask` made for it."""

    def answer(request: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
        try:
            with contextlib.suppress(ImportError):
                importlib.import_module("PIL.AvifImagePlugin").DEFAULT_MAX_THREADS = 1
            image = _open(_readable(data))
            _check_pixels(image, request["max_pixels"])
            if request["only"] == "size":
                return {"size": _upright_size(image)}, b""
            image = _decode(image)
        except Exception as error:
            if isinstance(error, MemoryError):
                raise
            raise ImageError(_reason(error)) from error
        return {"mode": image.mode, "size": image.size}, image.tobytes()

    image_worker.serve(answer)


class _TruncationIsAnError:
    """Holds Pillow's process-wide `LOAD_TRUNCATED_IMAGES` at False while any thread decodes here.

    Training scripts like to switch it on, and the model would then be shown half a picture with its rest in grey.
    """

    def __init__(self) -> None:
        self.lock, self.threads, self.was_on = threading.Lock(), 0, False

    def __enter__(self) -> None:
        with self.lock:
            if self.threads == 0:
                self.was_on, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
            self.threads += 1

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.threads -= 1
            if self.threads == 0 and self.was_on:
                ImageFile.LOAD_TRUNCATED_IMAGES = True


_truncation_is_an_error = _TruncationIsAnError()


def _load(source: object, max_bytes: int, max_pixels: int) -> Image.Image:
    if isinstance(source, Image.Image):
        _check_pixels(source, max_pixels)
        return _decode(source)
    data = read_source(source, max_bytes)
    if iso_format(data):
        answer, pixels = image_worker.ask({"max_pixels": max_pixels, "only": ""}, _readable(data))
        return Image.frombytes(answer["mode"], tuple(answer["size"]), pixels)
    data = essential(data)
    image = _open(data)
    _check_pixels(image, max_pixels)
    if lacks_only_its_end(data):
        image = _open(_with_end(data))
    return _decode(image)


def _readable(data: bytes) -> bytes:
    """An AVIF or HEIF for which there is a reader.

    Raises:
        ImageError: there is none.
    """
    Image.init()
    if iso_format(data) == "HEIF" and "HEIF" not in Image.OPEN:
        try:
            importlib.import_module("pillow_heif").register_heif_opener()
        except ImportError as error:
            raise ImageError("a HEIC photo, as iPhones take them: pip install pillow-heif, or save it as JPEG.") from error
    if iso_format(data) not in Image.OPEN:
        raise ImageError("an AVIF picture, which the Pillow here cannot read. Update it, or save the picture as PNG.")
    return data


def _open(data: bytes) -> Image.Image:
    Image.init()
    try:
        return Image.open(io.BytesIO(data), formats=[name for name in FORMATS if name in Image.OPEN])
    except UnidentifiedImageError as error:
        if said := foreign(data):
            raise ImageError(said) from error
        raise


def _with_end(jpeg: bytes) -> bytes:
    """A JPEG with the end mark it lacks.

    Raises:
        ImageError: more than the mark is missing.
    """
    jpeg, decoded = jpeg.rstrip(b"\xff"), set()
    for filling in _FILLINGS:
        image = _open(jpeg + filling + b"\xff\xd9")
        image.load()
        decoded.add(hashlib.blake2b(image.tobytes()).digest())
        if len(decoded) > 1:
            raise ImageError("its end is missing, and pixels with it. Get it again.")
    return jpeg + b"\xff\xd9"


def _check_pixels(image: Image.Image, max_pixels: int) -> None:
    pixels = image.width * image.height
    if pixels == 0:
        raise ImageError(f"no pixels ({image.width} x {image.height}). Pass another picture.")
    if pixels > max_pixels:
        raise ImageError(f"{image.width} x {image.height} is {pixels} pixels, allowed are {max_pixels}. Scale it down.")


def _turn(image: Image.Image) -> Image.Transpose | None:
    """What sets a picture upright; Pillow turns TIFF itself."""
    exif = image.info.get("exif")
    return _TURNS.get(exif_orientation(exif)) if isinstance(exif, bytes) and image.format != "TIFF" else None


def _upright_size(image: Image.Image) -> tuple[int, int]:
    is_sideways = _turn(image) in [_TURNS[orientation] for orientation in (5, 6, 7, 8)]
    return _squeezed((image.height, image.width) if is_sideways else image.size)


def _squeezed(size: tuple[int, int]) -> tuple[int, int]:
    longest = min(size) * MAX_ASPECT
    return min(size[0], longest), min(size[1], longest)


def _decode(image: Image.Image) -> Image.Image:
    image.load()
    turn = _turn(image)
    result = _to_rgb_or_rgba(image)
    del image
    if turn is not None:
        result = result.transpose(turn)
    squeezed = _squeezed(result.size)
    return result if squeezed == result.size else result.resize(squeezed, Image.Resampling.BOX)


def _blend(image: Image.Image, background: str | tuple[int, int, int]) -> Image.Image:
    result = Image.new("RGB", image.size, background)
    result.paste(image.convert("RGB"), mask=image.getchannel("A"))
    return result


def _to_rgb_or_rgba(image: Image.Image) -> Image.Image:
    """A new image of mode RGBA where there is transparency of any kind, else RGB, without metadata."""
    transparent = image.info.get("transparency")
    if image.mode == "F" or image.mode.startswith("I"):
        result = _deep_to_rgb_or_rgba(image, transparent)
    elif image.mode == "La":
        result = image.convert("LA").convert("RGBA")
    elif image.mode in ("RGBA", "LA", "PA", "RGBa"):
        result = image.convert("RGBA")
    elif image.mode == "P" and (transparent is not None or image.palette.mode == "RGBA"):
        result = image.copy().convert("RGBA")  # the copy, because Pillow writes the alpha into the palette it converts
    else:
        result = image.convert("RGB" if transparent is None else "RGBA")
    result.info = {}
    return result


def _deep_to_rgb_or_rgba(grey: Image.Image, transparent: object) -> Image.Image:
    """Scale a grey picture of 16 or 32 bits to 8, strip by strip.

    Integers within 0..65535 keep their high byte, as Pillow does with 16-bit colour. Floats are taken as 0..1, 0..255
    or 0..65535, the first that holds them. Anything beyond is stretched from its lowest to its highest value. One grey
    value may stand for "nothing here", and it has 16 bits too.
    """
    is_float = grey.mode == "F"
    extrema = [value for _, wide in _strips(grey) for value in wide.getextrema()]
    if not all(map(math.isfinite, extrema)):
        raise ImageError("NaN or infinity among its pixels. Save it with 8 or 16 bits.")
    low, high = min(extrema), max(extrema)
    usual = (1, 255, 65535) if is_float else (65535,)
    black, white = next(((0, white) for white in usual if low >= 0 and high <= white), (low, high))
    scale = 255 / ((white - black) or 1) if is_float else 256 / (white - black + 1)
    offset = (0.5 if is_float else 0) - black * scale
    has_alpha = isinstance(transparent, int)
    result = Image.new("RGBA" if has_alpha else "RGB", grey.size)
    for top, wide in _strips(grey):
        strip = wide.point(lambda v: v * scale + offset).convert("L").convert("RGB")
        if has_alpha:
            above, below = wide.point(lambda v: v * 1 - transparent), wide.point(lambda v: v * -1 + transparent)
            distance = ImageChops.lighter(above.convert("L"), below.convert("L"))
            strip.putalpha(distance.point(lambda v: 255 if v else 0))
        result.paste(strip, (0, top))
    return result


def _strips(grey: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """A deep grey picture in strips of full width, of mode "F" or "I", with the line each begins at."""
    height = max(1, _STRIP_PIXELS // grey.width)
    for top in range(0, grey.height, height):
        strip = grey.crop((0, top, grey.width, min(top + height, grey.height)))
        yield top, strip if strip.mode == "F" else strip.convert("I")


def _refusal(source: object, error: Exception) -> ImageError:
    return ImageError(_reason(error), describe(source))


def _reason(error: Exception) -> str:
    """What is wrong, what is allowed, what to do."""
    if isinstance(error, ImageError):
        return error.reason
    if isinstance(error, UnidentifiedImageError):
        readable = [name for name in FORMATS if name in Image.OPEN]
        return f"no format that is read here ({', '.join(readable)}). Save it as PNG or JPEG."
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return f"more pixels than Pillow's own limit ({Image.MAX_IMAGE_PIXELS}) allows. Scale it down."
    message = " ".join(str(error).split())[:120]
    return f"cannot be read ({type(error).__name__}: {message}). Is it complete? Get it again, or save it as PNG."
