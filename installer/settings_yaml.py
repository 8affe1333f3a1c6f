"""Switched on at every start: `default_extensions` in the web UI's settings.yaml, with every other byte left as it is."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

from . import files
from .webui import EXTENSION, WebUI
from .words import UserError


def enabled_in(web: WebUI) -> str | None:
    """The file that switches the extension on at every start; None when none does."""
    with contextlib.suppress(UserError):  # a list that is not understood
        if with_extension(_read(web.settings) or "", True) is None:
            return web.name(web.settings)
    lines = [line.strip().rstrip("\\") for line in (_read(web.flags) or "").splitlines()]
    words = " ".join(line for line in lines if not line.startswith("#")).split()
    is_named = "--extensions" in words and EXTENSION in words[words.index("--extensions") :]
    return web.name(web.flags) if is_named else None


def enabling(web: WebUI) -> dict | None:
    """What settings.yaml is `before` and the `text` that replaces it; None when the extension is on already."""
    if enabled_in(web):
        return None
    before = _read(web.settings)
    return {"before": before, "text": with_extension(before or "", True)}


def disable(web: WebUI, settings: dict) -> list:
    """Undo `enabling`: the file as it was, or, when it has changed since, without the extension's name.

    Returns:
        What is left, a sentence each.
    """
    there = _read(web.settings)
    if there is None:
        return []
    if there == settings["text"]:
        text = settings["before"]
    else:
        try:
            text = with_extension(there, False)
        except UserError as error:
            return [str(error)]
        text = there if text is None else text
    if text is None or (not text.strip() and settings["before"] is None):
        web.settings.unlink()
    elif text != there:
        write(web, text)
    return []


def write(web: WebUI, text: str) -> None:
    """Replace settings.yaml."""
    files.write(web.settings, text.encode("utf-8", "surrogateescape"))


def _read(path: Path) -> str | None:
    """The text of a file, whatever its encoding and line ends; None when there is none."""
    return path.read_bytes().decode("utf-8", "surrogateescape") if path.is_file() else None


def with_extension(text: str, wanted: bool) -> str | None:
    """settings.yaml with or without the extension in `default_extensions`, all else as it is; None when it is so already.

    Raises:
        UserError: the list is written in a way that is not understood here.
    """
    lines, end_of_line = text.splitlines(keepends=True), "\r\n" if "\r\n" in text else "\n"
    at = next((number for number, line in enumerate(lines) if line.startswith("default_extensions:")), None)
    if at is None:
        end = end_of_line if text and not text.endswith("\n") else ""
        return f"{text}{end}default_extensions:{end_of_line}- {EXTENSION}{end_of_line}" if wanted else None
    value = lines[at].partition(":")[2].partition(" #")[0].strip()
    if value.startswith("[") and value.endswith("]"):
        items = [item.strip() for item in value[1:-1].split(",") if item.strip()]
        others = [item for item in items if item.strip("'\"") != EXTENSION]
        if (len(others) < len(items)) == wanted:
            return None
        lines[at] = lines[at].replace(value, f"[{', '.join([EXTENSION, *others] if wanted else others)}]", 1)
        return "".join(lines)
    if value not in ("", "null", "~"):
        advice = f"Write {EXTENSION} into its default_extensions, or take it out, by hand."
        raise UserError(f"settings.yaml has a list of extensions that install.py does not understand: {value!r}. {advice}")
    end = at + 1
    while end < len(lines) and re.match(r"\s*(-\s|#|$)", lines[end]):
        end += 1
    items = [number for number in range(at + 1, end) if lines[number].lstrip().startswith("-")]
    ours = [number for number in items if lines[number].partition("-")[2].partition(" #")[0].strip(" \t\r\n'\"") == EXTENSION]
    if bool(ours) == wanted:
        return None
    if wanted:
        indent = re.match(r"\s*", lines[items[0]]).group() if items else ""
        lines[at] = lines[at] if value == "" and lines[at].endswith("\n") else f"default_extensions:{end_of_line}"
        lines.insert(at + 1, f"{indent}- {EXTENSION}{end_of_line}")
        return "".join(lines)
    gone = {*ours, *([at] if len(items) == len(ours) else [])}
    return "".join(line for number, line in enumerate(lines) if number not in gone)
