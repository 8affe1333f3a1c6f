"""Multiple choice: by the likelihood of the options, or by the letter that is written."""

import re
from pathlib import Path

from .base import OTHER, ImageFolder, Question, Task, Verdict, ask, records_of, text_of

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
PROMPT = {
    "en": "{question}\n{options}\nAnswer with the option's letter from the given choices directly.",
    "zh": "{question}\n{options}\n请直接回答选项的字母。",
}


class Choice(Task):
    """JSON lines or a JSON list of {"image", "question", "choices" or "options": [texts], "answer": letter, number from 0, or text};
    A-OKVQA's official file (`correct_choice_idx`) too.

    By likelihood, each option's text is an answer to the bare question, and the likeliest per token counts. By letter, the options
    stand in the prompt.
    """

    name = "choice"
    title = "Multiple choice"
    about = 'rows of {"image", "question", "choices", "answer"}; by likelihood of the options, or --by letter'
    source = "the row format of A-OKVQA (allenai/aokvqa)"
    files = ("*choice*.json", "*choice*.jsonl", "aokvqa*.json")
    max_new_tokens = 16
    by_options = True

    def read(self, path: Path, images: ImageFolder) -> list[Question]:
        questions = []
        for number, (place, record) in enumerate(records_of(path), start=1):
            options = record.get("choices", record.get("options"))
            if isinstance(options, dict):
                options = [options[key] for key in sorted(options)]
            if not isinstance(options, list) or not 2 <= len(options) <= len(LETTERS):
                raise ValueError(f'{place}: "choices" has to be a list of 2 to {len(LETTERS)} texts, but it is {options!r}.')
            options = [str(option) for option in options]
            right = record.get("correct_choice_idx", record.get("answer"))
            labels = {key: str(record[key]) for key in ("kind", "category", "language") if key in record}
            picture = record.get("image", record.get("image_id"))
            found = [] if picture is None else [images.find(_coco(picture, record, images))]
            questions.append(
                Question(
                    str(record.get("question_id", number)),
                    ask(text_of(record, place, "question"), len(found)),
                    found,
                    right=(options[_index(right, options, place)],),
                    options=tuple(options),
                    labels=labels,
                )
            )
        return questions

    def judge(self, question: Question, answer: str) -> Verdict:
        chosen = chosen_option(answer, question.options)
        said = OTHER if chosen is None else LETTERS[chosen]
        return Verdict(float(chosen is not None and question.options[chosen] == question.right[0]), said)


def _coco(picture: object, record: dict, images: ImageFolder) -> str:
    """COCO's file name of a number, as A-OKVQA's official file gives it."""
    name = str(picture)
    if not name.isdigit() or images.find(name).is_file():
        return name
    plain = f"{int(name):012d}.jpg"
    return plain if images.find(plain).is_file() else f"COCO_{record.get('split', 'val')}2014_{plain}"


def _index(right: object, options: list[str], place: str) -> int:
    if isinstance(right, int) and not isinstance(right, bool) and 0 <= right < len(options):
        return right
    if isinstance(right, str):
        if right in options:
            return options.index(right)
        if len(right.strip()) == 1 and right.strip().upper() in LETTERS[: len(options)]:
            return LETTERS.index(right.strip().upper())
    raise ValueError(f"{place}: the right answer is {right!r}, which is none of {options} and no letter or number of one.")


def with_letters(question: Question, language: str) -> str:
    """The question with its options, as it is asked for a letter."""
    options = "\n".join(f"{letter}. {option}" for letter, option in zip(LETTERS, question.options, strict=False))
    return PROMPT[language].format(question=question.text, options=options)


def chosen_option(answer: str, options: tuple[str, ...] | list[str]) -> int | None:
    """Which option an answer names: the whole answer is one; a letter that stands by itself; the only option in it."""
    text = answer.strip()
    bare = text.rstrip(".。 ").casefold()
    for number, option in enumerate(options):
        if bare == option.strip().rstrip(".。 ").casefold():
            return number
    letters = LETTERS[: len(options)]
    if match := re.match(rf"\(?([{letters}])(?:[).:：,，、\s]|$)", text):
        return letters.index(match.group(1))
    if match := re.search(
        rf"(?:answer|option|choice|答案|选项|选)\W{{0,3}}(?:is\W{{0,2}}|是\W{{0,2}}|为)?\(?([{letters}])\b", text, re.IGNORECASE
    ):
        return letters.index(match.group(1).upper())
    found = [number for number, option in enumerate(options) if option.strip().casefold() in text.casefold()]
    return found[0] if len(found) == 1 else None
