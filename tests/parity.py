"""`python tests/parity.py FOLDER... [--json]`: what an original recorded of a checkpoint, against what this project computes.

A folder is of the form of `tests/golden/<family>`: a tiny checkpoint in a published format, pictures, and what the original's code
gave for them. Which family it is of is told by what lies in it. How a family's recordings are laid out is in
`tests/families/parity_<family>.py`, which has

    recognises(folder: Path) -> bool
    compare(folder: Path, record: Record) -> None

Exit status: 0 all within the tolerances, 1 something differs, 2 a folder is of no known form.
"""

import argparse
import importlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    ROOT = Path(__file__).resolve().parent.parent
    sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "families")]
else:
    sys.path.append(str(Path(__file__).resolve().parent / "families"))

import numpy as np

STAGE, LOGITS = 5e-5, 3e-4
"""Tolerances (absolute): image features and all before them; logits."""


@dataclass(frozen=True)
class Comparison:
    """One recorded value against ours.

    Attributes:
        case: which recorded case.
        stage: what was compared.
        difference: largest absolute difference; infinite when shapes differ; None where only equality counts (ids, texts).
        tolerance: what it may be.
        is_right: within the tolerance, or equal.
        detail: both sides, where they are not equal.
    """

    case: str
    stage: str
    difference: float | None
    tolerance: float | None
    is_right: bool
    detail: str = ""


@dataclass
class Record:
    """Takes down comparisons.

    Attributes:
        family: whose recordings these are.
        comparisons: all of them, in order.
    """

    family: str
    comparisons: list[Comparison] = field(default_factory=list)

    def close(self, case: str, stage: str, ours: Any, theirs: Any, tolerance: float = STAGE) -> None:
        """Numbers that must agree within an absolute tolerance; 0 for bit equality."""
        ours, theirs = (
            np.asarray(getattr(value, "detach", lambda value=value: value)(), np.float64) for value in (ours, theirs)
        )
        if ours.shape != theirs.shape:
            difference, detail = float("inf"), f"shape {ours.shape}, recorded {theirs.shape}"
        else:
            difference, detail = float(np.abs(ours - theirs).max(initial=0.0)), ""
        self.comparisons.append(Comparison(case, stage, difference, tolerance, difference <= tolerance, detail))

    def equal(self, case: str, stage: str, ours: Any, theirs: Any) -> None:
        """Ids, texts and the like, which must be the same."""
        ours, theirs = (np.asarray(value).tolist() if hasattr(value, "__array__") else value for value in (ours, theirs))
        detail = "" if ours == theirs else f"{ours!r}, recorded {theirs!r}"
        self.comparisons.append(Comparison(case, stage, None, None, ours == theirs, detail))

    @property
    def wrong(self) -> list[Comparison]:
        return [each for each in self.comparisons if not each.is_right]

    def __str__(self) -> str:
        lines = [f"{self.family}: {len(self.comparisons)} comparisons, {len(self.wrong)} wrong"]
        stages = list(dict.fromkeys(each.stage for each in self.comparisons))
        for stage in stages:
            of_stage = [each for each in self.comparisons if each.stage == stage]
            right = sum(each.is_right for each in of_stage)
            differences = [each.difference for each in of_stage if each.difference is not None]
            largest = (
                f"largest difference {max(differences):.2g}, allowed {of_stage[0].tolerance:.2g}" if differences else "equal"
            )
            lines.append(
                f"  {stage:32} {right:3} of {len(of_stage):3} right   {largest if differences or right else 'not equal'}"
            )
        lines += [f"  WRONG {each.case} {each.stage}: {each.detail[:400] or each.difference}" for each in self.wrong]
        return "\n".join(lines)


def families() -> list[str]:
    return sorted(path.stem.removeprefix("parity_") for path in (Path(__file__).parent / "families").glob("parity_*.py"))


def compare(folder: Path) -> Record:
    """Compare everything that is recorded in a folder.

    Raises:
        ValueError: it is of no known form.
    """
    for family in families():
        module = importlib.import_module(f"parity_{family}")
        if module.recognises(folder):
            record = Record(family)
            module.compare(folder, record)
            if not record.comparisons:
                raise ValueError(f"{str(folder)!r} looks like {family}, but holds no recorded case.")
            return record
    raise ValueError(
        f"{str(folder)!r} is of no known form ({', '.join(families())}): see tests/golden/*/README.md for what each holds."
    )


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python tests/parity.py", description=__doc__.splitlines()[0].split(": ", 1)[1])
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="of the form of tests/golden/<family>")
    parser.add_argument("--json", action="store_true", help="every comparison, as JSON")
    options = parser.parse_args(argv)
    try:
        records = {str(folder): compare(folder) for folder in options.folders}
    except (OSError, ValueError) as error:
        print(f"parity: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    if options.json:
        told = {
            folder: {"family": record.family, "comparisons": [asdict(each) for each in record.comparisons]}
            for folder, record in records.items()
        }
        print(json.dumps(told, indent=2, ensure_ascii=False))
    else:
        print("\n".join(f"{folder}\n{record}" for folder, record in records.items()))
    return 1 if any(record.wrong for record in records.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
