"""Reading the JSON files of a model folder. Standard library only: the doctor runs where nothing is installed."""

import json
from pathlib import Path
from typing import Any

MAX_JSON_BYTES = 16 * 2**20
"""Of a configuration or an index; a real one has a few MB at most."""


def read_json(path: Path) -> dict[str, Any]:
    """The keys and values of a JSON file; none where there is no such file.

    Raises:
        ValueError: it is no JSON object, too large, or nested too deeply.
    """
    if not path.is_file():
        return {}
    if path.stat().st_size > MAX_JSON_BYTES:
        raise ValueError(f"{str(path)!r} has {path.stat().st_size} bytes; no configuration has more than {MAX_JSON_BYTES}.")
    return parse_json(path.read_bytes(), path)


def parse_json(content: bytes, source: Path) -> dict[str, Any]:
    """The keys and values of a JSON object.

    Args:
        content: UTF-8.
        source: for errors.

    Raises:
        ValueError: it is no JSON object, or nested too deeply.
    """
    try:
        values = json.loads(content.decode("utf-8"))
    except RecursionError as error:
        raise ValueError(f"{str(source)!r} is nested too deeply to be read. Copy the file again.") from error
    except ValueError as error:
        raise ValueError(f"{str(source)!r} is not valid JSON ({error}). Copy the file again.") from error
    if not isinstance(values, dict):
        raise ValueError(f"{str(source)!r} holds no configuration. Copy the file again.")
    return values
