"""What a picture may cost, in one place, and which bytes of a file decide about its pixels.

Pillow keeps every block of a file as Python objects, joins comments one by one, and gives up on a picture whose metadata
is odd. `essential` walks the file first and drops what decides nothing: metadata can then neither refuse a picture nor
make it expensive. Where the cost hides in the pixels themselves (strips, scans, decoders written in Python) the file is
refused by count. What no walk bounds (AVIF, HEIF) is decoded in a process with limits, see image_worker.py.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator

MAX_BYTES = 50 * 1024 * 1024
MAX_PIXELS = 64_000_000  # 8000 x 8000, a quarter of a GiB once decoded; below Pillow's own warning at 89 million
MAX_ASPECT = 200  # a longer picture is squeezed: resizing 1 x 300,000 by its short side to 224 would take 45 GB
MAX_BLOCKS = 100_000  # chunks, segments, sub-blocks, strips: of each Pillow makes Python objects
MAX_SCANS = 100  # of a progressive JPEG: each of a few bytes costs a pass over the whole picture
MAX_SLOW_SAMPLES = 2**22  # for decoders that Pillow has in Python, half a microsecond a sample: 2048 x 2048
MAX_PPM_HEADER = 65_536
WORKER_BYTES = 1536 * 1024 * 1024  # of address space, the interpreter's own 200 MiB included
WORKER_SECONDS = 20  # of processor time

_SAVE_ANEW = "Save it anew, as PNG or JPEG."


class ImageError(ValueError):
    """A picture that is refused; the message is one line, fit for the user's eyes.

    Args:
        reason: what is wrong, what is allowed, what to do.
        given: what was given; for those who know a better name, `reason` stays by itself.
    """

    def __init__(self, reason: str, given: str = ""):
        super().__init__(f"Picture {given}: {reason}" if given else reason)
        self.reason = reason


def essential(data: bytes) -> bytes:
    """The bytes of a file without what cannot change a pixel of its first frame; of EXIF the orientation stays.

    A file that is none of the formats walked here, or is broken, comes back as far as it goes: Pillow then judges it.

    Raises:
        ImageError: more blocks, strips, scans or samples than are allowed.
    """
    for magic, walk in _WALKS.items():
        if data.startswith(magic):
            return walk(data)
    return data


def _png(data: bytes) -> bytes:
    """Chunks as they are, check sums included. Without acTL an APNG is its default image, which is its first frame."""
    view, kept, position, has_exif = memoryview(data), [memoryview(data)[:8]], 8, False
    for _ in _blocks("PNG", "chunks"):
        kind = data[position + 4 : position + 8]
        if len(kind) < 4:
            break
        end = position + 12 + int.from_bytes(data[position : position + 4], "big")
        if kind in (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"):
            kept.append(view[position:end])
        elif kind == b"eXIf" and not has_exif:
            body, has_exif = b"eXIf" + _upright(data[position + 8 : end - 4]), True
            kept.append(struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body)))
        if kind == b"IEND":
            break
        position = end
    return b"".join(kept)


_JPEG_MARKER = re.compile(rb"\xff+([^\x00\xff])")
_JPEG_BARE = {0x01, *range(0xD0, 0xD9)}  # without a length: TEM, restarts, start of image
_JPEG_KEPT = {*range(0xC0, 0xD0), 0xDB, 0xDD, 0xE0, 0xEE}  # frames, tables, restart interval, JFIF, Adobe's colour transform


def _jpeg(data: bytes) -> bytes:
    """Tables and scans up to the end mark of the first picture."""
    view, kept, position, num_scans, has_exif = memoryview(data), [b"\xff\xd8"], 2, 0, False
    for _ in _blocks("JPEG", "segments"):
        marker = _JPEG_MARKER.search(data, position)
        if marker is None:
            if num_scans:
                kept.append(view[position:])
            break
        kind, start, body = marker[1][0], marker.end() - 2, marker.end()
        if num_scans:  # what lies between two segments is pixels
            kept.append(view[position:start])
        position = body
        if kind == 0xD9:
            kept.append(b"\xff\xd9")
            break
        if kind in _JPEG_BARE:
            kept.append(view[start:body] if num_scans else b"")
            continue
        position += int.from_bytes(data[body : body + 2], "big")
        num_scans += kind == 0xDA
        if kind == 0xDA or kind in _JPEG_KEPT:
            kept.append(view[start:position])
        elif kind == 0xE1 and data.startswith(b"Exif\0\0", body + 2) and not has_exif:
            exif, has_exif = b"Exif\0\0" + _upright(data[body + 2 : position]), True
            kept.append(b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif)
    if num_scans > MAX_SCANS:
        raise ImageError(f"JPEG in {num_scans} scans, allowed are {MAX_SCANS}. {_SAVE_ANEW}")
    return b"".join(kept)


def lacks_only_its_end(jpeg: bytes) -> bool:
    """Whether a JPEG has no end mark though all its scans may be there; whether the last one is whole only decoding tells."""
    if not jpeg.startswith(b"\xff\xd8") or jpeg.endswith(
        (b"\xff\xd9", bytes(64))
    ):  # zeros: a download that was allocated, not filled
        return False
    left: dict[tuple[int, int], int] = {}  # (component, coefficient) -> bits that are still to come
    position = 2
    while marker := _JPEG_MARKER.search(jpeg, position):
        kind, position = marker[1][0], marker.end()
        if kind in _JPEG_BARE:
            continue
        body = jpeg[position + 2 : position + int.from_bytes(jpeg[position : position + 2], "big")]
        position += len(body) + 2
        if kind == 0xC2 and len(body) > 5:
            left = {(component, k): 1 for component in body[6::3] for k in range(64)}
        elif kind == 0xDA and left and len(body) >= 4 and len(body) == body[0] * 2 + 4:
            first, last, bits = body[-3:]
            left |= {(component, k): bits & 15 for component in body[1:-3:2] for k in range(first, last + 1)}
    return not any(left.values())


def _gif(data: bytes) -> bytes:
    """Screen, graphic controls, and everything from the first image on: Pillow reads no further than that image."""
    view, position = memoryview(data), 13
    if len(data) > position and data[10] & 0x80:
        position += 3 << (data[10] & 7) + 1
    kept = [view[:position]]
    blocks = _blocks("GIF", "blocks")
    for _ in blocks:
        found = re.compile(rb"[,;!]").search(data, position)
        if found is None:
            break
        start = found.start()
        if found[0] != b"!":
            kept.append(view[start:])
            break
        position = start + 2
        while position < len(data) and data[position]:
            position += data[position] + 1
            next(blocks)
        position += 1
        if data[start + 1 : start + 2] == b"\xf9":
            kept.append(view[start:position])
    return b"".join(kept)


_TIFF_STRIPS = {273, 279, 324, 325}  # offsets and lengths of strips and tiles
_TIFF_KEPT = _TIFF_STRIPS | {254, 256, 257, 258, 259, 262, 266, 274, 277, 278, 284, 292, 293, 317, 320, 322, 323}
_TIFF_KEPT |= {332, 338, 339, 347, *range(512, 522), 529, 530, 531, 532}
_TIFF_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}


def _tiff(data: bytes) -> bytes:
    """The first directory in its place, with the tags that describe pixels; the pixels stay where they are."""
    try:
        order, is_big, start = _tiff_start(data)
        entries = list(_tiff_entries(data))
    except (struct.error, IndexError):
        return data
    kept = []
    for tag, kind, count, raw in entries:
        if tag in _TIFF_STRIPS and count > MAX_BLOCKS:
            raise ImageError(f"TIFF of {count} strips, allowed are {MAX_BLOCKS}. {_SAVE_ANEW}")
        if tag in _TIFF_KEPT and count * _TIFF_SIZES.get(kind, 1) <= 8 * MAX_BLOCKS:
            kept.append(raw)
    number = struct.pack(order + ("Q" if is_big else "H"), len(kept))
    directory = b"".join([number, *kept, bytes(8 if is_big else 4)])
    return b"".join([data[:start], directory, data[start + len(directory) :]])


def _tiff_start(data: bytes) -> tuple[str, bool, int]:
    """Byte order, whether it is a BigTIFF, and where the first directory stands."""
    order, is_big = "<" if data[:2] == b"II" else ">", 43 in data[2:4]
    return order, is_big, struct.unpack_from(order + ("Q" if is_big else "I"), data, 8 if is_big else 4)[0]


def _tiff_entries(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Tag, type, count and all bytes of each entry of the first directory.

    Raises:
        struct.error: the directory does not lie in the file.
    """
    order, is_big, start = _tiff_start(data)
    number, entry = (struct.Struct(order + form) for form in (("Q", "HHQ8s") if is_big else ("H", "HHI4s")))
    (count,) = number.unpack_from(data, start)
    for index in range(min(count, 65_535)):
        position = start + number.size + index * entry.size
        tag, kind, length, _ = entry.unpack_from(data, position)
        yield tag, kind, length, data[position : position + entry.size]


def exif_orientation(exif: bytes) -> int:
    """The orientation that EXIF tells; 1, upright, where it is broken: browsers, too, show such a picture as it lies."""
    try:
        exif = exif[6:] if exif.startswith(b"Exif\0\0") else exif
        order = _tiff_start(exif)[0]
        for tag, kind, _, raw in _tiff_entries(exif):
            if tag == 274 and kind in (1, 3, 4):
                return struct.unpack_from(order + {1: "B", 3: "H", 4: "I"}[kind], raw, len(raw) - (4 if len(raw) == 12 else 8))[
                    0
                ]
    except (struct.error, IndexError):
        pass
    return 1


def _upright(exif: bytes) -> bytes:
    """EXIF with the orientation of another, and nothing else: Pillow reads all of it when it opens a file."""
    return b"II*\0" + struct.pack("<IHHHIII", 8, 1, 274, 3, 1, exif_orientation(exif), 0)


def _bmp(data: bytes) -> bytes:
    header, width, height = struct.unpack_from("<Iii", data.ljust(34, b"\0"), 14)
    if header >= 40 and data[30:34] in (b"\1\0\0\0", b"\2\0\0\0"):
        _check_slow(max(abs(width * height), len(data)), "run-length encoded BMP")
    return data


_PPM_HEADER = re.compile(rb"P[1-6]\s+(\d{1,10})\s+(\d{1,10})\s+(\d{1,10})")


def _ppm(data: bytes) -> bytes:
    """Binary samples of 8 bits, and greys of 16, are read at once; all others one by one, and so are comments."""
    start = re.sub(rb"#[^\r\n]*[\r\n]", b" ", data[:MAX_PPM_HEADER])
    header = _PPM_HEADER.match(start)
    if header is None:
        if len(data) > MAX_PPM_HEADER and data[1:2] != b"f":
            raise ImageError(f"its header does not end within {MAX_PPM_HEADER} bytes. {_SAVE_ANEW}")
        return data
    width, height, largest = map(int, header.groups())
    is_plain, samples = data[1:2] in b"123", width * height * (3 if data[1:2] in b"36" else 1)
    if is_plain:
        _check_slow(max(samples, len(data) // 4, data.count(b"#") * 1000), "PNM written as text")
    elif data[1:2] != b"4" and largest != 255 and not (data[1:2] == b"5" and largest == 65535):
        _check_slow(samples, f"PNM with samples up to {largest}")
    return data


def _check_slow(samples: int, kind: str) -> None:
    if samples > MAX_SLOW_SAMPLES:
        raise ImageError(f"{kind}, which is slow to read: allowed are {MAX_SLOW_SAMPLES} samples. {_SAVE_ANEW}")


def _blocks(kind: str, blocks: str) -> Iterator[int]:
    yield from range(MAX_BLOCKS)
    raise ImageError(f"{kind} of more than {MAX_BLOCKS} {blocks}. {_SAVE_ANEW}")


_WALKS = {
    b"\x89PNG\r\n\x1a\n": _png,
    b"\xff\xd8": _jpeg,
    b"GIF8": _gif,
    b"II": _tiff,
    b"MM": _tiff,
    b"BM": _bmp,
    b"P": _ppm,
}
