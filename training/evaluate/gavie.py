"""`evaluate judge`: a language model that cannot see scores answers, by dense captions (GAVIE) or by the right answers (examiner).

Source: FuxiaoLiu/LRV-Instruction (BSD-3-Clause), Evaluation/evaluate.py (commit 5101024) and GQA_Evaluation_prompt.txt (commit
7c67d77). What differs from GAVIE's script: the height of a box is its height (the script writes the width twice), every question
has a prompt of its own (there, later questions on a picture replace earlier ones), a reply that is not of the form asked for is an
error and asked again by the next run, and each judgement can be repeated. Of the examiner the verdict is one of two words.
"""

import argparse
import hashlib
import json
import re
import statistics
import sys
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipelines.command_line import Parser

from ..judge import AnswerBook, Client, ServerError, add_server_flags, agreed
from . import report
from .figures import bootstrap, mean
from .results import Answer, Result, by_label
from .tasks.base import Question, Verdict

MAX_REPLY_TOKENS = 512

GAVIE_PROMPT = """Given an image with following information: bounding box, positions that are the object left-top corner \
coordinates(X, Y), object sizes(Width, Height). Highly overlapping bounding boxes may refer to the same object.

bounding box:
{captions}


Here is the instruction for the image:
{question}

{answers}

Suppose you are a smart teacher, after looking at the image information above, please score the above answers(0-10) according to \
the following criteria:
1: whether the response directly follows the instruction.
2: whether the response is accurate concerning the image content.

Output format:

Relevancy:
{scores}

Accuracy:
{scores}
"""
EXAMINER_PROMPT = """You are an examiner who judges whether students' answers match the correct answer.

Question: {question}
Correct Answer: {right}

{answers}

Output format, one line for each answer, with nothing but the word "correct" or "wrong" after the colon:
{verdicts}
"""


class Judge(ABC):
    """What is asked of a judge about one question and the answers of several models."""

    name: str

    @abstractmethod
    def prompt(self, question: Answer, answers: Sequence[str]) -> str: ...

    @abstractmethod
    def read(self, reply: str, count: int) -> list[dict[str, float]]:
        """Criterion -> score (0..10) for each answer.

        Raises:
            ValueError: the reply is not of the form that was asked for.
        """


class ByCaptions(Judge):
    """GAVIE: relevancy and accuracy, 0 to 10, by dense captions with boxes.

    Args:
        captions: image id -> list of {"caption", "bbox": [x, y, width, height]}.
    """

    name = "gavie"

    def __init__(self, captions: Mapping[str, list[Mapping[str, Any]]]):
        self.captions = captions

    def prompt(self, question: Answer, answers: Sequence[str]) -> str:
        lines = []
        for caption in self.captions[question.labels["image"]]:
            x, y, width, height = caption["bbox"]
            lines.append(f"{caption['caption']} X:{x} Y:{y} Width:{width} Height:{height}")
        scores = "\n".join(f"score of the answer{number}:\nreason:" for number in range(1, len(answers) + 1))
        given = "\n".join(f"Answer{number}: {answer}" for number, answer in enumerate(answers, start=1))
        return GAVIE_PROMPT.format(captions="\n".join(lines), question=question.question, answers=given, scores=scores)

    def read(self, reply: str, count: int) -> list[dict[str, float]]:
        parts = re.split(r"^\W*(relevancy|accuracy)\W*$", reply, flags=re.IGNORECASE | re.MULTILINE)
        found: dict[str, list[float]] = {}
        for criterion, text in zip(parts[1::2], parts[2::2], strict=True):
            scores = re.findall(r"score of the answer\s*(\d+)\s*\W*?\s*(\d+(?:\.\d+)?)(?!\s*:)", text, flags=re.IGNORECASE)
            numbers = [int(number) for number, _ in scores]
            values = [float(value) for _, value in scores]
            if numbers != list(range(1, count + 1)) or not all(0 <= value <= 10 for value in values):
                raise ValueError(f"no scores from 0 to 10 for {count} answers under {criterion!r}")
            found[criterion.lower()] = values
        if set(found) != {"relevancy", "accuracy"}:
            raise ValueError("no sections 'Relevancy:' and 'Accuracy:'")
        return [{criterion: values[number] for criterion, values in found.items()} for number in range(count)]


class Examiner(Judge):
    """Is an answer right, by the right answer: 10 or 0."""

    name = "examiner"

    def prompt(self, question: Answer, answers: Sequence[str]) -> str:
        given = "\n".join(f"Student Answer{number}: {answer}" for number, answer in enumerate(answers, start=1))
        verdicts = "\n".join(f"Student Answer{number}:" for number in range(1, len(answers) + 1))
        right = " | ".join(dict.fromkeys(question.right))
        return EXAMINER_PROMPT.format(question=question.question, right=right, answers=given, verdicts=verdicts)

    def read(self, reply: str, count: int) -> list[dict[str, float]]:
        found = re.findall(r"^\W*student answer\s*(\d+)\W+(correct|wrong)\b", reply, flags=re.IGNORECASE | re.MULTILINE)
        if [int(number) for number, _ in found] != list(range(1, count + 1)):
            raise ValueError(f"no 'correct' or 'wrong' for {count} answers")
        return [{"accuracy": 10.0 if word.lower() == "correct" else 0.0} for _, word in found]


def main(argv: list[str]) -> int:
    """Run the command; 0 when everything was judged, 1 when some replies were of no use, 2 for a mistake of the user's."""
    args = _parser().parse_args(argv)
    results = report.find_results(args.folders)
    task = args.task or ("gavie" if args.annotations else None)
    results = [each for each in results if task is None or each.task == task]
    groups = {(each.task, each.data) for each in results}
    if len(groups) != 1:
        raise ValueError(
            f"Results of {len(groups)} sets of questions ({', '.join(sorted(name for name, _ in groups))}). Say which: --task NAME"
        )
    judge = _judge(args, results[0])
    client = Client.of(args.server, args.server_model, args.api_key_env)
    args.output_dir.mkdir(parents=True, exist_ok=True)
    book = AnswerBook(args.output_dir / "judgements.jsonl")
    asked = _prompts(judge, results, client.model, args.repeats)
    left = {key: prompt for key, (prompt, _, _) in asked.items() if book.get(key) is None}
    if left and not agreed(client, left.values(), len(left) * MAX_REPLY_TOKENS, args.price, args.yes):
        return 0
    num_failed = _ask(client, judge, left, asked, book, len(results))
    judged = _judged(judge, results, asked, book, client.model, args.repeats)
    for each in judged:
        each.save(args.output_dir)
        print(f"{each.model}: " + "; ".join(f"{name} {figure}" for name, figure in each.figures.items()))
    print(report.write(report.find_results([args.output_dir]), args.output_dir), file=sys.stderr)
    if num_failed:
        print(f"{num_failed} replies were not of the form asked for; the same command asks those again.", file=sys.stderr)
    return 1 if num_failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser("python -m training evaluate judge", description=__doc__.split("\n\n")[0].split(": ", 1)[1])
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER", help="results of one task by one or more models")
    parser.add_argument("--task", help="which task's results, where the folders hold several")
    parser.add_argument(
        "--annotations", type=Path, metavar="FILE", help="GAVIE's vg_annotation.json; without it right answers decide"
    )
    add_server_flags(parser, "judge")
    parser.add_argument("--repeats", type=int, default=1, help="judgements of each answer; their spread is told (default: 1)")
    parser.add_argument("--output_dir", type=Path, required=True, metavar="FOLDER", help="judgements, results and the page")
    return parser


def _judge(args: argparse.Namespace, result: Result) -> Judge:
    if args.repeats < 1:
        raise ValueError(f"--repeats is {args.repeats}, but an answer is judged at least once.")
    if args.annotations is None:
        if lacking := [answer.id for answer in result.answers if not answer.right]:
            raise ValueError(
                f"{len(lacking)} questions have no right answer, so an examiner cannot judge. GAVIE: --annotations FILE"
            )
        return Examiner()
    try:
        captions = json.loads(args.annotations.read_text(encoding="utf-8-sig"))
        for image in {answer.labels["image"] for answer in result.answers}:
            for caption in captions[image]:
                if len(caption["bbox"]) != 4 or not isinstance(caption["caption"], str):
                    raise ValueError(f"of {image}: {caption}")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{str(args.annotations)!r} is no dense captions of these pictures ({type(error).__name__} {error}): it maps each "
            'image_id to a list of {"caption", "bbox": [x, y, width, height]}.'
        ) from error
    return ByCaptions(captions)


def _prompts(judge: Judge, results: Sequence[Result], model: str, repeats: int) -> dict[str, tuple[str, str, int]]:
    """Key -> (prompt, question's id, repeat). All models' answers to a question stand in one prompt."""
    by_id = [{answer.id: answer for answer in each.answers} for each in results]
    prompts = {}
    for question in results[0].answers:
        if lacking := [each.model for each, of in zip(results, by_id, strict=True) if question.id not in of]:
            raise ValueError(
                f"Question {question.id!r} was not asked of {', '.join(lacking)}. Evaluate all models on the same file."
            )
        prompt = judge.prompt(question, [of[question.id].answer for of in by_id])
        for repeat in range(repeats):
            key = hashlib.sha256(json.dumps([judge.name, model, prompt, repeat]).encode()).hexdigest()
            prompts[key] = (prompt, question.id, repeat)
    return prompts


def _ask(
    client: Client, judge: Judge, left: Mapping[str, str], asked: Mapping[str, tuple], book: AnswerBook, count: int
) -> int:
    """Fill the book; returns how many replies were of no use.

    Raises:
        ServerError: not one reply came.
    """
    from tqdm import tqdm

    errors: list[Exception] = []
    with tqdm(total=len(asked), initial=len(asked) - len(left), unit="judgement", disable=None) as bar:

        def done(key: str, reply: "str | ServerError") -> None:
            bar.update()
            try:
                if isinstance(reply, ServerError):
                    raise reply
                judge.read(reply, count)
                book.put({key: reply})
            except ValueError as error:
                errors.append(error)

        requests = (
            (key, {"messages": [{"role": "user", "content": prompt}], "max_tokens": MAX_REPLY_TOKENS, "seed": asked[key][2]})
            for key, prompt in left.items()
        )
        client.ask_all(requests, done)
    if errors and len(errors) == len(asked):
        raise errors[0]
    return len(errors)


def _judged(
    judge: Judge, results: Sequence[Result], asked: Mapping[str, tuple], book: AnswerBook, model: str, repeats: int
) -> list[Result]:
    """The results with the judge's scores."""
    scores: dict[str, list[list[dict[str, float]]]] = defaultdict(list)
    for key, (_, question, _) in asked.items():
        if (reply := book.get(key)) is not None:
            scores[question].append(judge.read(reply, len(results)))
    judged = []
    for place, each in enumerate(results):
        of = {question: [repeat[place] for repeat in found] for question, found in scores.items()}
        answers = [_scored(answer, of.get(answer.id)) for answer in each.answers]
        figures = {}
        for criterion in dict.fromkeys(name for found in of.values() for repeat in found for name in repeat):
            means = [statistics.fmean(repeat[criterion] for repeat in found) for found in of.values()]
            if judge.name == "examiner":
                figures[criterion] = mean([value / 10 for value in means])
                continue
            figures[f"{criterion} (of 10)"] = bootstrap(means, statistics.fmean, "points")
        spread = [
            max(r["accuracy"] for r in found) - min(r["accuracy"] for r in found) for found in of.values() if len(found) > 1
        ]
        settings = {
            **each.settings,
            "judge": model,
            "judge_prompt": judge.name,
            "judge_prompt_sha256": hashlib.sha256((GAVIE_PROMPT + EXAMINER_PROMPT).encode()).hexdigest(),
            "repeats": repeats,
            "mean_spread_of_accuracy": statistics.fmean(spread) if spread else None,
        }
        questions = [Question(a.id, [{"role": "user", "content": a.question}], [], labels=a.labels) for a in answers]
        verdicts = [Verdict(answer.score, answer.said) for answer in answers]
        shown = {"task": f"{each.task}.{judge.name}", "title": f"{each.title}, judged by {model}", "settings": settings}
        scored = {
            "figures": figures,
            "by": by_label(questions, verdicts),
            "yes_no": {},
            "hallucination": {},
            "answers": answers,
        }
        judged.append(replace(each, **shown, **scored))
    return judged


def _scored(answer: Answer, found: list[dict[str, float]] | None) -> Answer:
    if not found:
        return replace(answer, score=None, said="")
    means = {name: statistics.fmean(repeat[name] for repeat in found) for name in found[0]}
    said = ", ".join(f"{name} {value:g}" for name, value in means.items())
    return replace(answer, score=means["accuracy"] / 10, said=said)
