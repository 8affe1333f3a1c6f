"""What a picture costs a model that can be shown it in more than one way: the choices of the panel, each with its price."""

from typing import TYPE_CHECKING, Any

from . import settings
from .texts import say

if TYPE_CHECKING:
    from .vision import VisionModel

PHOTO = (1600, 1200)
"""Prices are those of a photo of this width and height, in pixels."""
PIXELS = (1_000_000, 500_000, 250_000, 100_000)
OWN = "own"
TILES = {OWN: None, "tiles": True, "whole": False}
"""What is chosen for `use_tiles`, to the setting."""

Choices = list[tuple[str, str]]
"""(label, value) of each."""


def pixel_choices(found: "VisionModel") -> Choices:
    """For `max_pixels`, with what a photo takes; none where it takes the same whatever is chosen."""
    use_tiles = settings.use_tiles()
    own = _price(found, None, use_tiles)
    if own is None:
        return []
    offered = sorted({*PIXELS, *filter(None, [settings.max_pixels()])}, reverse=True)
    prices = {count: _price(found, count, use_tiles) for count in offered}
    if settings.max_pixels() is None and set(prices.values()) == {own}:
        return []
    choices = [(say("priced", name=say("own_pixels"), count=own), OWN)]
    return choices + [(say("priced", name=say("pixels", number=n), count=price), str(n)) for n, price in prices.items()]


def tile_choices(found: "VisionModel | None") -> Choices:
    """For `use_tiles`, with what a photo takes; none where there is nothing to choose.

    Args:
        found: None where the model cannot see, which may be so because of the setting: then it can be taken back.
    """
    if found is None:
        is_set = settings.get("use_tiles") in (True, False)
        return [
            (say(f"tiles_{name}"), name)
            for name, value in TILES.items()
            if is_set and value in (None, settings.get("use_tiles"))
        ]
    if not found.pipeline.can_use_tiles:
        return []
    return [
        (say("priced", name=say(f"tiles_{name}"), count=_price(found, settings.max_pixels(), value)), name)
        for name, value in TILES.items()
    ]


def choose(pixels: str | None, tiles: str | None) -> None:
    """Make settings of what was chosen; what was not offered stays.

    Args:
        pixels: a value of `pixel_choices`; None where none was offered.
        tiles: one of `tile_choices`; None where none was offered.
    """
    if pixels is not None:
        settings.params["max_pixels"] = None if pixels == OWN else int(pixels)
    if tiles is not None:
        settings.params["use_tiles"] = TILES[tiles]


def chosen() -> tuple[str, str]:
    """The values of both settings among the choices."""
    tiles = settings.get("use_tiles")
    return str(settings.get("max_pixels") or OWN), next((name for name, value in TILES.items() if value is tiles), OWN)


def of_picture(found: "VisionModel", picture: Any) -> str:
    """What a picture of the chat takes, and what it would without the settings, where that is another number."""
    (cost,) = found.costs([picture])
    own = found.pipeline.image_lengths([picture.size])
    return say("tokens", count=cost) if own is None or own[0] == cost else say("instead", count=cost, own=own[0])


def _price(found: "VisionModel", max_pixels: int | None, use_tiles: bool | None) -> int | None:
    lengths = found.pipeline.image_lengths([PHOTO], max_pixels, use_tiles)
    return None if lengths is None else lengths[0]
