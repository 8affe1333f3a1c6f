"""`evaluate tally`: what people voted, by model; a tie gives each side half a win."""

import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from pipelines.command_line import Parser

from .figures import Figure, mean

TIE = "tie"


def main(argv: list[str]) -> int:
    """Print the share of wins of each model, and by label."""
    parser = Parser("python -m training evaluate tally", description=__doc__.split(": ", 1)[1])
    parser.add_argument("votes", type=Path, nargs="+", metavar="VOTES", help="files that the page saved, one per person")
    parser.add_argument("--key", type=Path, required=True, metavar="FILE", help="votes.key.json")
    parser.add_argument("--json", action="store_true", help="everything as JSON")
    args = parser.parse_args(argv)
    key = _json(args.key)
    votes = [(file, _json(file)) for file in args.votes]
    for file, found in votes:
        if not isinstance(found, dict) or not isinstance(found.get("votes"), dict) or found.get("name") != key.get("name"):
            raise ValueError(f"{str(file)!r} holds no votes on {key.get('name')!r}.")
    tallied = tally(key, [found["votes"] for _, found in votes])
    if args.json:
        plain = {group: {model: vars(figure) for model, figure in of.items()} for group, of in tallied.items()}
        print(json.dumps(plain, ensure_ascii=False, indent=1))
        return 0
    print(f"{sum(len(found['votes']) for _, found in votes)} votes of {len(votes)} people")
    for group, of in tallied.items():
        print(group)
        width = max(map(len, of))
        for model, figure in sorted(of.items(), key=lambda entry: -entry[1].value):
            print(f"  {model:{width}}  {figure}")
    return 0


def tally(key: dict, votes: Iterable[dict]) -> dict[str, dict[str, Figure]]:
    """Group ("all", "ability: OCR") -> model -> share of the votes in which its answer was best.

    Raises:
        ValueError: a vote is for a question or a side that the page does not have.
    """
    wins: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for person in votes:
        for question, side in person.items():
            models = key["orders"].get(question)
            is_side = isinstance(side, int) and not isinstance(side, bool) and models is not None and 0 <= side < len(models)
            if models is None or not (side == TIE or is_side):
                raise ValueError(f"A vote {side!r} on question {question!r}, which the page does not have.")
            labels = key.get("labels", {}).get(question, {})
            groups = ["all", *(f"{label}: {value}" for label, values in labels.items() for value in values.split(","))]
            for number, model in enumerate(models):
                for group in groups:
                    wins[group][model].append(1 / len(models) if side == TIE else float(number == side))
    return {group: {model: mean(found) for model, found in of.items()} for group, of in sorted(wins.items())}


def _json(file: Path):
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{str(file)!r} is no JSON ({error}).") from error
