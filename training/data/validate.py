"""`python -m training data validate FILE`: everything that training would trip over, named with its place."""

import argparse
import sys
from pathlib import Path

from .survey import DATA, open_data, survey

SHOWN = 50


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help=DATA)
    parser.add_argument("--model", help="a model folder: rows are templated and tokenised as its processor does")
    parser.add_argument("--max_length", type=int, help="tokens of a row; by default the model's context")
    parser.add_argument("--no_pictures", action="store_true", help="look whether pictures are there, do not open them")
    parser.add_argument("--all", action="store_true", help=f"list every mistake, not the first {SHOWN}")


def run(arguments: argparse.Namespace) -> int:
    """Print what was found; status 1 where a row is wrong or would be left out.

    Raises:
        FileNotFoundError, ValueError: the data or the model cannot be opened.
    """
    processor = None
    if arguments.model:
        from .processor import load_processor

        processor = load_processor(arguments.model)
    found = survey(open_data(arguments.file), processor, arguments.max_length, not arguments.no_pictures)
    lists = (
        ("wrong", found.mistakes, sys.stderr),
        ("repeated", found.repeated, sys.stdout),
        ("shortened", found.shortened, sys.stdout),
    )
    for title, lines, stream in lists:
        shown = lines if arguments.all else lines[:SHOWN]
        for line in shown:
            print(line, file=stream)
        if len(lines) > len(shown):
            print(f"... and {len(lines) - len(shown)} more {title}; --all lists them", file=stream)
    for reason, count in found.skipped.most_common():
        print(f"{count} records give no row: {reason}")
    opened = "" if arguments.no_pictures and processor is None else f", {found.pictures_opened} pictures opened"
    if not found.rows and not found.mistakes:
        print(f"training: {str(arguments.file)!r} holds no rows.", file=sys.stderr)
    print(f"{found.rows} good rows with {sum(found.pictures)} pictures{opened}; {len(found.mistakes)} wrong or too long")
    if found.repeated:
        print(f"{len(found.repeated)} rows repeat an earlier one or its id")
    if found.lengths:
        lengths = sorted(length for length, _ in found.lengths)
        middle, most = lengths[len(lengths) // 2], lengths[-1]
        taught = sum(taught for _, taught in found.lengths)
        print(f"{sum(lengths)} tokens, {taught} of them supervised; a row has {lengths[0]} to {most}, the middle one {middle}")
        if found.shortened:
            print(f"{len(found.shortened)} rows are longer than the context and lose their end")
    return 1 if found.mistakes or not found.rows else 0
