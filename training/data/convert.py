"""`python -m training data convert NAME`: records of a published format to a file of rows."""

import argparse
import base64
import contextlib
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from .formats import FORMATS, Skipped
from .rows import Picture, Row, RowError
from .sets import DataSet, make_format, open_set, portable_path, read_configuration
from .survey import bad_picture

SHOWN = 20
"""Mistakes that are listed; the others are counted."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    width = max(map(len, FORMATS))
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "formats:\n" + "\n".join(f"  {name:{width}}  {format.help}" for name, format in FORMATS.items())
    parser.add_argument("name", help="a format (listed below), or with --config a set of that file")
    parser.add_argument("--file", type=Path, help="the published file")
    parser.add_argument("--images", type=Path, help="the folder that its picture names start from; by default the file's")
    parser.add_argument("--split", help="only this split, where the format has splits: train, val, test")
    parser.add_argument("--config", type=Path, help="YAML file that names sets, their formats and paths")
    parser.add_argument("--seed", type=int, default=0, help="draws questions and captions")
    parser.add_argument("--output", type=Path, required=True, help="the .jsonl file of rows")
    parser.add_argument("--leave_out_bad", action="store_true", help="write the good rows although others are wrong")


def run(arguments: argparse.Namespace) -> int:
    """Convert; status 1 where rows are wrong, and then nothing is written unless `leave_out_bad`.

    Raises:
        FileNotFoundError, ValueError: something cannot be read.
    """
    output = arguments.output
    if output.suffix.lower() != ".jsonl":
        raise ValueError(f"--output is {str(output)!r}; rows are written to a .jsonl file.")
    data = _open(arguments)
    skipped: Counter[str] = Counter()
    mistakes: list[str] = []
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_name(f".{output.name}.partial")
    written = 0
    try:
        with partial.open("w", encoding="utf-8", newline="\n") as file:
            for row in rows_of(data, arguments.seed, skipped, mistakes):
                file.write(json.dumps(_portable(row, output), ensure_ascii=False) + "\n")
                written += 1
        for mistake in mistakes[:SHOWN]:
            print(mistake, file=sys.stderr)
        if len(mistakes) > SHOWN:
            print(f"... and {len(mistakes) - SHOWN} more", file=sys.stderr)
        for note in data.records.notes:
            print(f"note: {note}")
        for reason, count in skipped.most_common():
            print(f"{count} records give no row: {reason}")
        if (mistakes and not arguments.leave_out_bad) or not written:
            why = f"{len(mistakes)} of {len(data)} records are wrong" if mistakes else "no record gives a row"
            way = " Correct them, or give --leave_out_bad." if mistakes and written else ""
            print(f"training: {why}; {str(output)!r} was not written.{way}", file=sys.stderr)
            return 1
        os.replace(partial, output)
    finally:
        with contextlib.suppress(FileNotFoundError):
            partial.unlink()
    left_out = f", {len(mistakes)} wrong records left out" if mistakes else ""
    print(f"{written} rows in {output}{left_out}. Look at them: python -m training data preview {output} --model FOLDER")
    return 0


def rows_of(data: DataSet, seed: int, skipped: Counter, mistakes: list[str], epoch: int = 0) -> Iterator[Row]:
    """Every good row; what gives none is counted, what is wrong listed with its place."""
    opened: dict = {}
    for index in range(len(data)):
        try:
            row = data.row(index, seed, epoch)
            if data.format is not None and data.format.opens_pictures and (reason := bad_picture(row, opened)):
                mistakes.append(f"{data.place(index)}: {reason}")
            else:
                yield row
        except Skipped as reason:
            skipped[str(reason)] += 1
        except (RowError, FileNotFoundError) as error:
            mistakes.append(str(error))


def _open(arguments: argparse.Namespace) -> DataSet:
    if arguments.config is not None:
        sets = read_configuration(arguments.config, ("seed", "held_out"))["sets"]
        if arguments.name not in sets:
            raise ValueError(f"{str(arguments.config)!r} has no set {arguments.name!r}; it has {', '.join(sets)}.")
        return open_set(arguments.config, arguments.name, sets[arguments.name])
    if arguments.file is None:
        make_format(arguments.name, Path())
        raise ValueError("--file is missing: the published file. Or name sets in a file: --config data.yaml")
    return DataSet.open(arguments.file, arguments.name, arguments.images, arguments.split)


def _portable(row: Row, output: Path) -> Row:
    """A row as it stands in a file: pictures as paths that start at the file, or whole where they have none."""
    images = [_portable_picture(image, output) for image in row["images"]]
    return {**{key: value for key, value in row.items() if key != "place"}, "images": images}


def _portable_picture(image: Picture, output: Path) -> str:
    if isinstance(image, bytes):
        return "data:;base64," + base64.b64encode(image).decode()
    return portable_path(image, output) if isinstance(image, Path) else image
