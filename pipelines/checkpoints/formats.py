"""What people have on their disks that is no model to be opened here as it lies: told by configuration and content, refused by name.

One table for every door (`load`, `merge`, `convert`, `doctor`): what the thing is, and the way forward at each. What a family opens is
found by `pipelines.registry.find_family`. Standard library only, until a weight file has to be looked into.
"""

import contextlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..json_files import read_json
from .meta_llama import is_meta_llama
from .weight_files import model_files

DOORS = ("load", "merge", "convert", "doctor")
SMALLEST_NORM = 0.02
"""Mean of a LLaMA's last norm, which begins at 1; in weights minus another's it is next to 0."""

_FULL = "Merging and converting need the weights in 16 or 32 bits: give the model it was quantised from."
_CONVERT = "Convert it first: python -m training convert {path} llama --layout webui"
_ADD = "Add it to LLaMA first: python -m training merge --text_model LLAMA --delta {path} --output_dir vicuna"
_GGUF = "Load it with the web UI's llama.cpp loader, or get the model as safetensors."


@dataclass(frozen=True)
class Foreign:
    """A row of the table.

    Attributes:
        name: of the format.
        describe: a file or folder to what it is, the end of a sentence; None when it is not of this format.
        instead: door to the way forward; other doors open it.
        only_without_vision: whether a model of a known family is never one, whatever lies in its folder.
    """

    name: str
    describe: Callable[[Path], str | None]
    instead: Mapping[str, str]
    only_without_vision: bool = False


def find_foreign(path: Path, door: str, has_vision: bool = False) -> tuple[str, str] | None:
    """What a file or folder is and the way forward, where a door does not open it; None where it may.

    Args:
        path: exists.
        door: one of `DOORS`.
        has_vision: whether it is of a known family.
    """
    for row in FOREIGN:
        if door in row.instead and not (has_vision and row.only_without_vision):
            with contextlib.suppress(ValueError, OSError):  # a broken file is told by whoever reads it
                if what := row.describe(path):
                    return what, row.instead[door].format(path=path)
    return None


def refuse_foreign(path: Path, door: str, has_vision: bool = False) -> None:
    """As `find_foreign`, in one line.

    Raises:
        ValueError: the door does not open it.
    """
    if found := find_foreign(path, door, has_vision):
        raise ValueError(f"{str(path)!r} {found[0]}. {found[1]}")


def _gguf(path: Path) -> str | None:
    files = [path] if path.is_file() else [] if model_files(path) else sorted(path.glob("*.gguf"))
    if not files:
        return None
    with open(files[0], "rb") as handle:
        start = handle.read(4096)
    if not start.startswith(b"GGUF"):
        return None
    # A metadata string: its key, four bytes of type, eight of length.
    architecture = start.partition(b"general.architecture")[2][12:]
    is_vision = architecture.startswith(b"clip") and len(files) == 1
    return f"is {'the vision model (mmproj) of ' if is_vision else ''}a GGUF model, which is llama.cpp's"


def _meta_llama(path: Path) -> str | None:
    return "is LLaMA as Meta published it" if path.is_dir() and is_meta_llama(path) else None


def _quantised(path: Path) -> str | None:
    settings = _config(path).get("quantization_config")
    return f"is quantised ({settings.get('quant_method', 'unknown method')})" if isinstance(settings, dict) else None


def _delta(path: Path) -> str | None:
    if _config(path).get("model_type") not in ("llama", "llava", "llava_llama") or not importlib.util.find_spec("torch"):
        return None
    from .stored_tensors import model_tensors

    norm = model_tensors(path).get("model.norm.weight")
    is_delta = norm is not None and norm.read().float().abs().mean().item() < SMALLEST_NORM
    return "is a delta, weights minus those of LLaMA, and no model" if is_delta else None


def _lora_file(path: Path) -> str | None:
    if not path.is_file() or path.suffix not in (".bin", ".pt", ".pth", ".safetensors"):
        return None
    from .stored_tensors import read_header

    return "is a LoRA by itself, and no model" if any(".lora_" in name for name in read_header(path)) else None


def _adapter(path: Path) -> str | None:
    is_adapter = (path / "adapter_config.json").is_file() and not model_files(path)
    return "is an adapter (LoRA), and no model" if is_adapter else None


def _language_model(path: Path) -> str | None:
    has_type = isinstance(_config(path).get("model_type"), str)
    return "is a model without a vision model of a known family" if has_type and model_files(path) else None


def _config(path: Path) -> dict[str, Any]:
    return read_json(path / "config.json") if path.is_dir() else {}


FOREIGN = (
    Foreign("gguf", _gguf, dict.fromkeys(DOORS, _GGUF)),
    Foreign("meta_llama", _meta_llama, dict.fromkeys(("load", "merge", "doctor"), _CONVERT)),
    Foreign(
        "quantised",
        _quantised,
        {**dict.fromkeys(("merge", "convert"), _FULL), "doctor": f"Load it in the web UI as it is. {_FULL}"},
    ),
    Foreign("delta", _delta, dict.fromkeys(DOORS, _ADD)),
    Foreign(
        "lora_file",
        _lora_file,
        dict.fromkeys(("load", "convert"), "Give it as lora_model (--lora_model) over the model it was trained on."),
        only_without_vision=True,
    ),
    Foreign(
        "adapter",
        _adapter,
        {
            "load": "Give it as lora_model (--lora_model) over the model it was trained on, or merge the two: python -m training merge "
            "--text_model MODEL --lora_model {path} --output_dir MERGED"
        },
        only_without_vision=True,
    ),
    Foreign(
        "language_model",
        _language_model,
        {"load": "Give it one: python -m training merge --help. What is it? python -m pipelines.doctor {path}"},
        only_without_vision=True,
    ),
)
