"""GAVIE: 1,000 questions on Visual Genome pictures, scored by a judge that reads dense captions (`evaluate judge`)."""

from pathlib import Path

from .base import ImageFolder, Question, Task, ask, records_of, text_of


class Gavie(Task):
    """`evaluation_set.json`: a list of {"image_id", "question"}; "instruction" in older copies. Scores come from `evaluate judge`."""

    name = "gavie"
    title = "GAVIE"
    about = "GAVIE's evaluation_set.json; then 'evaluate judge' has a judge score the answers"
    source = "FuxiaoLiu/LRV-Instruction, Evaluation"
    files = ("evaluation_set.json",)
    max_new_tokens = 128

    def read(self, path: Path, images: ImageFolder) -> list[Question]:
        return [
            Question(
                str(number),
                ask(text_of(record, place, "question", "instruction")),
                [images.find(text_of(record, place, "image_id"))],
                labels={"image": text_of(record, place, "image_id")},
            )
            for number, (place, record) in enumerate(records_of(path), start=1)
        ]
