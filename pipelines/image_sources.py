"""Where the bytes of a picture come from, within a limit, and what they are when they are no picture."""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import re
import stat
from typing import BinaryIO

from PIL import Image

from .image_files import ImageError

_SCHEME = re.compile(r"\s*([A-Za-z][A-Za-z0-9+.-]+):")  # two letters or more: C:\x.png is a path
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")


def read_source(source: bytes | bytearray | memoryview | str | os.PathLike | BinaryIO, max_bytes: int) -> bytes:
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


def describe(source: object) -> str:
    """What was given, on one short line: never a megabyte of base64."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        return f"of {memoryview(source).nbytes} bytes"
    if isinstance(source, Image.Image):
        return f"<PIL {source.mode} {source.width} x {source.height}>"
    if isinstance(source, str) and (match := _SCHEME.match(source)) and match[1].lower() == "data":
        return f"in a data: URI of {len(source)} characters"
    if isinstance(source, (str, os.PathLike)):
        text = source if isinstance(source, str) else str(source)
        return repr(text) if len(text) <= 120 else f"{text[:60]!r}... ({len(text)} characters)"
    return f"<{type(source).__name__}>"


_ISO_BRANDS = {b"avif": "AVIF", b"avis": "AVIF"} | dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"), "HEIF")


def iso_format(data: bytes) -> str:
    """ "AVIF" or "HEIF" for files of that kind, else ""."""
    if data[4:8] != b"ftyp":
        return ""
    end = min(int.from_bytes(data[:4], "big"), 256)
    brands = [data[8:12], *(data[place : place + 4] for place in range(16, end, 4))]
    return next((_ISO_BRANDS[brand] for brand in brands if brand in _ISO_BRANDS), "HEIF" if data[8:12] == b"mif1" else "")


_FOREIGN = (
    (rb"version https://git-lfs", "a Git LFS pointer, not the picture. Fetch it: git lfs pull."),
    (
        rb"(?is)\s*(<\?xml.{0,2000})?(<!--.{0,2000})?(<!doctype svg|<svg)",
        "an SVG drawing, and those are programs. Export it as PNG.",
    ),
    (
        rb"(?is)\s*(<!--.{0,2000})?(<\?xml.{0,500})?<(!doctype html|html|head|body)",
        "a web page (HTML), not a picture. Was the address of a page saved?",
    ),
    (rb"%PDF", "a PDF document. Export its page as PNG."),
    (rb"%!PS|\xc5\xd0\xd3\xc6", "PostScript, and that is a program. Export it as PNG."),
    (rb"\0\0\0\x0cJXL |\xff\x0a", "a JPEG XL picture, which is not read here. Save it as PNG or JPEG."),
    (rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51", "a JPEG 2000 picture, which is not read here. Save it as PNG or JPEG."),
    (rb"8BPS", "a Photoshop file. Export it as PNG."),
    (rb"\0\0[\x01\x02]\0", "an icon or cursor (ICO). Save it as PNG."),
    (rb"PK\x03\x04|\x1f\x8b|7z\xbc\xaf|Rar!", "an archive. Unpack it first."),
    (rb"(?s)....ftyp|\x1a\x45\xdf\xa3|(?s:RIFF....AVI )", "a video. Save one of its frames as PNG or JPEG."),
    (rb"\0{64}|\0+\Z", "nothing but zero bytes. The copy failed; get the file again."),
    (rb"\s*[\[{]\s*[\"\]}\[{]", "text (JSON), not a picture. Is it the answer of a server that refused?"),
)


def foreign(data: bytes) -> str:
    """What a file is that is no picture read here, and what to do; "" where that is not known."""
    if not data:
        return "an empty file (0 bytes). Get it again."
    start = data[:4096]
    return next((said for pattern, said in _FOREIGN if re.match(pattern, start)), "")
