"""`python -m demo rows`: the held-out exam of the tiny world as rows with their pictures, for `python -m training evaluate rows`."""

import json
import os
import sys
from itertools import islice
from pathlib import Path

from . import world
from .cli import Parser, one_line


def main(argv: list[str] | None = None) -> int:
    """Run the command; 2 for a mistake of the user's."""
    parser = Parser("python -m demo rows", description=__doc__.split(": ", 1)[1])
    parser.add_argument("folder", type=Path, help="gets rows.jsonl and the pictures; has to be new or empty")
    parser.add_argument(
        "--samples", type=int, default=640, help="rows, every kind in both languages equally often (%(default)s)"
    )
    parser.add_argument("--language", choices=world.LANGUAGES, help="rows of this language only (both)")
    parser.add_argument("--seed", type=int, default=1, help="which rows (default: %(default)s)")
    args = parser.parse_args(argv)
    if args.samples < 1:
        parser.error("--samples must be at least 1")
    try:
        if args.folder.exists() and any(args.folder.iterdir()):
            raise ValueError(f"{str(args.folder)!r} is not empty. Give a new folder.")
        num_pictures = write(args.folder, args.samples, args.seed, args.language)
    except (ValueError, OSError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    print(f"{args.samples} rows and {num_pictures} pictures in {args.folder}", file=sys.stderr)
    return 0


def write(folder: Path, num_samples: int, seed: int, language: str | None = None) -> int:
    """Write the rows, those of one language only if it is given; returns the number of pictures."""
    languages = (language,) if language else world.LANGUAGES
    every = world.exam(num_samples * len(world.LANGUAGES), seed)
    rows = islice((row for row in every if row["language"] in languages), num_samples)
    pictures = folder / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    partial, num_pictures = folder / ".rows.jsonl.partial", 0
    with partial.open("w", encoding="utf-8") as file:
        for row in rows:
            names = []
            for image in row["images"]:
                names.append(f"pictures/{num_pictures:05}.png")
                image.save(folder / names[-1])
                num_pictures += 1
            meta = {"kind": row["kind"], "language": row["language"]}
            file.write(json.dumps({"messages": row["messages"], "images": names, "meta": meta}, ensure_ascii=False) + "\n")
    os.replace(partial, folder / "rows.jsonl")
    return num_pictures


if __name__ == "__main__":
    sys.exit(main())
