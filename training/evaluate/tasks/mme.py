"""MME: two yes-or-no questions on a picture, fourteen subtasks, accuracy and accuracy+."""

from collections import defaultdict
from pathlib import Path

from ..figures import Figure, mean
from .base import NO, OTHER, YES, ImageFolder, Question, Task, Verdict, ask

PERCEPTION = ("existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark", "artwork", "OCR")
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")


class Mme(Task):
    """A folder with a folder per subtask: `<picture>.txt` with lines "question <tab> Yes | No" beside the pictures, or the texts
    in `questions_answers_YN/` and the pictures in `images/`.

    Source: BradyFU/Awesome-Multimodal-Large-Language-Models, eval_tool/calculation.py, read in its copy zjunlp/Deco (commit
    a3ccc15): lower-cased, an answer says yes or no where that stands in its first four characters; accuracy+ counts pictures with
    both right; a subtask's score is 100 x (accuracy + accuracy+).
    """

    name = "mme"
    title = "MME"
    about = "MME, perception and cognition by yes and no: the folder of its subtasks"
    source = "BradyFU/Awesome-Multimodal-Large-Language-Models, eval_tool/calculation.py (copy in zjunlp/Deco, commit a3ccc15)"
    max_new_tokens = 16

    def read(self, path: Path, images: ImageFolder) -> list[Question]:
        if not path.is_dir():
            raise FileNotFoundError(
                f"{str(path)!r} is no folder. Give the folder that holds MME's subtasks (existence, count ...)."
            )
        questions = []
        for folder in sorted(each for each in path.iterdir() if each.is_dir()):
            texts = sorted([*folder.glob("*.txt"), *folder.glob("questions_answers_YN/*.txt")])
            pictures = ImageFolder(folder)
            for file in texts:
                lines = [line for line in file.read_text(encoding="utf-8-sig").split("\n") if line.strip()]
                for number, line in enumerate(lines, start=1):
                    question, _, right = line.strip().rpartition("\t")
                    if not question or right.strip().lower() not in (YES, NO):
                        raise ValueError(f"{str(file)!r}, line {number}: a line is a question, a tab, and Yes or No.")
                    questions.append(
                        Question(
                            f"{folder.name}/{file.stem}/{number}",
                            ask(question.strip()),
                            [pictures.find(file.stem)],
                            right=(right.strip(),),
                            labels={"subtask": folder.name},
                            expects=right.strip().lower(),
                            pair=f"{folder.name}/{file.stem}",
                        )
                    )
        if not questions:
            raise FileNotFoundError(f"{str(path)!r} holds no <subtask>/*.txt with MME's questions.")
        return questions

    def judge(self, question: Question, answer: str) -> Verdict:
        said = official(answer)
        return Verdict(float(said == question.expects), said)

    def figures(self, questions, answers, verdicts) -> dict[str, Figure]:
        scores: dict[str, list[float]] = defaultdict(list)
        pairs: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        for question, verdict in zip(questions, verdicts, strict=True):
            subtask = question.labels["subtask"]
            scores[subtask].append(verdict.score)
            pairs[subtask][question.pair].append(verdict.score)
        plus = {subtask: [float(min(each)) for each in of.values()] for subtask, of in pairs.items()}
        points = {
            subtask: 100 * (mean(scores[subtask]).value + mean(plus[subtask]).value) for subtask in scores
        }  # of a subtask, 0..200
        found = {
            "accuracy": mean([score for each in scores.values() for score in each]),
            "accuracy+": mean([score for each in plus.values() for score in each]),
        }
        for title, subtasks in (("perception", PERCEPTION), ("cognition", COGNITION)):
            asked = [subtask for subtask in subtasks if subtask in points]
            if asked:
                count = sum(len(scores[subtask]) for subtask in asked)
                found[f"{title} (of {200 * len(asked)})"] = Figure(
                    sum(points[subtask] for subtask in asked), None, None, count, "points"
                )
        for subtask, value in points.items():
            found[f"{subtask} (of 200)"] = Figure(value, None, None, len(scores[subtask]), "points")
        return found


def official(answer: str) -> str:
    """ "yes", "no" or "other" as the official script takes an answer."""
    start = answer.lower()[:4]
    return YES if YES in start else NO if NO in start else OTHER
