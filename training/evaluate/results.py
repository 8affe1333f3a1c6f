"""What came out of one task and one model: a JSON file that the page, the judge and the comparison read."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .figures import Figure, confusion, mean, share
from .tasks.base import NO, OTHER, YES, Question, Task, Verdict, words

FORMAT = 1


@dataclass(frozen=True)
class Answer:
    """One answered question.

    Attributes:
        id, question, right, labels, expects: of the question; see `Question`.
        before: what was said before the question.
        images: files of the pictures, or data URIs.
        answer: what the model said; empty where `error` is.
        error: why there is no answer.
        score: 0..1; None where nobody has said yet.
        said: what was understood.
    """

    id: str
    question: str
    images: list[str]
    right: list[str]
    labels: dict[str, str]
    expects: str | None
    answer: str
    error: str
    score: float | None
    said: str
    before: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Result:
    """Attributes:
    task, title: which task.
    data: the name of its data file or folder.
    source: where its data and scorer come from.
    model: its name.
    settings: what else decides about the answers: fingerprints, how they were chosen, versions.
    figures: name -> figure; the first one is the one to compare by.
    by: label -> value -> figure.
    yes_no: expected -> said -> how often; empty where nothing expects yes or no.
    hallucination: kind -> name -> figure; see `hallucination`.
    answers: all of them.
    """

    task: str
    title: str
    data: str
    source: str
    model: str
    settings: dict[str, Any]
    figures: dict[str, Figure]
    by: dict[str, dict[str, Figure]]
    yes_no: dict[str, dict[str, int]]
    hallucination: dict[str, dict[str, Figure]]
    answers: list[Answer]
    format: int = field(default=FORMAT)

    def save(self, folder: Path) -> None:
        """Under a name of its own in a folder; whole or not at all."""
        names = (self.task, Path(self.data).stem, self.model)
        path = folder / (".".join(re.sub(r"[^\w.-]+", "_", name) or "_" for name in names) + ".result.json")
        partial = path.with_name(f".{path.name}.partial")
        partial.write_text(json.dumps(asdict(self), ensure_ascii=False, indent=1), encoding="utf-8")
        os.replace(partial, path)

    @classmethod
    def open(cls, path: Path) -> "Result":
        """Raises:
        ValueError: it is no result.
        """
        try:
            read = json.loads(path.read_text(encoding="utf-8"))
            if read["format"] != FORMAT:
                raise ValueError(f"format {read['format']}")
            return cls(
                **{
                    **read,
                    "figures": _figures(read["figures"]),
                    "by": {label: _figures(of) for label, of in read["by"].items()},
                    "hallucination": {kind: _figures(of) for kind, of in read["hallucination"].items()},
                    "answers": [Answer(**answer) for answer in read["answers"]],
                }
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{str(path)!r} is no result of this version ({error}). Run the evaluation again.") from error


def result(
    task: Task,
    data: str,
    model: str,
    settings: Mapping[str, Any],
    questions: Sequence[Question],
    answers: Sequence[str | Exception],
) -> Result:
    """Judge answers. One that could not be given counts as wrong, where right and wrong are known."""
    texts = ["" if isinstance(answer, Exception) else answer for answer in answers]
    verdicts = [
        _failed(task, question) if isinstance(answer, Exception) else task.judge(question, answer)
        for question, answer in zip(questions, answers, strict=True)
    ]
    asked = [number for number, question in enumerate(questions) if question.expects]
    return Result(
        task=task.name,
        title=task.title,
        data=data,
        source=task.source,
        model=model,
        settings=dict(settings),
        figures=task.figures(questions, texts, verdicts),
        by=by_label(questions, verdicts),
        yes_no=confusion([questions[n].expects for n in asked], [verdicts[n].said for n in asked]) if asked else {},
        hallucination=hallucination(questions, verdicts),
        answers=[
            Answer(
                id=question.id,
                question=question.text,
                images=[_shown(image) for image in question.images],
                right=list(question.right),
                labels=dict(question.labels),
                expects=question.expects,
                answer=text,
                error=" ".join(str(answer).split()) if isinstance(answer, Exception) else "",
                score=verdict.score,
                said=verdict.said,
                before=[words(message) for message in question.messages[:-1] if words(message)],
            )
            for question, answer, text, verdict in zip(questions, answers, texts, verdicts, strict=True)
        ],
    )


def by_label(questions: Sequence[Question], verdicts: Sequence[Verdict]) -> dict[str, dict[str, Figure]]:
    """Mean score by every label that has several values, and not one for nearly each question."""
    found: dict[str, dict[str, list[float]]] = {}
    for question, verdict in zip(questions, verdicts, strict=True):
        if verdict.score is not None:
            for label, values in question.labels.items():
                for value in values.split(","):
                    found.setdefault(label, {}).setdefault(value, []).append(verdict.score)
    return {
        label: {value: mean(scores) for value, scores in sorted(of.items())}
        for label, of in found.items()
        if 1 < len(of) <= max(2, len(questions) // 2)
    }


def hallucination(questions: Sequence[Question], verdicts: Sequence[Verdict]) -> dict[str, dict[str, Figure]]:
    """LRV-Instruction's question: does a model say no to what is not there?

    Returns:
        "all", and each value of the label "kind" where there are several, to: "said yes" (yes-ratio over everything), "no to what is
        not there" and "yes to what is there" (accuracy on negatives and positives). Empty where nothing expects no.
    """
    pairs = [
        (question.labels.get("kind", ""), question.expects, verdict.said)
        for question, verdict in zip(questions, verdicts, strict=True)
        if question.expects
    ]
    if not any(expects == NO for _, expects, _ in pairs):
        return {}
    kinds = sorted({kind for kind, _, _ in pairs if kind})
    table = {}
    for kind in ("all", *(kinds if len(kinds) > 1 else ())):
        of = [(expects, said) for own, expects, said in pairs if kind in ("all", own)]
        table[kind] = {
            "said yes": share(sum(said == YES for _, said in of), len(of)),
            "no to what is not there": share(of.count((NO, NO)), sum(expects == NO for expects, _ in of)),
            "yes to what is there": share(of.count((YES, YES)), sum(expects == YES for expects, _ in of)),
        }
    return table


def _failed(task: Task, question: Question) -> Verdict:
    known = task.judge(question, "").score
    return Verdict(None if known is None else 0.0, OTHER if question.expects else "")


def _shown(image: object) -> str:
    if isinstance(image, (str, Path)):
        return str(image)
    from pipelines.images import load_image, to_data_uri

    return to_data_uri(load_image(image))


def _figures(read: Mapping[str, Any]) -> dict[str, Figure]:
    return {name: Figure(**figure) for name, figure in read.items()}
