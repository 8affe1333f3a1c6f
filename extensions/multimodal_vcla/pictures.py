"""A picture on its way into a prompt: named by what was sent, decoded only when the vision model wants it.

The web UI's chat history, or the API request, stays the only home of pictures: nothing is kept here.
"""

import hashlib
import re
from collections import OrderedDict
from collections.abc import Callable

from PIL import Image

from pipelines.base import ImagePart
from pipelines.images import ImageError, image_size, load_image

from . import settings
from .texts import say

_SCHEME = re.compile(r"\s*([A-Za-z][A-Za-z0-9+.-]*):")


class PictureError(ValueError):
    """Why a request with pictures is not answered; the message is for the user."""


class Picture(ImagePart):
    """A picture that is not decoded yet.

    Args:
        source: a `data:` URI, or the bytes of a file.
        name: what the user calls it.
        key: where it is known already.
    """

    def __init__(self, source: str | bytes, name: str, key: str | None = None):
        if key is None:
            data = source.encode("utf-8", "replace") if isinstance(source, str) else source
            key = hashlib.sha256(data).hexdigest()[:32]
        for attribute, value in (("source", source), ("name", name), ("key", key)):
            object.__setattr__(self, attribute, value)  # its base is frozen

    @property
    def size(self) -> tuple[int, int]:
        """(width, height), from the header; of a file that has none it is a single pixel's, and `open` says why."""
        return _size(self.key, self.source)

    def open(self) -> Image.Image:
        """Decode it.

        Raises:
            PictureError: it is no picture, or larger than the settings allow.
        """
        limits = {
            "max_bytes": int(settings.number("max_image_mb", 0.001) * 2**20),
            "max_pixels": int(settings.number("max_image_megapixels", 0.001) * 1e6),
        }
        if isinstance(self.source, str) and not self.source.startswith("data:"):  # an uploaded chat may name a file
            raise PictureError(say("bad_picture", name=self.name, reason=say("bad_source", scheme=self.source[:12])))
        try:
            return load_image(self.source, background="white", **limits)
        except ImageError as error:
            raise PictureError(say("bad_picture", name=self.name, reason=error.reason)) from error


_sizes: "OrderedDict[str, tuple[int, int]]" = OrderedDict()


def _size(key: str, source: str | bytes) -> tuple[int, int]:
    if key not in _sizes:
        try:
            _sizes[key] = image_size(source)
        except ImageError:
            _sizes[key] = (1, 1)
        while len(_sizes) > 4096:
            _sizes.popitem(last=False)
    return _sizes[key]


def from_url(url: object, name: str, fetch: Callable[[str, int], bytes]) -> Picture:
    """A picture from the address that a client sent.

    Args:
        url: whatever stands there; only `data:`, `http:` and `https:` addresses are taken.
        name: what the user calls it.
        fetch: (http address, largest number of bytes) to bytes.

    Raises:
        PictureError: another address, or one that cannot be fetched.
    """
    scheme = match[1].lower() if isinstance(url, str) and (match := _SCHEME.match(url)) else ""
    if scheme == "data":
        return Picture(url.lstrip().replace(url.lstrip()[:5], "data:", 1), name)
    if scheme not in ("http", "https"):
        raise PictureError(say("bad_picture", name=name, reason=say("bad_source", scheme=f"{scheme}:")))
    try:
        return Picture(fetch(url.strip(), int(settings.number("max_image_mb", 0.001) * 2**20)), name)
    except Exception as error:
        shown = url if len(url) <= 80 else url[:80] + "..."
        raise PictureError(say("bad_picture", name=name, reason=say("bad_fetch", url=shown, reason=error))) from error
