"""Captions: CIDEr-D and BLEU-4 against those of people."""

import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ..figures import Figure, bootstrap
from .base import ImageFolder, Question, Task, Verdict, ask, records_of, text_of

LONGEST = 4
"""Words of the longest n-gram."""

SIGMA = 6.0
"""Of the Gaussian over the difference in length."""

_PUNCTUATION = re.compile(r"[^\w\s'-]")


class Captions(Task):
    """JSON lines or a JSON list of {"image", "captions": [texts]} with an optional "question", or COCO's annotations
    ({"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}).

    Source: tylin/coco-caption as the package pycocoevalcap 1.2, cider/cider_scorer.py and bleu/bleu_scorer.py. What differs: words
    are cut without Stanford's tokenizer (which is Java): lower case, punctuation gone. As there, lengths are counted in pairs of
    words, and how rare an n-gram is, is counted in the right captions of the file itself: figures of different files do not compare.
    """

    name = "captions"
    title = "Captions"
    about = 'CIDEr-D and BLEU-4: rows of {"image", "captions"}, or COCO\'s captions_*.json'
    source = "tylin/coco-caption (pycocoevalcap 1.2)"
    files = ("*captions*.json", "*captions*.jsonl")
    max_new_tokens = 64

    QUESTION = "Describe the picture in one sentence."

    def read(self, path: Path, images: ImageFolder) -> list[Question]:
        found = []
        for name, picture, question, captions in _captions(path):
            found.append(Question(name, ask(question), [images.find(picture)], right=tuple(captions)))
        if len(found) < 2:
            raise ValueError(f"{str(path)!r} holds one picture; CIDEr needs several, to know which words are rare.")
        return found

    def judge(self, question: Question, answer: str) -> Verdict:
        return Verdict(None, " ".join(words(answer)))

    def figures(self, questions, answers, verdicts) -> dict[str, Figure]:
        scores = cider(answers, [question.right for question in questions])
        pairs = list(zip(answers, (question.right for question in questions), strict=True))
        return {
            "CIDEr": bootstrap([100 * score for score in scores], lambda of: sum(of) / len(of), "points"),
            "BLEU-4": bootstrap([_matches(*pair) for pair in pairs], _bleu),
        }


def _captions(path: Path):
    """(name, picture, question, right captions) of each picture."""
    if path.suffix.lower() == ".json" and path.is_file():
        try:
            content = json.loads(path.read_text(encoding="utf-8-sig"))
        except ValueError:
            content = None
        if isinstance(content, dict) and {"images", "annotations"} <= set(content):
            names = {image["id"]: image["file_name"] for image in content["images"]}
            of: dict[object, list[str]] = {}
            for annotation in content["annotations"]:
                of.setdefault(annotation["image_id"], []).append(annotation["caption"])
            for image, captions in of.items():
                if image not in names:
                    raise ValueError(f"{str(path)!r}: the captions of image {image} belong to none of its 'images'.")
                yield str(image), names[image], Captions.QUESTION, captions
            return
    for number, (place, record) in enumerate(records_of(path), start=1):
        captions = record.get("captions", record.get("caption"))
        captions = [captions] if isinstance(captions, str) else captions
        if (
            not isinstance(captions, list)
            or not captions
            or not all(isinstance(text, str) and text.strip() for text in captions)
        ):
            raise ValueError(f'{place}: "captions" has to be a list of texts, but it is {captions!r}.')
        question = record.get("question", Captions.QUESTION)
        yield (
            str(record.get("id", record.get("question_id", number))),
            text_of(record, place, "image", "image_id"),
            question,
            captions,
        )


def words(text: str) -> list[str]:
    """In lower case, without punctuation."""
    return _PUNCTUATION.sub(" ", text.lower()).split()


def _ngrams(text: str) -> Counter:
    found = words(text)
    return Counter(tuple(found[at : at + n]) for n in range(1, LONGEST + 1) for at in range(len(found) - n + 1))


def cider(answers: Sequence[str], right: Sequence[Sequence[str]]) -> list[float]:
    """CIDEr-D of each answer, 0..10."""
    people = [[_ngrams(text) for text in texts] for texts in right]
    documents = Counter(ngram for texts in people for ngram in set().union(*texts))
    log_count = math.log(len(right))

    def weighted(counts: Counter) -> tuple[list[dict], list[float], int]:
        vectors: list[dict] = [{} for _ in range(LONGEST)]
        for ngram, count in counts.items():
            vectors[len(ngram) - 1][ngram] = count * (log_count - math.log(max(1, documents[ngram])))
        norms = [math.sqrt(sum(value**2 for value in vector.values())) for vector in vectors]
        return vectors, norms, sum(count for ngram, count in counts.items() if len(ngram) == 2)

    scores = []
    for answer, texts in zip(answers, people, strict=True):
        own, own_norms, own_length = weighted(_ngrams(answer))
        total = 0.0
        for text in texts:
            other, norms, length = weighted(text)
            penalty = math.exp(-((own_length - length) ** 2) / (2 * SIGMA**2))
            for n in range(LONGEST):
                value = sum(
                    min(weight, other[n].get(ngram, 0.0)) * other[n].get(ngram, 0.0) for ngram, weight in own[n].items()
                )
                scale = own_norms[n] * norms[n]
                total += penalty * (value / scale if scale else value)
        scores.append(10 * total / LONGEST / len(texts))
    return scores


def _matches(answer: str, right: Sequence[str]) -> tuple[int, int, list[int], list[int]]:
    """(length, closest right length, n-grams that match, n-grams) of an answer."""
    own = _ngrams(answer)
    most: Counter = Counter()
    for text in right:
        most |= _ngrams(text)
    length = len(words(answer))
    closest = min((len(words(text)) for text in right), key=lambda other: (abs(other - length), other))
    both = own & most
    matched = [sum(count for ngram, count in both.items() if len(ngram) == n) for n in range(1, LONGEST + 1)]
    return length, closest, matched, [max(0, length - n + 1) for n in range(1, LONGEST + 1)]


def _bleu(rows: Sequence[tuple[int, int, list[int], list[int]]]) -> float:
    """BLEU-4 of all answers together, 0..1."""
    length, closest = sum(row[0] for row in rows), sum(row[1] for row in rows)
    logs = 0.0
    for n in range(LONGEST):
        matched, total = sum(row[2][n] for row in rows), sum(row[3][n] for row in rows)
        if not matched:
            return 0.0
        logs += math.log(matched / total) / LONGEST
    return math.exp(logs) * (1.0 if length >= closest else math.exp(1 - closest / length))


def bleu(answers: Sequence[str], right: Sequence[Sequence[str]]) -> float:
    """BLEU-4 of all answers together, 0..1."""
    return _bleu([_matches(*pair) for pair in zip(answers, right, strict=True)])
