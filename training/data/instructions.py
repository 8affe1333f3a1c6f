"""Instructions about pictures, written by a language model that reads dense captions: what it is asked, and what its reply must be.

Source of the wordings (no code): FuxiaoLiu/LRV-Instruction (BSD-3-Clause), prompts/positive_generation_prompt.txt,
negative1_generation_prompt.txt (commit 7736bc2), negative2_generation_prompt.txt (commit 3e723a8). What differs: "Muli-choice" is
spelt out. The prompt for knowledge manipulation was not published; it follows the paper (arXiv 2306.14565, section 3).
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

HEAD = """Give an image with following information: bounding box, positions that are the object left-top corner coordinates(X, Y), \
object sizes(Width, Height). Highly overlapping bounding boxes may refer to the same object.

bounding box:
{captions}

"""
CAPTION_HEAD = """Give an image with following information:
{captions}

"""
TASKS = (
    "image captioning",
    "Image Sentiment Analysis",
    "Activity Recognition",
    "Object Interaction Analysis",
    "Object Attribute Detection",
    "Multi-choice VQA",
    "Visual Entailment",
    "Visual Commonsense reasoning",
    "Styled Image Caption",
    "Referential Expression Grounding",
)
MAX_WORDS = 30
"""Of an answer to a positive instruction, as the prompt says."""

MISLEADING = """Come up with 6 misleading instructions {what} in the images with different language styles. The instructions should \
contain interrogative and declarative sentences. Please also explain the reason.

Output format:
Instruction:
instruction example
Reason:
Reason example
"""


@dataclass(frozen=True)
class Kind:
    """One sort of instructions.

    Attributes:
        request: what stands below the captions.
        labels: the parts of each entry of a reply, in their order; the first is the question, the second the answer.
        max_reply_tokens: of a reply.
    """

    request: str
    labels: tuple[str, ...]
    max_reply_tokens: int


KINDS = {
    "positive": Kind(
        f"""Task: {", ".join(TASKS)}.

Come up with 20 diverse instructions for all the tasks above with different language styles and accurate answers. The instructions \
should contain interrogative sentences and declarative sentences. The answers should be less than {MAX_WORDS} words. Each task should \
have less than 3 instructions.

Output format:
Instruction:
instruction example
Answer:
answer example
Task:
task sample
""",
        ("instruction", "answer", "task"),
        3000,
    ),
    "nonexistent": Kind(
        MISLEADING.format(
            what="with nonexistent elements (nonexistent objects, nonexistent activities, nonexistent attributes, nonexistent "
            "interactions)"
        ),
        ("instruction", "reason"),
        1500,
    ),
    "existent": Kind(MISLEADING.format(what="of existing objects with wrong attributes"), ("instruction", "reason"), 1500),
    "knowledge": Kind(
        MISLEADING.format(
            what="that manipulate the knowledge in the captions (names of persons, places, organisations, events, dates and "
            "numbers are replaced by wrong ones of the same sort)"
        ),
        ("instruction", "reason"),
        1500,
    ),
}
"""Name -> kind; the last three are LRV's negative ones."""


def prompt(kind: Kind, captions: Sequence[Mapping[str, Any]]) -> str:
    """What is asked about a picture.

    Args:
        kind: of the instructions.
        captions: {"caption"} of the picture, with "bbox" (x, y, width, height) where a caption is of a region.
    """
    lines = []
    for each in captions:
        x, y, width, height = each.get("bbox") or (None,) * 4
        lines.append(each["caption"] if x is None else f"{each['caption']} X: {x} Y: {y} Width: {width} Height: {height}")
    head = HEAD if any(each.get("bbox") for each in captions) else CAPTION_HEAD
    return head.format(captions="\n".join(lines)) + kind.request


def read_reply(kind: Kind, reply: str) -> list[dict[str, str]]:
    """The entries of a reply, each with the labels of its kind.

    Numbers before a label and marks of Markdown around it are passed over, as is what stands before the first entry.

    Raises:
        ValueError: a part is absent, empty or out of order, or something else stands between the entries.
    """
    reply = re.sub(r"(?s)^\s*<think>.*?</think>", "", reply)
    label = rf"^[\s#*\-\d.()]*({'|'.join(kind.labels)})(?:\s+\d+)?[\s*]*:[ \t*]*"
    _, *pieces = re.split(label, reply, flags=re.IGNORECASE | re.MULTILINE)
    found = [name.lower() for name in pieces[::2]]
    number = len(found) // len(kind.labels)
    if not found or found != list(kind.labels) * number:
        wanted = ", ".join(f"'{name.capitalize()}:'" for name in kind.labels)
        raise ValueError(f"the reply is not made of entries with {wanted}")
    values = [_value(text, name) for name, text in zip(found, pieces[1::2], strict=True)]
    width = len(kind.labels)
    return [dict(zip(kind.labels, values[at : at + width], strict=True)) for at in range(0, len(values), width)]


def usable(entries: Sequence[Mapping[str, str]], left_out: Counter) -> list[tuple[str, str, str]]:
    """(question, answer, task) of the entries that keep to what was asked; why others do not is counted."""
    known, asked, good = {task.lower(): task for task in TASKS}, set(), []
    for entry in entries:
        question, answer = entry["instruction"], entry.get("answer") or entry["reason"]
        task = known.get(entry["task"].lower().rstrip(".")) if "task" in entry else "negative"
        if question.lower() in asked:
            left_out["the same instruction twice"] += 1
        elif task is None:
            left_out["a task that is none of those asked for"] += 1
        elif "answer" in entry and len(answer.split()) >= MAX_WORDS:
            left_out[f"an answer of {MAX_WORDS} words or more"] += 1
        else:
            asked.add(question.lower())
            good.append((question, answer, task))
    return good


def _value(text: str, name: str) -> str:
    """A part without the numbers and rules that stand before the next entry."""
    lines = text.strip().split("\n")
    while lines and not any(character.isalpha() for character in lines[-1]) and (len(lines) > 1 or not lines[-1].strip()):
        lines.pop()
    value = "\n".join(lines).strip().strip("*").strip()
    if not value:
        raise ValueError(f"a '{name.capitalize()}:' of the reply is empty")
    if "\n\n" in value:
        raise ValueError(f"something stands behind {value.split(chr(10))[0][:60]!r} that is no part of an entry")
    return value
