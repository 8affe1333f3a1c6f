"""Questions with short answers of several people, scored as VQA scores them: VQA v2, OK-VQA, TextVQA, VizWiz."""

import re
from pathlib import Path
from typing import Any

from .base import ImageFolder, Question, Task, Verdict, ask, records_of, text_of

PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
ARTICLES = ("a", "an", "the")
NUMBERS = {
    word: str(number)
    for number, word in enumerate(("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"))
} | {"none": "0"}
_CONTRACTIONS = [
    "ain't",
    "aren't",
    "can't",
    "could've",
    "couldn't",
    "didn't",
    "doesn't",
    "don't",
    "hadn't",
    "hasn't",
    "haven't",
    "he'd",
    "he's",
    "how'd",
    "how'll",
    "how's",
    "isn't",
    "it'd",
    "it'll",
    "ma'am",
    "mightn't",
    "might've",
    "mustn't",
    "must've",
    "needn't",
    "not've",
    "o'clock",
    "oughtn't",
    "shan't",
    "should've",
    "shouldn't",
    "somebody'll",
    "somebody's",
    "someone'd",
    "someone'll",
    "someone's",
    "something'd",
    "something'll",
    "that's",
    "there'd",
    "there're",
    "there's",
    "they'd",
    "they'll",
    "they're",
    "they've",
    "'twas",
    "wasn't",
    "we've",
    "weren't",
    "what'll",
    "what're",
    "what's",
    "what've",
    "when's",
    "where'd",
    "where's",
    "where've",
    "who'd",
    "who'll",
    "who's",
    "who've",
    "why'll",
    "why're",
    "why's",
    "won't",
    "would've",
    "wouldn't",
    "y'all",
    "you'd",
    "you'll",
    "you're",
    "you've",
    "couldn't've",
    "hadn't've",
    "he'd've",
    "it'd've",
    "mightn't've",
    "she'd've",
    "shouldn't've",
    "somebody'd've",
    "someone'd've",
    "something'd've",
    "there'd've",
    "they'd've",
    "we'd've",
    "who'd've",
    "wouldn't've",
    "y'all'll",
    "y'all'd've",
    "you'd've",
    "'ow's'at",
]
CONTRACTED = {word.replace("'", ""): word for word in _CONTRACTIONS if word.count("'") == 1} | {
    "'".join(pieces[:n]) + "".join(pieces[n : n + 1]) + "".join("'" + piece for piece in pieces[n + 1 :]): word
    for word in _CONTRACTIONS
    if (pieces := word.split("'")) and len(pieces) > 2
    for n in range(1, len(pieces))
}
"""A word that lacks one of its apostrophes -> the word."""

ENOUGH = 3
"""So many people have to have said the same for a whole point."""

_PERIOD = re.compile(r"(?!<=\d)(\.)(?!\d)")
_COMMA = re.compile(r"(?<=\d)(\,)+(?=\d)")


class Vqa(Task):
    """JSON lines or a JSON list of {"image", "question", "answers": [texts]} (or "answer": one text), or VQA's own two files: the
    questions ({"questions": [...]}), and beside them the annotations of the same name ("questions" -> "annotations").

    Source: GT-Vision-Lab/VQA, PythonEvaluationTools/vqaEvaluation/vqaEval.py (commit 07aecec), in the form that the later challenges
    use, facebookresearch/mmf, pythia/tasks/processors.py (commit c46b3b3), `EvalAIAnswerProcessor`: an answer is worth min(1, n / 3), where n others of ten people said the same, averaged over those who
    are left out one by one. With fewer than three answers, one that agrees is enough.
    """

    name = "vqa"
    title = "VQA"
    about = 'short answers as VQA scores them: rows of {"image", "question", "answers"}, or VQA\'s own two files'
    source = "facebookresearch/mmf, pythia/tasks/processors.py, commit c46b3b3, after GT-Vision-Lab/VQA, vqaEval.py"
    files = ("*vqa*.json", "*vqa*.jsonl", "*vizwiz*.json*", "v2_*_questions.json")
    max_new_tokens = 16

    def read(self, path: Path, images: ImageFolder) -> list[Question]:
        annotations = path.with_name(path.name.replace("questions", "annotations"))
        people: dict[str, list[str]] = {}
        if annotations != path and annotations.is_file():
            for place, record in records_of(annotations, "annotations"):
                people[text_of(record, place, "question_id")] = _answers(record, place)
        questions = []
        for number, (place, record) in enumerate(records_of(path, "questions"), start=1):
            name = str(record.get("question_id", number))
            picture = text_of(record, place, "image", "image_path", "image_id")
            right = people[name] if name in people else _answers(record, place)
            found = images.find(picture)
            if "image" not in record and not found.is_file() and picture.isdigit():
                found = next(iter(sorted(images.folder.glob(f"*{int(picture):012d}.*"))), found)
            labels = {key: str(record[key]) for key in ("question_type", "answer_type", "kind", "language") if key in record}
            questions.append(Question(name, ask(text_of(record, place, "question")), [found], tuple(right), labels=labels))
        return questions

    def judge(self, question: Question, answer: str) -> Verdict:
        said = normalised(answer)
        return Verdict(agreement(said, question.right), said)


def _answers(record: dict[str, Any], place: str) -> list[str]:
    found = record.get("answers", record.get("answer"))
    found = found if isinstance(found, list) else [found]
    texts = [each.get("answer") if isinstance(each, dict) else each for each in found]
    if not texts or not all(isinstance(text, (str, int, float)) for text in texts):
        raise ValueError(f'{place}: there are no right answers. Write them as "answers": ["two", ...].')
    return [str(text) for text in texts]


def agreement(said: str, right: list[str] | tuple[str, ...]) -> float:
    """0..1: a normalised answer against those of people."""
    right = [normalised(each) for each in right]
    if len(right) < ENOUGH:
        return float(said in right)
    scores = [min(1.0, (right[:n] + right[n + 1 :]).count(said) / ENOUGH) for n in range(len(right))]
    return sum(scores) / len(scores)


def normalised(answer: str) -> str:
    """An answer without case, punctuation, articles, its numbers as digits."""
    text = answer.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    text = text.replace("\n", " ").replace("\t", " ").strip()
    has_number = _COMMA.search(text) is not None
    without = text
    for mark in PUNCTUATION:
        is_apart = f"{mark} " in text or f" {mark}" in text or has_number
        without = without.replace(mark, "" if is_apart else " ")
    without = _PERIOD.sub("", without)
    words = (NUMBERS.get(word, word) for word in without.split())
    return " ".join(CONTRACTED.get(word, word) for word in words if word not in ARTICLES)
