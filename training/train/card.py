"""The model card of a result: the whole recipe, what it was trained on, and how it went."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from pipelines.hub import resolve_folder

from ..versions import versions
from .config import resolved

if TYPE_CHECKING:
    from .run import Run

PACKAGES = ("multimodal-vcla", "torch", "transformers", "peft", "accelerate")
SIGNATURE_BYTES = 2**20


def write_card(folder: Path, run: "Run", points: list[dict[str, Any]]) -> None:
    """Write README.md: recipe, fingerprints of base and data, versions, losses; and the recipe as config.yaml.

    Args:
        folder: of the result.
        run: that made it.
        points: of the log.
    """
    recipe = resolved(run.recipe, run.arguments)
    (folder / "training.yaml").write_text(recipe, encoding="utf-8")
    is_adapter = run.recipe.result == "adapter"
    front = {"pipeline_tag": "image-text-to-text", "tags": ["multimodal-vcla"]}
    front |= {"library_name": "peft", "base_model": run.recipe.model} if is_adapter else {"library_name": "transformers"}
    losses = {key: [point[key] for point in points if key in point] for key in ("loss", "eval_loss")}
    learnt = ", ".join(f"{group.name} ({group.size} parameters)" for group in run.groups)
    opens = (
        f"`python -m demo page --model {run.recipe.model} --lora_model FOLDER`; merged: `python -m training merge --text_model "
        f"{run.recipe.model} --lora_model FOLDER --output_dir merged`"
        if is_adapter
        else "`python -m demo page --model FOLDER`"
    )
    lines = [
        "---",
        yaml.safe_dump(front, sort_keys=False).strip(),
        "---",
        "",
        f"# {run.folder.name}",
        "",
        f"{'An adapter over' if is_adapter else 'Trained from'} `{run.recipe.model}` by `python -m training train`. Open it: {opens}.",
        "",
        f"* learnt: {learnt}",
        f"* steps: {run.num_steps}",
        *(f"* {name}: {values[0]:.4g} at first, {values[-1]:.4g} at last" for name, values in losses.items() if values),
        f"* base: `{fingerprint(resolve_folder(run.recipe.model))}`",
        *(f"* data: `{path.name}` `{fingerprint(path)}`" for path in _files(run.recipe.source)),
        "* versions: " + ", ".join(f"{name} {version}" for name, version in versions(PACKAGES).items()),
        "",
        "## Recipe",
        "",
        "The same file as `training.yaml` repeats the run: `python -m training train --config training.yaml`.",
        "",
        "```yaml",
        recipe.strip(),
        "```",
        "",
        "The weights carry the terms of the model and the data they were made of.",
        "",
    ]
    (folder / "README.md").write_text("\n".join(lines), encoding="utf-8")


def fingerprint(path: Path) -> str:
    """SHA-256 over names, sizes, first and last MiB of a file, or of all weight files of a folder."""
    digest = hashlib.sha256()
    files = sorted(path.rglob("*.safetensors")) + sorted(path.rglob("*.bin")) if path.is_dir() else [path]
    for file in files:
        size = file.stat().st_size
        digest.update(f"{file.name} {size}\n".encode())
        with file.open("rb") as handle:
            digest.update(handle.read(SIGNATURE_BYTES))
            if size > SIGNATURE_BYTES:
                handle.seek(max(SIGNATURE_BYTES, size - SIGNATURE_BYTES))
                digest.update(handle.read())
    return digest.hexdigest()


def _files(source: str) -> list[Path]:
    path = Path(source)
    return [path] if path.exists() else sorted(path.parent.glob(path.name)) if "*" in path.name else []
