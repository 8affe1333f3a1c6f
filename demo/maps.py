"""What an answer looked at, as HTML: pictures dark where it did not look, and its words, each with maps of its own.

Nothing runs: the maps are masks of a few pixels, and CSS chooses those of the word that is pointed at. So a saved chat has them,
too.
"""

import base64
import html
import io

import torch
from PIL import Image

from .attention import Look, Looks
from .messages import plain
from .session import Turn

MAX_SIDE_PX = 512
_DARKEST = 0.12


def turn_maps(turn: Turn, texts: dict[str, str], name: str = "maps") -> str:
    """What the answer of a turn looked at, in the words of a language; "" where there was nothing to look at."""
    if turn.looks is None or not turn.looks.pictures:
        return ""
    rest = turn.answer[len("".join(turn.looks.words)) :]
    return maps_html(turn.looks, texts["picture"], texts["looks words"], rest, name)


def maps_html(looks: Looks, caption: str, heading: str, rest: str = "", name: str = "maps") -> str:
    """The pictures with their maps, then the words.

    Args:
        looks: what was looked at.
        caption: with "{}" for a picture's number.
        heading: of the words.
        rest: what stands behind the words in the answer.
        name: different for each in one document.
    """
    pictures = [_figure(index, look, caption.format(look.number)) for index, look in enumerate(looks.pictures)]
    most = torch.stack([look.by_word.amax((1, 2)) for look in looks.pictures]).amax(0)  # (W,): over all pictures
    rules = [f"#{name}{{{_masks([mask(look.heat, look.heat.max()) for look in looks.pictures])}}}"]
    for index in range(len(looks.words)):
        is_chosen = f"#{name}:not(:has(label:hover)):has(.w{index} :checked),#{name}:has(.w{index}:hover)"
        rules.append(f"{is_chosen}{{{_masks([mask(look.by_word[index], most[index]) for look in looks.pictures])}}}")
    words = [
        f'<label class="w{index}"><input type="radio" name="{name}">{plain(word)}</label>'
        for index, word in enumerate(looks.words)
    ]
    return (
        f'<div class="looked" id="{name}"><style>{"".join(rules)}</style><div class="pictures">{"".join(pictures)}</div>'
        f'<fieldset class="words"><legend>{plain(heading)}</legend>{"".join(words)}{plain(rest)}</fieldset></div>'
    )


def mask(heat: torch.Tensor, most: torch.Tensor) -> Image.Image:
    """(n, n) of a map to as many pixels whose alpha is how much of the picture is seen; all of it where the map is `most`."""
    light = _DARKEST + (1 - _DARKEST) * heat / most.clamp_min(torch.finfo(heat.dtype).tiny)
    alpha = Image.frombytes(
        "L", (heat.shape[1], heat.shape[0]), bytes((light * 255).round().to(torch.uint8).flatten().tolist())
    )
    return Image.merge("LA", (Image.new("L", alpha.size), alpha))


def _masks(masks: list[Image.Image]) -> str:
    return ";".join(f"--map{index}:url({_data_uri(image, 'PNG')})" for index, image in enumerate(masks))


def _data_uri(image: Image.Image, kind: str) -> str:
    file = io.BytesIO()
    image.save(file, kind)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode('ascii')}"


def _figure(index: int, look: Look, caption: str) -> str:
    image = look.image.open().convert("RGB")
    image.thumbnail((MAX_SIDE_PX, MAX_SIDE_PX), Image.Resampling.LANCZOS)
    left, top, right, bottom = look.box
    width, height = right - left, bottom - top
    # A percentage of mask-position is of what is left beside the mask.
    x, y = (0.0 if size >= 1 else start / (1 - size) for start, size in ((left, width), (top, height)))
    place = f"mask:var(--map{index}) {x:.2%} {y:.2%}/{width:.2%} {height:.2%} no-repeat"
    caption = html.escape(f"{caption} · {look.share:.0%}")
    return (
        f'<figure><span class="map"><img src="{_data_uri(image, "WEBP")}" alt="{caption}" tabindex="0" style="{place}"></span>'
        f"<figcaption>{caption}</figcaption></figure>"
    )
