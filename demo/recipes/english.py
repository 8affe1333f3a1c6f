"""The tiny world in English as files of rows: what gives eyes to a text model that somebody else has trained (docs/training.md).

    python -m demo.recipes.english questions general.jsonl                  # for `python -m demo batch`
    python -m demo.recipes.english rows world --general answers.jsonl       # captions.jsonl, instructions.jsonl, pictures/

The instructions begin with few colours and shapes and take in the others one after the other, so they are to be learnt in their
order. One row in ten is a general question with the text model's own answer, so that it goes on talking as before.
"""

import argparse
import json
import os
import random
from collections.abc import Iterator
from functools import partial
from multiprocessing import Pool
from pathlib import Path

from pipelines.own_python import hand_over

if __name__ == "__main__":
    hand_over("demo.recipes.english")

from demo import world
from demo.conversations import (
    ABOUT_ONE,
    ABOUT_SEVERAL,
    MIXTURE,
    Conversation,
    Turn,
    any_kind,
    ask_about,
    ask_across,
    converse,
)
from demo.scenes import make_scene

ROWS_PER_PART = 500
"""Rows that one process makes at a time; a part's rows do not depend on who makes it."""

LESSONS = 0.15
"""Share of the instructions over which all colours and shapes come in."""

QUESTIONS_PER_TALK = 6
KINDS = [kind for kind in MIXTURE if kind not in ("chat", "fact")]  # the text model has its own small talk and knows facts

COUNTRIES = (
    "Germany Italy Spain Portugal Greece Egypt India China Russia Brazil Mexico Argentina Chile Peru Sweden Norway Finland Poland "
    "Austria Hungary Turkey Kenya Thailand Vietnam Australia Ireland Denmark Belgium Switzerland Cuba"
)
THINGS = (
    "water gravity electricity democracy music mathematics a_computer a_planet a_volcano the_moon the_sun oxygen gold bread coffee "
    "chocolate a_library football chess a_poem biology chemistry an_atom a_river the_internet a_camera paper history rain sleep"
)
ANIMALS = "cats dogs horses whales bees eagles penguins elephants snakes frogs spiders sharks wolves owls ants"
OTHERS = (
    "Who wrote Hamlet?", "Who was Albert Einstein?", "What is the largest ocean?", "How many legs has a spider?",
    "What is the tallest mountain in the world?", "How do I boil an egg?", "How can I sleep better?", "Hello!", "Good morning!",
    "How are you?", "Who are you?", "What can you do?", "Thank you!", "Tell me a joke.", "Tell me a short story.", "Goodbye!",
    "What is 2 + 2?", "What is 10 minus 3?", "Is the earth round?", "What is the opposite of hot?", "What colour is the sky?",
    "What shape is a wheel?", "Give me three names for a cat.", "Write a sentence with the word 'tree'.",
)  # fmt: skip


def general_questions() -> list[str]:
    """Questions about no picture, as people ask any text model."""
    countries, animals = COUNTRIES.split(), ANIMALS.split()
    things = [name.replace("_", " ") for name in THINGS.split()]
    return [
        *(f"What is the capital of {country}?" for country in countries),
        *(f"What language do people speak in {country}?" for country in countries[::2]),
        *(f"What is {thing}?" for thing in things),
        *(f"Write one sentence about {thing}." for thing in things),
        *(f"Where do {animal} live?" for animal in animals),
        *(f"What do {animal} eat?" for animal in animals),
        *OTHERS,
    ]


def caption_rows(rng: random.Random, share: float) -> Iterator[dict]:
    """Endless rows of one picture and its description."""
    while True:
        yield world.row(converse("describe", "en", rng, "train"), rng)


def instruction_rows(rng: random.Random, share: float) -> Iterator[dict]:
    """Endless rows about one to three pictures, most of them with six questions.

    Args:
        share: how much of all rows has gone before, 0..1; decides which colours and shapes there are.
    """
    colours, shapes = list(world.COLOURS), list(world.SHAPES)
    size = 2 + int(share / LESSONS * len(colours))
    palette = None if size >= len(colours) else (colours[:size], shapes[:size])
    while True:
        if palette is None and rng.random() < 0.3:
            yield world.row(converse(any_kind(KINDS, rng), "en", rng, "train"), rng)
        else:
            yield world.row(_talk(rng, palette), rng)


def _talk(rng: random.Random, palette: tuple[list[str], list[str]] | None) -> Conversation:
    """One to three pictures in one message, and questions about them."""
    shown = tuple(make_scene(rng, "train", palette) for _ in range(rng.choice((1, 1, 2, 2, 3))))
    turns: list[Turn] = []
    while len(turns) < QUESTIONS_PER_TALK:
        if len(shown) == 1:
            question = ask_about(any_kind(ABOUT_ONE, rng), shown[0], rng)
        else:
            question = ask_across(any_kind(ABOUT_SEVERAL, rng), shown, rng)
        if question is not None:
            asked, right = world.ask(question, "en", rng, len(shown)), world.answer(question, shown, "en")
            turns.append(Turn(asked, right, () if turns else shown))
    return Conversation("talk", "en", tuple(turns))


def general_rows(file: Path | None) -> list[dict]:
    """The answers that `python -m demo batch` wrote, as rows; one that was cut off is left out."""
    lines = file.read_text(encoding="utf-8").splitlines() if file else []
    said = [row for row in map(json.loads, lines) if row.get("answer", "").rstrip().endswith((".", "!", "?", '"'))]
    return [
        {
            "messages": [
                {"role": "user", "content": row["question"]},
                {"role": "assistant", "content": row["answer"].strip()},
            ],
            "images": [],
        }
        for row in said
    ]


def write(folder: Path, name: str, num_rows: int, general: list[dict], seed: int, processes: int) -> None:
    """Write `name`.jsonl and its pictures; the same rows whatever the number of processes."""
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    partial_file = folder / f".{name}.jsonl.partial"
    make = partial(_part, folder, name, num_rows, general, seed)
    with Pool(processes) as pool, partial_file.open("w", encoding="utf-8") as file:
        for lines in pool.imap(make, range(0, num_rows, ROWS_PER_PART)):
            file.writelines(f"{line}\n" for line in lines)
    os.replace(partial_file, folder / f"{name}.jsonl")


def _part(folder: Path, name: str, num_rows: int, general: list[dict], seed: int, first: int) -> list[str]:
    rng = random.Random(f"english/{name}/{seed}/{first}")
    rows = {"captions": caption_rows, "instructions": instruction_rows}[name](rng, first / num_rows)
    pictures = Path("pictures") / f"{name}-{first:07}"
    (folder / pictures).mkdir(exist_ok=True)
    lines, num_pictures = [], 0
    for _ in range(min(ROWS_PER_PART, num_rows - first)):
        if general and name == "instructions" and rng.random() < 0.1:
            row = rng.choice(general)
        else:
            row = next(rows)
        names = []
        for image in row["images"]:
            names.append((pictures / f"{num_pictures:04}.png").as_posix())
            image.save(folder / names[-1], compress_level=1)
            num_pictures += 1
        lines.append(json.dumps({"messages": row["messages"], "images": names}, ensure_ascii=False))
    return lines


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m demo.recipes.english", description=__doc__.partition("\n")[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    asked = verbs.add_parser("questions", help="write the general questions, for python -m demo batch")
    asked.add_argument("file", type=Path)
    made = verbs.add_parser("rows", help="write captions.jsonl and instructions.jsonl with their pictures")
    made.add_argument("folder", type=Path)
    made.add_argument("--captions", type=int, default=16_000, help="rows for stage 1 (%(default)s)")
    made.add_argument("--instructions", type=int, default=120_000, help="rows for stage 2 (%(default)s)")
    made.add_argument("--general", type=Path, help="answers to the general questions, mixed into the instructions")
    made.add_argument("--seed", type=int, default=1)
    made.add_argument("--processes", type=int, default=os.cpu_count())
    args = parser.parse_args(argv)
    if args.verb == "questions":
        args.file.write_text("".join(json.dumps({"question": text}) + "\n" for text in general_questions()), encoding="utf-8")
        return
    for name in ("captions", "instructions"):
        if getattr(args, name):
            write(args.folder, name, getattr(args, name), general_rows(args.general), args.seed, args.processes)


if __name__ == "__main__":
    main()
