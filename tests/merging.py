"""What the tests of merge and convert share: running the verbs, and reading what they wrote."""

import hashlib
import shutil
from pathlib import Path

import torch
from conftest import GOLDEN

from pipelines.weights import load_tensors
from training import convert, merge

TEXT, VISION = GOLDEN / "base/text_model", GOLDEN / "base/vision_model"
RELEASE, MERGED = GOLDEN / "release/visualcla-tiny", GOLDEN / "merged/visualcla-tiny-merged"


def run_merge(output: Path, *flags, text=TEXT, vision=VISION, lora=(RELEASE,)) -> int:
    """`python -m training merge`; returns the exit status."""
    arguments = ["--text_model", text, "--lora_model", ",".join(map(str, lora)), "--output_dir", output, *flags]
    if vision is not None:
        arguments += ["--vision_model", vision]
    return merge.main([str(argument) for argument in arguments])


def run_convert(source: Path, output: Path, layout: str, *flags) -> int:
    """`python -m training convert`; returns the exit status."""
    return convert.main([str(argument) for argument in (source, output, "--layout", layout, *flags)])


def error_of(capsys) -> str:
    """The one line that a failing verb wrote to stderr, behind the progress bar."""
    lines = [line for line in capsys.readouterr().err.replace("\r", "\n").splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


def composite_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a whole model of any layout under the composite's names, without what is computed."""
    if (folder / "text_encoder").is_dir():
        parts = load_tensors(folder) | load_tensors(folder / "vision_encoder")
        parts |= {f"text_model.{name}": tensor for name, tensor in load_tensors(folder / "text_encoder").items()}
    elif (folder / "vision").is_dir():
        parts = load_tensors(folder / "vision")
        parts |= {f"text_model.{name}": tensor for name, tensor in load_tensors(folder).items()}
    else:
        parts = load_tensors(folder)
    return {name: tensor for name, tensor in parts.items() if not name.endswith(("rotary_emb.inv_freq", "position_ids"))}


def assert_same_tensors(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name], tensor), name


def contents(folder: Path) -> dict[str, str]:
    """Path to hash of everything in a folder."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def copy(source: Path, target: Path) -> Path:
    return Path(shutil.copytree(source, target))
