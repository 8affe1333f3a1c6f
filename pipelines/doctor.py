"""What is this model folder, what is missing, will it fit, and what to do next: `python -m pipelines.doctor FOLDER...`

Runs on a bare Python too: without PyTorch it says what the names and sizes of the files tell, and that this is all.
"""

import argparse
import contextlib
import dataclasses
import importlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .checkpoints.formats import find_foreign
from .checkpoints.weight_files import has_leftover_adapter
from .json_files import read_json
from .own_python import hand_over
from .registry import FAMILIES, available_pipelines, check_layers, find_family, is_whole

GIB = 2**30
PACKAGES = ("torch", "transformers", "safetensors", "pillow", "sentencepiece", "accelerate", "peft", "bitsandbytes")
PLACES = {"": "language model", "text_encoder": "language model", "vision": "eyes", "vision_encoder": "eyes"}
"""Subfolder to what its weights are."""
FLAGS = {32: "--dtype float32", 16: "--dtype bfloat16", 8: "--load_in_8bit", 4: "--load_in_4bit"}
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")


@dataclass
class Part:
    """Weights in one place of a model folder.

    Attributes:
        what: "language model", "eyes", "whole model" or "adapter".
        place: subfolder; "" for the root.
        num_bytes: on the disk.
        num_weights: how many numbers; None without PyTorch.
        dtype: the most frequent one; None without PyTorch.
    """

    what: str
    place: str
    num_bytes: int
    num_weights: int | None = None
    dtype: str | None = None


@dataclass
class Report:
    """What is known about a model folder.

    Attributes:
        folder: as given.
        family: family id of its eyes; None when it has none that is known.
        foreign: what it is instead, where it is no model of the usual kind.
        is_loaded: whether anything here, or the web UI's Transformers loader, takes it as it lies.
        layout: the family's word for how the folder is arranged; None when there is none, or without PyTorch.
        parts: the weights.
        missing: what is absent, broken or does not fit, a sentence each.
        device: "cpu" or "cuda", for the memory.
        free_gib: memory that is free there; None without PyTorch.
        memory: bits to {"needed_gib": ..., "fits": ...}; empty when it cannot be told.
        next: commands to go on with.
    """

    folder: str
    family: str | None = None
    foreign: str | None = None
    is_loaded: bool = True
    layout: str | None = None
    parts: list[Part] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    device: str = "cpu"
    free_gib: float | None = None
    memory: dict[int, dict[str, Any]] = field(default_factory=dict)
    next: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """For the user."""
        kind = FAMILIES.get(self.family, self.foreign or "no eyes of a known family") + (
            f"; layout {self.layout}" if self.layout else ""
        )
        lines = [f"{self.folder}: {kind}"]
        for part in self.parts:
            weights = f"{part.num_weights / 1e6:,.1f} million weights, {part.dtype}, " if part.num_weights is not None else ""
            place = f" in {part.place}/" if part.place else ""
            lines.append(f"  {part.what}{place}: {weights}{size(part.num_bytes)} on the disk")
        if self.memory:
            fits = {True: "fits", False: "does not fit"}
            each = [f"{bits} bit {size(need['needed_gib'] * GIB)} {fits[need['fits']]}" for bits, need in self.memory.items()]
            lines.append(f"  memory ({self.free_gib:.1f} GiB free on {self.device}): {', '.join(each)}")
        lines += [f"  missing: {sentence}" for sentence in self.missing]
        return lines + [f"  next: {command}" for command in self.next]


def examine(
    folder: str | os.PathLike, device: str | None = None, is_thorough: bool = True, reads_weights: bool = True
) -> Report:
    """Look at a model folder without loading it.

    Args:
        folder: a folder that exists.
        device: "cpu" or "cuda", whose memory counts; a GPU when there is one.
        is_thorough: a folder that looks whole is tried, too (`pipelines.trial`).
        reads_weights: the trial looks at every value of the weights, which takes as long as reading them.
    """
    report, path = Report(os.fspath(folder)), Path(folder)
    try:
        report.family = find_family(path)
        check_layers(path)
        read_json(path / "adapter_config.json")
    except ValueError as error:
        report.missing.append(str(error))
    is_leftover = False
    with contextlib.suppress(ValueError, OSError):  # told by whoever reads the weights
        is_leftover = has_leftover_adapter(path)
    is_adapter = (path / "adapter_config.json").is_file() and not is_leftover
    foreign = find_foreign(path, "doctor", report.family is not None)
    if foreign is not None:
        report.foreign, report.next = foreign[0], [foreign[1]]
        report.is_loaded = find_foreign(path, "load", has_vision=True) is None
        if is_thorough and report.is_loaded and has_torch():
            from .trial import quantisation_faults

            report.missing += quantisation_faults(path)
        return report
    _find_parts(report, path, is_adapter)
    if is_leftover:
        report.missing.append(
            "a place of its own for the adapter that lies beside the weights: programs that load by transformers put it on top of "
            "them. If it is merged already, move it away; if not, move it away and merge it."
        )
    if not report.parts and report.family is None:
        report.missing.append("there are no weights and no configuration of a known family: this is no model folder.")
    elif report.family is None and (path / "vision").is_dir():
        report.missing.append(
            f"a vision model of a known family: {str(path / 'vision')!r} is there, but neither its config.json nor the folder's names one. "
            "Copy the folder again."
        )
    else:
        try:
            _find_missing(report, path, is_adapter)
        except Exception as error:  # configurations check themselves, with exceptions of their own
            report.missing.append(" ".join(str(error).split())[:500])
    if has_torch() and report.parts:
        _look_closer(report, path, is_adapter, device)
        if is_thorough and not (report.missing or is_leftover):
            from .trial import adapter_faults, faults

            trial = adapter_faults if is_adapter else faults
            report.missing += trial(path, report.family, reads_weights)
    report.next = _next(report, path, is_adapter, is_leftover)
    return report


def versions() -> dict[str, str | None]:
    """Python and the packages that matter, as they are in this environment; None for what is absent."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in PACKAGES:
        found[name] = None
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def has_torch() -> bool:
    return all(importlib.util.find_spec(name) for name in ("torch", "safetensors"))


def _find_parts(report: Report, path: Path, is_adapter: bool) -> None:
    for place, what in PLACES.items():
        suffixes = (".safetensors", ".bin", ".pt", ".pth")
        files = [file for file in (path / place).glob("*") if file.suffix in suffixes and file.is_file()]
        if files:
            has_eyes_in_root = not place and report.family is not None
            if has_eyes_in_root and (path / "vision_encoder").is_dir():
                what = "eyes"
            elif has_eyes_in_root and not (path / "vision").is_dir():
                what = "adapter" if is_adapter else "whole model"
            report.parts.append(Part(what, place, sum(file.stat().st_size for file in files)))


def _find_missing(report: Report, path: Path, is_adapter: bool) -> None:
    if report.family is not None and has_torch():
        family = importlib.import_module(f".{report.family}", __package__)
        if hasattr(family, "missing_parts"):  # it reads more layouts than the two that are looked for below
            report.missing += family.missing_parts(path)
            return
    places = {part.place for part in report.parts}
    for place in ("", "vision"):
        if place not in places and (path / place / "config.json").is_file():
            report.missing.append(f"weights: {str(path / place)!r} has a config.json but no weights. Copy them again.")
    is_bare_adapter = is_adapter and report.family is None  # which goes on a model that has one
    if not (is_bare_adapter or any((path / name).is_file() for name in TOKENIZERS)):
        report.missing.append(f"a tokenizer: none of {list(TOKENIZERS)} is in {str(path)!r}. Copy it from the language model.")
    eyes = path / "vision" if (path / "vision").is_dir() else path
    if report.family is not None and not (eyes / "preprocessor_config.json").is_file():
        report.missing.append(f"'preprocessor_config.json' in {str(eyes)!r}. Copy it from the vision encoder.")
    if (path / "vision" / "config.json").is_file() and (path / "config.json").is_file():
        with contextlib.suppress(ValueError, KeyError, TypeError):
            wanted = read_json(path / "vision" / "config.json")["text_config"]["hidden_size"]
            width = read_json(path / "config.json")["hidden_size"]
            if wanted != width:
                report.missing.append(f"eyes for this language model: theirs has width {wanted}, this one {width}.")


def _look_closer(report: Report, path: Path, is_adapter: bool, device: str | None) -> None:
    """What the headers of the weight files tell."""
    import torch

    from . import memory
    from .weights import tensor_headers

    report.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    report.free_gib = memory.available_bytes(report.device) / GIB
    try:
        for part in report.parts:
            headers = list(tensor_headers(path / part.place).values())
            dtypes = [str(header.dtype).rpartition(".")[2] for header in headers]
            part.num_weights = sum(header.num_elements for header in headers)
            part.dtype = max(set(dtypes), key=dtypes.count) if dtypes else None
        if report.family is not None:
            family = importlib.import_module(f".{report.family}", __package__)
            report.layout = family.detect_layout(path) if hasattr(family, "detect_layout") else None
        if not is_adapter:
            for bits in (32, 16, 8, 4):
                need = memory.memory_need([path], bits, report.device)
                report.memory[bits] = {"needed_gib": need.needed_bytes / GIB, "fits": need.fits}
    except Exception as error:  # likewise
        told = " ".join(str(error).split())[:500]
        if told not in report.missing:
            report.missing.append(told)


def _next(report: Report, path: Path, is_adapter: bool, has_leftover: bool) -> list[str]:
    name = shlex.quote(os.fspath(path))
    if is_adapter:
        named = None
        with contextlib.suppress(ValueError):  # told already, where it is what is missing
            named = read_json(path / "adapter_config.json").get("base_model_name_or_path")
        base = named if isinstance(named, str) and named else "LANGUAGE_MODEL"
        bases = f"--text_model {shlex.quote(base)}" + (" --vision_model VISION_MODEL" if report.family else "")
        merged = shlex.quote(f"{path.resolve().name}-merged")
        return [f"python -m training merge {bases} --lora_model {name} --output_dir {merged}"]
    if not report.parts and report.family is None:
        return ["python -m training merge --help  # makes a model folder"]
    if has_leftover:
        apart = shlex.quote(f"{os.fspath(path).rstrip('/')}-adapter")
        merged = shlex.quote(f"{path.resolve().name}-merged")
        return [
            f"mkdir {apart} && mv {name}/adapter_* {apart}",
            f"python -m training merge --text_model {name} --lora_model {apart} --output_dir {merged}  # if it is not merged yet",
        ]
    if report.missing:
        return [f"python -m pipelines.doctor {name}  # when that is mended"]
    if report.family is None:
        if old := available_pipelines()[len(FAMILIES) :]:
            return [f"load it in the web UI, multimodal_vcla-pipeline set to one of: {', '.join(old)}"]
        return ["python -m training train --help  # gives it eyes"]
    if report.memory and not any(need["fits"] for need in report.memory.values()):
        return ["free memory or take a smaller model: nothing fits"]
    fitting = next((bits for bits, need in report.memory.items() if need["fits"]), None)
    flag = f" {FLAGS[fitting]}" if fitting in (8, 4) else ""
    commands = [f"python -m demo page --model {name}{flag}"]
    if _is_in_a_web_ui(path):
        return [*commands, "load it in the web UI with the Transformers loader"]
    if is_whole(path):
        said = "then pick it in the Model tab, or name it in multimodal_vcla-model; the web UI's own --model comes too early for it"
        return [*commands, f"python install.py webui DIR --model {name}  # {said}"]
    if (path / "vision").is_dir():
        return [*commands, f"python install.py webui DIR --model {name}"]
    return [*commands, f"python -m training convert {name} {shlex.quote(f'{path.resolve().name}-webui')} --layout webui"]


def _is_in_a_web_ui(path: Path) -> bool:
    """Whether a folder, or a link to it, lies where a web UI looks for models."""
    place = Path(os.path.abspath(path)).parent
    return place.name == "models" and (place.parent.name == "user_data" or (place.parent / "server.py").is_file())


def size(num_bytes: float) -> str:
    """For the user."""
    return f"{num_bytes / GIB:.1f} GiB" if num_bytes >= GIB / 10 else f"{num_bytes / 2**20:.1f} MiB"


def main(argv: list[str] | None = None) -> int:
    """Report on folders; returns 0 when all of them can be loaded, 1 when something is missing, 2 after a mistake."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.doctor", description=__doc__.partition(":")[0])
    parser.add_argument("folders", nargs="*", metavar="FOLDER", help="model folders")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="whose memory counts (default: a GPU when there is one)")
    options = parser.parse_args(argv)
    for folder in options.folders:
        if not Path(folder).is_dir():
            print(f"{folder!r} is not a folder. Give the folder of a model.", file=sys.stderr)
            return 2
    reports = [examine(folder, options.device) for folder in options.folders]
    if options.json:
        values = {"versions": versions(), "models": [dataclasses.asdict(report) for report in reports]}
        print(json.dumps(values, indent=1, ensure_ascii=False))
    else:
        for report in reports:
            print("\n".join(report.lines()))
        if reports and not has_torch():
            print("This Python has no PyTorch, so nothing was looked at inside the weight files.")
        print("installed: " + ", ".join(f"{name} {version or '-'}" for name, version in versions().items()))
    return 1 if any(report.missing or not report.is_loaded for report in reports) else 0


if __name__ == "__main__":
    hand_over("pipelines.doctor", is_essential=False)
    sys.exit(main())
