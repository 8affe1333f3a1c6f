"""Questions about pictures with short answers: A-OKVQA, OCR-VQA, VQA v2 and OK-VQA, GQA, LRV-Instruction."""

import random
from collections import Counter
from pathlib import Path
from typing import Any

from ..files import Records, open_records
from ..rows import Row, clean, make_row
from .base import Format, Skipped, check_list, need
from .pools import WHY


class AOkvqa(Format):
    name = "aokvqa"
    help = "A-OKVQA, the official file or with Multimodal-GPT's 'image'; every second question names its options"
    option_share = 0.5

    def row(self, record: Any, rng: random.Random) -> Row:
        question, choices, correct, rationales = need(record, "question", "choices", "correct_choice_idx", "rationales")
        check_list(choices, "choices")
        check_list(rationales, "rationales")
        if isinstance(correct, bool) or not isinstance(correct, int) or not 0 <= correct < len(choices):
            raise ValueError(f"correct_choice_idx is {correct!r} of {len(choices)} choices")
        split = record.get("split", "train")
        self.check_split(split)
        image = record.get("image") or f"{split}2017/{int(need(record, 'image_id')[0]):012d}.jpg"
        asked = f"{clean(question)} {rng.choice(WHY)}"
        # Multimodal-GPT builds this prompt and then overwrites it by the plain one.
        if rng.random() < self.option_share and len(choices) > 1:
            asked += "\nOptions: " + ", ".join(map(clean, choices))
        reasons = " ".join(map(clean, rationales))
        answer = f"The answer is {clean(choices[correct])}." + (f" Because {reasons}" if reasons else "")
        return make_row([(asked, answer)], [self.picture(image)])


class OcrVqa(Format):
    name = "ocr_vqa"
    help = "OCR-VQA, the official object by id (split 1, 2, 3) or Multimodal-GPT's list; all questions of a book are turns of a row"
    splits = {1: "train", 2: "val", 3: "test"}

    def records(self, path: Path) -> Records:
        return open_records(path, is_by_id=True)

    def row(self, record: Any, rng: random.Random) -> Row:
        questions, answers = need(record, "questions", "answers")
        check_list(questions, "questions")
        check_list(answers, "answers")
        self.check_split(self.splits.get(record.get("split", 1), str(record.get("split"))))
        if len(questions) != len(answers):
            raise ValueError(f"{len(questions)} questions but {len(answers)} answers")
        pairs = [(clean(question), clean(answer)) for question, answer in zip(questions, answers, strict=True)]
        pairs = [pair for pair in pairs if all(pair)]
        if not pairs:
            raise Skipped("no answer")
        image = record.get("filename") or record["id"] + Path(need(record, "imageURL")[0]).suffix
        return make_row(pairs, [self.picture(image)])


class Vqa(Format):
    name = "vqa"
    help = "VQA v2 and OK-VQA as LAVIS lists them: {'image', 'question', 'answer': [...]}; the answer that most gave"

    def row(self, record: Any, rng: random.Random) -> Row:
        image, question, answers = need(record, "image", "question", "answer")
        answers = [answers] if isinstance(answers, str) else answers
        check_list(answers, "answer")
        if not answers:
            raise Skipped("no answer")
        best = Counter(map(clean, answers)).most_common(1)[0][0]
        return make_row([(clean(question), best)], [self.picture(image)])


class Gqa(Format):
    name = "gqa"
    help = "GQA's questions by id: {'imageId', 'question', 'answer', 'fullAnswer'}; the full answer, pictures <imageId>.jpg"

    def records(self, path: Path) -> Records:
        return open_records(path, is_by_id=True)

    def row(self, record: Any, rng: random.Random) -> Row:
        image, question = need(record, "imageId", "question")
        answer = record.get("fullAnswer") or need(record, "answer")[0]
        return make_row([(clean(question), clean(answer))], [self.picture(f"{image}.jpg")])


class Lrv(Format):
    name = "lrv"
    help = "LRV-Instruction: positive, negative, with coordinates, charts: {'image_id', 'question', 'answer', 'task'}"
    key = "annotations"

    def row(self, record: Any, rng: random.Random) -> Row:
        image_id, question, answer = need(record, "image_id", "question", "answer")
        image = str(image_id)
        if Path(image).suffix.lower() not in (".jpg", ".jpeg", ".png"):
            image += ".jpg"
        task = record.get("task")
        return make_row([(clean(question), clean(answer))], [self.picture(image)], **({"meta": {"task": task}} if task else {}))
