"""Pictures with captions; one of many ways to ask for a description is drawn for each."""

import random
from typing import Any

from ..rows import Row, make_row
from .base import Format, Skipped, clean, need
from .pools import DESCRIBE


class Caption(Format):
    name = "coco_caption"
    help = "COCO captions as LAVIS lists them: {'image', 'caption'}; one of several captions is drawn"

    def row(self, record: Any, rng: random.Random) -> Row:
        image, caption = need(record, "image", "caption")
        return self.described(image, [caption] if isinstance(caption, str) else caption, rng)

    def described(self, image: str, captions: list[str], rng: random.Random) -> Row:
        """A question of the pool and one of the captions."""
        if not captions:
            raise Skipped("no caption")
        question = rng.choice(DESCRIBE)
        return make_row([(question, clean(rng.choice(captions)))], [self.picture(image)])


class CocoKarpathy(Caption):
    name = "coco_karpathy"
    help = "COCO captions as published by Karpathy (dataset_coco.json); --split train takes in restval too"
    key = "images"

    def row(self, record: Any, rng: random.Random) -> Row:
        folder, file, split, sentences = need(record, "filepath", "filename", "split", "sentences")
        self.check_split("train" if split == "restval" else split)
        return self.described(f"{folder}/{file}", [sentence["raw"] for sentence in sentences], rng)


class CcSbuAlign(Caption):
    name = "cc_sbu_align"
    help = "MiniGPT-4's filter_cap.json: {'annotations': [{'image_id', 'caption'}]}, pictures <image_id>.jpg"
    key = "annotations"

    def row(self, record: Any, rng: random.Random) -> Row:
        image_id, caption = need(record, "image_id", "caption")
        return self.described(f"{image_id}.jpg", [caption], rng)
