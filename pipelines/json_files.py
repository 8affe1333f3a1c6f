"""Reading the JSON files of a model folder. Standard library only: the doctor runs where nothing is installed."""

import json
from pathlib import Path
from typing import Any


def read_json(path: Path) -> dict[str, Any]:
    """The keys and values of a JSON file; none where there is no such file.

    Raises:
        ValueError: it is no JSON object.
    """
    if not path.is_file():
        return {}
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{str(path)!r} is not valid JSON ({error}). Copy the file again.") from error
    if not isinstance(values, dict):
        raise ValueError(f"{str(path)!r} holds no configuration. Copy the file again.")
    return values
