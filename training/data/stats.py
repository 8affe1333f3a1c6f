"""`python -m training data stats FILE --model FOLDER`: tokens, turns, pictures and padding, in numbers and as plots."""

import argparse
import json
import random
from collections.abc import Sequence
from pathlib import Path

from .survey import DATA, Survey, open_data, survey


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help=DATA)
    parser.add_argument("--model", required=True, help="a model folder, for its processor")
    parser.add_argument("--batch_size", type=int, default=8, help="rows of a batch, for the padding")
    parser.add_argument("--max_length", type=int, help="tokens of a row; by default the model's context")
    parser.add_argument("--plot", type=Path, help="write the plots to this file (.png, .svg, .pdf)")
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print the numbers; status 1 where there are no good rows.

    Raises:
        FileNotFoundError, ValueError: the data or the model cannot be opened.
    """
    from .processor import load_processor

    if arguments.batch_size < 1:
        raise ValueError(f"--batch_size is {arguments.batch_size}; it is at least 1.")
    found = survey(open_data(arguments.file), load_processor(arguments.model), arguments.max_length)
    if not found.rows:
        raise ValueError(
            f"{str(arguments.file)!r} has no good rows. See why: python -m training data validate {arguments.file}"
        )
    numbers = summary(found, arguments.batch_size)
    if arguments.json:
        print(json.dumps(numbers))
    else:
        for key, value in numbers.items():
            print(f"{key.replace('_', ' '):24} {_shown(value)}")
    if arguments.plot:
        draw(found, arguments.batch_size, arguments.plot)
        print(f"plots in {arguments.plot}")
    return 0


def summary(found: Survey, batch_size: int) -> dict:
    """The numbers of a survey that was made with a processor."""
    lengths = [length for length, _ in found.lengths]
    taught = sum(taught for _, taught in found.lengths)
    return {
        "rows": found.rows,
        "wrong_or_too_long": len(found.mistakes),
        "shortened": len(found.shortened),
        "pictures": sum(found.pictures),
        "tokens": sum(lengths),
        "supervised_tokens": taught,
        "tokens_of_a_row": quantiles(lengths),
        "turns_of_a_row": quantiles(found.turns),
        "pictures_of_a_row": quantiles(found.pictures),
        "padding_share": round(padding_share(lengths, batch_size), 4),
        "padding_share_by_length": round(padding_share(sorted(lengths), batch_size), 4),
    }


def quantiles(values: Sequence[int]) -> dict[str, int]:
    """Least, middle, 95 % and most."""
    ordered = sorted(values)
    last = len(ordered) - 1
    return {"min": ordered[0], "median": ordered[last // 2], "p95": ordered[round(last * 0.95)], "max": ordered[-1]}


def padding_share(lengths: Sequence[int], batch_size: int) -> float:
    """Share of the tokens of padded batches that are padding, batches in the given order."""
    batches = [lengths[at : at + batch_size] for at in range(0, len(lengths), batch_size)]
    whole = sum(max(batch) * len(batch) for batch in batches)
    return 1 - sum(lengths) / whole


def draw(found: Survey, batch_size: int, path: Path) -> None:
    """Four histograms: tokens, supervised tokens, turns, pictures of a row; padding in the title."""
    from matplotlib.figure import Figure

    lengths = [length for length, _ in found.lengths]
    random.Random(0).shuffle(lengths)
    figure = Figure(figsize=(9, 6), layout="tight")
    share = padding_share(lengths, batch_size)
    figure.suptitle(f"{found.rows} rows; {share:.1%} of shuffled batches of {batch_size} is padding")
    values = {
        "tokens of a row": lengths,
        "supervised tokens of a row": [taught for _, taught in found.lengths],
        "turns of a row": found.turns,
        "pictures of a row": found.pictures,
    }
    for axes, (label, numbers) in zip(figure.subplots(2, 2).flat, values.items(), strict=True):
        width = max(1, (max(numbers) - min(numbers)) // 40)
        axes.hist(numbers, bins=[edge - 0.5 for edge in range(min(numbers), max(numbers) + 2 * width, width)], color="#4878a8")
        axes.set(xlabel=label, ylabel="rows")
    figure.savefig(path, dpi=120)


def _shown(value) -> str:
    return ", ".join(f"{key} {number}" for key, number in value.items()) if isinstance(value, dict) else str(value)
