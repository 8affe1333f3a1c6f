"""Pictures with captions; one of many ways to ask for a description is drawn for each."""

import random
import re
from pathlib import Path
from typing import Any

from ..files import Records
from ..rows import Row, clean, content_items, make_row, text_of
from ..shards import ShardRecords
from .base import Format, Skipped, need
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


class CaptionShards(Format):
    """The web-scale pairs of MiniGPT-4's first stage (LAION, CC, SBU), as img2dataset wrote them.

    A caption is worded as the original's `BlipCaptionProcessor` does, and learnt behind its picture alone. A sample that cannot be
    read is an error, where the original warns and goes on.

    Source (no code): Vision-CAIR/MiniGPT-4, minigpt4/datasets/datasets/cc_sbu_dataset.py, laion_dataset.py and
    minigpt4/processors/blip_processors.py, commit 05220fe, BSD-3-Clause.
    """

    name = "caption_shards"
    help = (
        "MiniGPT-4's first stage: LAION's and CC's tar shards ('shards/*.tar'), captions in lower case, without most punctuation, "
        "of 50 words at most, as it learns them; `train` reads shards as they are, too"
    )
    max_words = 50

    def records(self, path: Path) -> Records:
        return ShardRecords(path)

    def row(self, record: Any, rng: random.Random) -> Row:
        question, answer = record["messages"]
        if any(item["type"] == "text" for item in content_items(question)):
            raise ValueError(
                "it is a row of questions and answers, no caption; `train` and `data validate` read such shards as they are"
            )
        words = re.sub(r"""[.!"()*#:;~]""", " ", text_of(answer).lower()).split()
        if not words:
            raise Skipped("a caption of punctuation alone")
        return make_row([("", clean(" ".join(words[: self.max_words])))], record["images"])
