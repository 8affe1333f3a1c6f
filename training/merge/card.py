"""The model card of a written model: what it was made of and how. No dates and no paths: the same recipe gives the same bytes."""

import re
from pathlib import Path

import yaml

from ..versions import versions
from .products import MergePlan

PACKAGES = ("multimodal-vcla", "torch", "transformers")


def model_card(plan: MergePlan, layout: str, hashes: dict[Path, str]) -> bytes:
    """README.md of a model folder.

    Args:
        plan: what it is made of.
        layout: of the folder.
        hashes: SHA-256 of each weight file that was read.
    """
    family, has_vision = plan.family, plan.has_vision
    dtype = str(plan.model.dtype).removeprefix("torch.")
    front = {
        "library_name": "transformers",
        "pipeline_tag": "image-text-to-text" if has_vision else "text-generation",
        "tags": [family.model_type, "merge"] if has_vision else ["merge"],
    }
    lines = [
        "---",
        yaml.safe_dump(front, sort_keys=False).strip(),
        "---",
        "",
        f"# A {family.label} model in one folder" if has_vision else "# A language model in one folder",
        "",
        "Put together by `multimodal-vcla` from these inputs, adapters in this order:",
        "",
        "| input | name | licence as its model card says |",
        "| --- | --- | --- |",
        *(f"| {role} | {input_name(folder)} | {_licence(folder)} |" for role, folder in plan.inputs),
        "",
        f"Layout `{layout}`, weights in {dtype}, vocabulary of {plan.model.vocab_size} tokens. LoRA: base weights rounded to {dtype}, "
        "W + scale * B @ A in fp32, rounded once.",
        "",
        "| weight file read | SHA-256 |",
        "| --- | --- |",
        *(f"| {_file_name(plan, file)} | `{digest}` |" for file, digest in hashes.items()),
        "",
        "Versions: " + ", ".join(f"{package} {version}" for package, version in versions(PACKAGES).items()) + ".",
        "",
        "## Licence",
        "",
        "These weights are derived from all inputs above: the terms of each of them hold together. LLaMA's weights come under "
        f"the terms of the LLaMA version they are of (the first one: research only); {family.terms}",
        "",
    ]
    return "\n".join(lines).encode()


def input_name(folder: Path) -> str:
    """The hub's name of a folder in its cache, else the folder's own name.

    >>> input_name(Path("/cache/models--org--name/snapshots/0a1b"))
    'org/name'
    """
    cached = next((part for part in folder.absolute().parts if part.startswith("models--")), None)
    return cached.removeprefix("models--").replace("--", "/") if cached else folder.absolute().name


def _file_name(plan: MergePlan, file: Path) -> str:
    for _, folder in plan.inputs:
        if folder in file.parents:
            return f"{input_name(folder)}/{file.relative_to(folder).as_posix()}"
    return file.name


def _licence(folder: Path) -> str:
    card = folder / "README.md"
    front = re.match(r"---\n(.*?)\n---", card.read_text(encoding="utf-8", errors="replace"), re.S) if card.is_file() else None
    try:
        values = yaml.safe_load(front[1]) if front else {}
    except yaml.YAMLError:
        values = {}
    return str(values.get("license", "not said")) if isinstance(values, dict) else "not said"
