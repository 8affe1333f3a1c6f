"""OwlEval and GAVIE for lmms-eval: it asks and writes the answers, which `python -m training evaluate` scores and shows.

Nobody but people or a judge scores these two, so the figure here is only the share of questions that were answered. The answers go
to `$VCLA_ANSWERS` (default: answers.jsonl, in the folder of the run), a file for `--predictions`.
"""

import json
import os
from pathlib import Path

from PIL import Image

from training.evaluate.tasks.base import ImageFolder


def pictures(doc):
    file = ImageFolder(Path(os.environ.get("VCLA_IMAGES", "."))).find(doc.get("image") or doc["image_id"])
    if not file.is_file():
        raise FileNotFoundError(f"The picture {str(file)!r} is not there. Say where pictures are: VCLA_IMAGES=FOLDER")
    return [Image.open(file)]


def question(doc, lmms_eval_specific_kwargs=None):
    return doc["question"]


def answers(doc, results):
    return {"answered": {"question": doc["question"], "id": doc.get("question_id"), "answer": results[0]}}


def write(results):
    """Write the answers, numbered as the data file is where it has no numbers; returns the share that is not empty."""
    lines = [
        json.dumps({"question_id": number if each["id"] is None else each["id"], "answer": each["answer"]}, ensure_ascii=False)
        for number, each in enumerate(results, start=1)
    ]
    Path(os.environ.get("VCLA_ANSWERS", "answers.jsonl")).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return sum(bool(each["answer"].strip()) for each in results) / len(results)
