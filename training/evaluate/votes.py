"""`evaluate votes`: a page on which people say which answer is best, not knowing whose it is. OwlEval was rated so, by hand.

The page is one file. Which answer is whose is not in it: sides are shuffled by the seed, and only `votes.key.json`, which stays with
whoever made the page, says what stood where.
"""

import json
import os
import random
from pathlib import Path

from pipelines.command_line import Parser

from . import report

PAGE = Path(__file__).with_name("votes.html")


def main(argv: list[str]) -> int:
    """Write the page and its key."""
    parser = Parser("python -m training evaluate votes", description=__doc__.split("\n\n")[0].split(": ", 1)[1])
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER", help="results of one task by two or more models")
    parser.add_argument("--task", help="which task's results, where the folders hold several")
    parser.add_argument("--seed", type=int, default=1, help="how sides are shuffled (default: %(default)s)")
    parser.add_argument("--output_dir", type=Path, required=True, metavar="FOLDER", help="gets votes.html and votes.key.json")
    args = parser.parse_args(argv)
    results = [each for each in report.find_results(args.folders) if args.task in (None, each.task)]
    groups = sorted({(each.task, each.data) for each in results})
    if len(groups) != 1:
        raise ValueError(
            f"Results of {len(groups)} sets of questions ({', '.join(name for name, _ in groups)}). Say which: --task NAME"
        )
    if len(results) < 2:
        raise ValueError("There is one model's result only; people choose between the answers of at least two.")
    args.output_dir.mkdir(parents=True, exist_ok=True)
    key, page = make(results, args.seed)
    for name, text in (("votes.key.json", json.dumps(key, indent=1)), ("votes.html", page)):
        partial = args.output_dir / f".{name}.partial"
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, args.output_dir / name)
    print(args.output_dir / "votes.html")
    return 0


def make(results: list[report.Result], seed: int) -> tuple[dict, str]:
    """(key, page).

    Raises:
        ValueError: a question was not asked of all models.
    """
    by_id = {each.model: {answer.id: answer for answer in each.answers} for each in results}
    orders, questions, thumbnails = {}, [], {}
    for question in results[0].answers:
        if lacking := [model for model, of in by_id.items() if question.id not in of]:
            raise ValueError(
                f"Question {question.id!r} was not asked of {', '.join(lacking)}. Evaluate all models on the same file."
            )
        models = sorted(by_id)
        random.Random(f"{seed}/{question.id}").shuffle(models)
        orders[question.id] = models
        thumbnails |= {image: report.thumbnail(image) for image in question.images if image not in thumbnails}
        questions.append(
            {
                "id": question.id,
                "question": question.question,
                "pictures": [thumbnails[image] for image in question.images],
                "answers": [by_id[model][question.id].answer for model in models],
            }
        )
    name = f"{results[0].task}/{results[0].data}/{seed}"
    page = report.page(PAGE, {"name": name, "title": results[0].title, "questions": questions})
    labels = {question.id: question.labels for question in results[0].answers}
    return {"name": name, "orders": orders, "labels": labels}, page
