"""Adapters merged into whole models of transformers: the folder stays what it was, its weights change."""

import os
import shutil
import tempfile
from pathlib import Path

import torch

from .loading import load_model

_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf")


def convert(
    path: str | os.PathLike,
    output_dir: str | os.PathLike,
    layout: str,
    *,
    text_model: str | os.PathLike | None = None,
    vision_model: str | os.PathLike | None = None,
    lora_model: str | os.PathLike | None = None,
    dtype: torch.dtype | None = None,
    max_shard_bytes: int = 2 * 10**9,
    force: bool = False,
) -> None:
    """Merge an adapter into a whole model; see `pipelines.registry.converter`. The model is loaded, so it has to fit into memory.

    Raises:
        ValueError: there is nothing to do, or what was given does not fit.
        FileExistsError: there is something in `output_dir`.
    """
    path, target = Path(path), Path(output_dir)
    if lora_model is None or layout == "original":
        raise ValueError(
            f"{str(path)!r} is used as it was published, by everything here and by the web UI: there is nothing to convert. An "
            "adapter is merged into it by python -m training merge --text_model ... --lora_model ..."
        )
    if (
        target.exists()
        and not (force and (target / "config.json").is_file())
        and (not target.is_dir() or any(target.iterdir()))
    ):
        raise FileExistsError(f"{str(target)!r} is there already. Give another --output_dir, or --force to replace a model.")
    model, _ = load_model(
        path, text_model=text_model, vision_model=vision_model, lora_model=lora_model, dtype="auto" if dtype is None else dtype
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as made:
        folder = Path(made) / target.name
        model.merge_and_unload(safe_merge=True).save_pretrained(folder, max_shard_size=max_shard_bytes)
        for file in path.iterdir():
            is_weights = file.suffix in _WEIGHTS or file.name.endswith(".index.json")
            if file.is_file() and not is_weights and file.name not in ("config.json", "generation_config.json"):
                shutil.copyfile(file, folder / file.name)
        if target.exists():
            target.rename(Path(made) / "before")
        folder.rename(target)
