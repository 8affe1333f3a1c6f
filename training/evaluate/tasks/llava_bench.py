"""LLaVA's 90 questions on 30 COCO pictures (conversation, detail, reasoning), in English and Chinese; people or a judge score."""

from pathlib import Path

from .base import ImageFolder, Question, Task, ask, records_of, text_of
from .owleval import language_of

KINDS = {"conv": "conversation", "complex": "reasoning"}
"""What the files shorten."""


class LlavaBench(Task):
    """`qa90_questions.jsonl` of {"question_id", "image", "text", "category"}, or VisualCLA's `llava_test_zh_questions.json` of
    {"question_id", "image", "instruction", "type"}."""

    name = "llava_bench"
    title = "LLaVA's 90 questions"
    about = "LLaVA's qa90_questions.jsonl, or VisualCLA's llava_test_zh_questions.json; answers side by side"
    source = "haotian-liu/LLaVA, playground/data; airaria/Visual-Chinese-LLaMA-Alpaca, examples"
    files = ("llava*questions*.json", "qa90_questions.jsonl")
    max_new_tokens = 256

    def read(self, path: Path, images: ImageFolder) -> list[Question]:
        questions = []
        for place, record in records_of(path):
            text = text_of(record, place, "instruction", "text", "question")
            kind = str(record.get("type", record.get("category", "")))
            labels = {"kind": KINDS.get(kind, kind), "language": language_of(text)}
            questions.append(
                Question(
                    text_of(record, place, "question_id"),
                    ask(text),
                    [images.find(text_of(record, place, "image"))],
                    labels={name: value for name, value in labels.items() if value},
                )
            )
        return questions
