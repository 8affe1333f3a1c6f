"""Names of models: a folder here, or a name on the hub."""

import os
from pathlib import Path
from typing import Any

HUB_KEYS = ("revision", "token", "cache_dir", "local_files_only", "force_download")
OTHER_PROGRAMS = ("onnx/*", "*.onnx*", "openvino/*", "*.gguf", "*.msgpack", "*.h5", "*.tflite")
"""Copies of the weights for programs that are not asked here: often larger than the model itself."""


def hub_kwargs_of(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Those of the arguments that say where on the hub to look."""
    return {key: kwargs[key] for key in HUB_KEYS if kwargs.get(key) is not None}


def resolve_folder(name_or_path: str | os.PathLike, **hub_kwargs: Any) -> Path:
    """A local folder (or a weight file, for families that are published as one) as it is; a hub name downloaded into the cache.

    Raises:
        FileNotFoundError: neither a folder nor a reachable hub name.
    """
    folder = Path(name_or_path).expanduser()
    if folder.exists():
        return folder
    name = os.fspath(name_or_path)
    looks_like_hub_name = name.count("/") == 1 and not name.startswith((".", "/", "~"))
    if not looks_like_hub_name:
        raise FileNotFoundError(f"{name!r} is not a folder. Give the folder of a model, or a name on the hub.")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, ignore_patterns=list(OTHER_PROGRAMS), **hub_kwargs))
    except Exception as error:
        raise FileNotFoundError(
            f"{name!r} is neither a folder here nor to be had from the hub ({type(error).__name__}). Check the spelling and the "
            "network, or give a local folder."
        ) from error
