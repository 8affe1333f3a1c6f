"""POPE: is a thing in the picture or not; random, popular and adversarial things."""

from pathlib import Path

from ..figures import Figure, bootstrap, mean, share
from .base import NO, YES, ImageFolder, Question, Task, Verdict, ask, records_of, text_of

KINDS = ("random", "popular", "adversarial")


class Pope(Task):
    """Files `coco_pope_<kind>.json`, JSON lines of {"question_id", "image", "text", "label": "yes" | "no"}.

    Source: AoiDragon/POPE, evaluate.py (commit f3ec604): of an answer only the first sentence counts, and it says no where one of
    its words is "No", "no" or "not", else yes.
    """

    name = "pope"
    title = "POPE"
    about = "POPE, things that are not there: a file coco_pope_<kind>.json, or a folder of them"
    source = "AoiDragon/POPE, evaluate.py, commit f3ec604"
    files = ("*pope*.json", "*pope*.jsonl")
    max_new_tokens = 16

    def read(self, path: Path, images: ImageFolder) -> list[Question]:
        files = [path] if path.is_file() else sorted(file for pattern in self.files for file in path.glob(pattern))
        if not files:
            raise FileNotFoundError(f"{str(path)!r} holds no coco_pope_<kind>.json.")
        questions = []
        for file in files:
            kind = next((kind for kind in KINDS if kind in file.stem), file.stem)
            for place, record in records_of(file):
                label = text_of(record, place, "label").lower()
                if label not in (YES, NO):
                    raise ValueError(f"{place}: the label is {label!r}, but has to be 'yes' or 'no'.")
                questions.append(
                    Question(
                        f"{kind}-{text_of(record, place, 'question_id')}",
                        ask(text_of(record, place, "text", "question")),
                        [images.find(text_of(record, place, "image"))],
                        right=(label,),
                        labels={"kind": kind},
                        expects=label,
                    )
                )
        return questions

    def judge(self, question: Question, answer: str) -> Verdict:
        said = official(answer)
        return Verdict(float(said == question.expects), said)

    def figures(self, questions, answers, verdicts) -> dict[str, Figure]:
        pairs = [(question.expects, verdict.said) for question, verdict in zip(questions, verdicts, strict=True)]
        return {
            "accuracy": mean([verdict.score for verdict in verdicts]),
            "precision": share(pairs.count((YES, YES)), sum(said == YES for _, said in pairs)),
            "recall": share(pairs.count((YES, YES)), sum(expects == YES for expects, _ in pairs)),
            "F1": bootstrap(pairs, f1),
            "yes-ratio": share(sum(said == YES for _, said in pairs), len(pairs)),
        }


def official(answer: str) -> str:
    """ "yes" or "no" as the official script takes an answer."""
    words = answer.split(".")[0].replace(",", "").split(" ")
    return NO if {"No", "not", "no"} & set(words) else YES


def f1(pairs) -> float:
    """Of (expected, said)."""
    both = pairs.count((YES, YES))
    total = sum(said == YES for _, said in pairs) + sum(expects == YES for expects, _ in pairs)
    return 2 * both / total if total else 0.0
