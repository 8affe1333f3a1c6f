"""This checkout: where it is, and the facts that pyproject.toml and the constraints hold."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def version() -> str:
    """The project's version."""
    return re.search(r'^version = "(.+)"', _pyproject(), re.MULTILINE).group(1)


def oldest_python() -> tuple:
    """The oldest Python that the project runs with, such as (3, 10)."""
    return numbers(re.search(r'^requires-python = ">=(.+)"', _pyproject(), re.MULTILINE).group(1))


def lower_bounds() -> dict:
    """What the project depends on: name to the oldest version that will do."""
    return dict(re.findall(r'^ *"([a-z0-9_.-]+)>=([0-9.]+)",$', _pyproject(), re.MULTILINE))


def pinned_version(constraints: Path, name: str) -> str | None:
    """The version of a `name==version` line; None when the file pins none."""
    match = re.search(rf"^{name}==([^\s;#]+)", constraints.read_text(encoding="utf-8"), re.MULTILINE)
    return match.group(1) if match else None


def numbers(version: str) -> tuple:
    """The leading numbers of a version, for comparing."""
    return tuple(int(part) for part in re.match(r"[0-9.]*[0-9]|", version).group().split(".") if part)


def _pyproject() -> str:
    return (ROOT / "pyproject.toml").read_text(encoding="utf-8")
