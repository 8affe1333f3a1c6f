"""The plugin's settings, checked when they are used. Their names and meanings are in README.md, their defaults in script.py.

The web UI fills them in after the import and before `setup()`; the panel and the Session tab change them later.
"""

from typing import Any

params: dict[str, Any] = {}


def use(given: dict[str, Any]) -> None:
    """Take the dictionary that the web UI fills and saves; it stays the only one."""
    global params
    params = given


def get(name: str) -> Any:
    return params.get(name)


def bits(name: str) -> int | None:
    """16, 32, or None for "as suits the device".

    Raises:
        ValueError: anything else; the vision model is never quantised.
    """
    value = get(name)
    if value in (None, "", "auto"):
        return None
    if str(value) in ("16", "32"):
        return int(value)
    raise ValueError(
        f"multimodal_vcla-{name} is {value!r}; allowed are 16, 32, or nothing for automatic. Quantise the language model only."
    )


def device(name: str) -> str | None:
    """A torch device such as "cpu" or "cuda:1", or None for the language model's."""
    value = get(name)
    return None if value in (None, "", "auto") else str(value)


def number(name: str, lowest: float = 1) -> float:
    """A number not below `lowest`.

    Raises:
        ValueError: anything else.
    """
    value = get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value < lowest:
        raise ValueError(f"multimodal_vcla-{name} is {value!r}; allowed are numbers from {lowest} on.")
    return value


def max_pixels() -> int | None:
    """How many pixels of a picture a whole model is shown at most; None for as many as it takes."""
    return None if get("max_pixels") in (None, "", 0) else int(number("max_pixels"))


def use_tiles() -> bool | None:
    """Whether a whole model is shown magnified parts of a picture; None for as it does by itself.

    Raises:
        ValueError: anything else than true, false and nothing.
    """
    value = get("use_tiles")
    if value not in (None, "", True, False):
        raise ValueError(
            f"multimodal_vcla-use_tiles is {value!r}; allowed are true, false, or nothing for the model's own way."
        )
    return None if value == "" else value


def pictures_kept() -> int | None:
    """How many of the newest pictures stay in the prompt; None for all."""
    return None if get("add_all_images_to_prompt") else int(number("last_images"))
