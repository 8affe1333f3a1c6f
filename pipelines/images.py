"""The one door through which pictures come into the project: untrusted bytes in, a plain RGB or RGBA picture out.

Limits stand before decoding, hostile input ends in one exception, the result carries no file handle and no metadata.
Resizing, normalising and what alpha means belong to the model families; fetching http addresses belongs to the caller.

Read are the raster formats of `FORMATS`, AVIF and HEIF where Pillow or a registered plugin can. Left out on purpose:
EPS and PDF start interpreters, WMF and SVG hold programs, ICO tells its true size only when decoded, JPEG 2000 has a
bad record with hostile files.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import io
import math
import os
import re
import stat
import threading
from typing import BinaryIO

from PIL import Image, ImageChops, ImageFile, UnidentifiedImageError

MAX_BYTES = 50 * 1024 * 1024
MAX_PIXELS = 64_000_000  # 8000 x 8000, a quarter of a GiB once decoded; below Pillow's own warning at 89 million
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "HEIF")

_SCHEME = re.compile(r"\s*([A-Za-z][A-Za-z0-9+.-]+):")  # two letters or more: C:\x.png is a path
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")
_TURNS = {  # EXIF orientation -> what sets the picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = {_TURNS[orientation] for orientation in (5, 6, 7, 8)}


class ImageError(ValueError):
    """A picture that is refused; the message is one line, fit for the user's eyes."""


def load_image(
    source: bytes | bytearray | memoryview | str | os.PathLike | BinaryIO | Image.Image,
    *,
    max_bytes: int = MAX_BYTES,
    max_pixels: int = MAX_PIXELS,
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

    Returns:
        The first frame, EXIF orientation applied, decoded, detached from its source, without metadata, always a new
        image: "RGBA" where the source has transparency of any kind (alpha not premultiplied), else "RGB".

    Raises:
        ImageError: anything else. An `OSError` of the file system is its `__cause__`.
    """
    try:
        image = source if isinstance(source, Image.Image) else _open(source, max_bytes)
        with _truncation_is_an_error:
            return _decode(image, max_pixels)
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
        image = source if isinstance(source, Image.Image) else _open(source, max_bytes)
        _check_pixels(image, max_pixels)
        is_turned = image.format != "TIFF" and _turn(image) in _SIDEWAYS
        return (image.height, image.width) if is_turned else image.size
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


def _read(source: bytes | bytearray | memoryview | str | os.PathLike | BinaryIO, max_bytes: int) -> bytes:
    if isinstance(source, (bytes, bytearray, memoryview)):
        _check_bytes(memoryview(source).nbytes, max_bytes)
        return bytes(source)
    if isinstance(source, str) and (match := _SCHEME.match(source)):
        if match[1].lower() == "data":
            return _read_data_uri(source[match.end() :], max_bytes)
        raise ImageError(f"{match[1]}: addresses are not fetched here. Download it, then pass the bytes or the path.")
    if isinstance(source, (str, os.PathLike)):
        return _read_path(source, max_bytes)
    if hasattr(source, "read"):
        return _read_stream(source, max_bytes)
    raise ImageError("expected bytes, a path, a data: URI, a binary file or a PIL image.")


def _read_data_uri(uri: str, max_bytes: int) -> bytes:
    """Decode what follows `data:`. Escapes and line breaks make base64 longer than 4/3; twice is more than enough."""
    _check_bytes(len(uri) // 2 - 512, max_bytes)
    header, comma, text = uri.partition(",")
    if not comma:
        raise ImageError("a data: URI needs a comma before its data, as in 'data:image/png;base64,iVBORw0...'.")
    try:
        data = _ESCAPE.sub(lambda match: bytes([int(match[1], 16)]), text.encode("ascii"))
        if header.rpartition(";")[2].strip().lower() == "base64":
            data = data.translate(None, b" \t\r\n\f\v")
            _check_bytes(len(data) * 3 // 4 - 2, max_bytes)
            data = base64.b64decode(data, validate=True)
    except (UnicodeEncodeError, binascii.Error) as error:
        raise ImageError(f"wrong data: URI ({error}). Was it cut? Encode the file anew.") from error
    _check_bytes(len(data), max_bytes)
    return data


def _read_path(path: str | os.PathLike, max_bytes: int) -> bytes:
    def open_at_once(name: str, flags: int) -> int:
        return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))  # a FIFO without a writer would block for ever

    try:
        with open(path, "rb", opener=open_at_once) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ImageError("not a regular file. Pass the path of a picture.")
            _check_bytes(status.st_size, max_bytes)
            return _read_stream(file, max_bytes)
    except OSError as error:
        raise ImageError(f"cannot be opened ({error.strerror or error}). Check the path.") from error


def _read_stream(file: BinaryIO, max_bytes: int) -> bytes:
    with contextlib.suppress(AttributeError, OSError):
        file.seek(0)
    data = bytearray()
    while len(data) <= max_bytes and (chunk := file.read(max_bytes + 1 - len(data))):
        data += chunk
    _check_bytes(len(data), max_bytes)
    return bytes(data)


def _check_bytes(size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise ImageError(f"more than the {max_bytes} bytes allowed. Save it smaller, as JPEG for example.")


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


def _open(source: object, max_bytes: int) -> Image.Image:
    Image.init()
    return Image.open(io.BytesIO(_read(source, max_bytes)), formats=[name for name in FORMATS if name in Image.OPEN])


def _check_pixels(image: Image.Image, max_pixels: int) -> None:
    pixels = image.width * image.height
    if pixels == 0:
        raise ImageError(f"no pixels ({image.width} x {image.height}). Pass another picture.")
    if pixels > max_pixels:
        raise ImageError(f"{image.width} x {image.height} is {pixels} pixels, allowed are {max_pixels}. Scale it down.")


def _turn(image: Image.Image) -> Image.Transpose | None:
    """What sets a picture upright."""
    try:
        return None if image.format == "TIFF" else _TURNS.get(image.getexif().get(0x0112))  # Pillow turns TIFF itself
    except Exception:  # broken metadata beside good pixels is common; browsers, too, show such a picture as it lies
        return None


def _refusal(source: object, error: Exception) -> ImageError:
    return ImageError(f"Picture {_describe(source)}: {_reason(error)}")


def _decode(image: Image.Image, max_pixels: int) -> Image.Image:
    _check_pixels(image, max_pixels)
    image.load()
    turn = _turn(image)
    result = _to_rgb_or_rgba(image)
    return result if turn is None else result.transpose(turn)


def _to_rgb_or_rgba(image: Image.Image) -> Image.Image:
    """A new image of mode RGBA where there is transparency of any kind, else RGB, without metadata."""
    transparent = image.info.get("transparency")
    if image.mode == "F" or image.mode.startswith("I"):
        result = _to_8_bits(image).convert("RGB")
        if isinstance(transparent, int):  # one grey value stands for "nothing here", and it has 16 bits too
            wide = image.convert("I")
            above, below = wide.point(lambda v: v * 1 - transparent), wide.point(lambda v: v * -1 + transparent)
            distance = ImageChops.lighter(above.convert("L"), below.convert("L"))
            result.putalpha(distance.point(lambda v: 255 if v else 0))
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


def _to_8_bits(grey: Image.Image) -> Image.Image:
    """Scale a grey picture of 16 or 32 bits to "L".

    Integers within 0..65535 keep their high byte, as Pillow does with 16-bit colour. Floats are taken as 0..1, 0..255
    or 0..65535, the first that holds them. Anything beyond is stretched from its lowest to its highest value.
    """
    is_float = grey.mode == "F"
    wide = grey if is_float else grey.convert("I")
    low, high = wide.getextrema()
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ImageError("NaN or infinity among its pixels. Save it with 8 or 16 bits.")
    usual = (1, 255, 65535) if is_float else (65535,)
    black, white = next(((0, white) for white in usual if low >= 0 and high <= white), (low, high))
    scale = 255 / ((white - black) or 1) if is_float else 256 / (white - black + 1)
    offset = (0.5 if is_float else 0) - black * scale
    return wide.point(lambda v: v * scale + offset).convert("L")


def _describe(source: object) -> str:
    """What was given, on one short line: never a megabyte of base64."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        return f"of {memoryview(source).nbytes} bytes"
    if isinstance(source, Image.Image):
        return f"<PIL {source.mode} {source.width} x {source.height}>"
    if isinstance(source, (str, os.PathLike)):
        text = source if isinstance(source, str) else str(source)
        return repr(text) if len(text) <= 120 else f"{text[:60]!r}... ({len(text)} characters)"
    return f"<{type(source).__name__}>"


def _reason(error: Exception) -> str:
    """What is wrong, what is allowed, what to do."""
    if isinstance(error, ImageError):
        return str(error)
    if isinstance(error, UnidentifiedImageError):
        return f"no format that is read here ({', '.join(FORMATS)}). Save it as PNG or JPEG."
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return f"more pixels than Pillow's own limit ({Image.MAX_IMAGE_PIXELS}) allows. Scale it down."
    message = " ".join(str(error).split())[:120]
    return f"cannot be read ({type(error).__name__}: {message}). Is it complete? Get it again, or save it as PNG."
