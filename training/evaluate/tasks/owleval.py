"""OwlEval: 82 questions on 50 pictures by ability, in English and in VisualCLA's Chinese translation; people judge."""

from pathlib import Path

from .base import ImageFolder, Question, Task, ask, records_of, text_of

ABILITIES = {
    "a": "instruction",
    "b": "visual",
    "c": "OCR",
    "d": "knowledge",
    "e": "reasoning",
    "f": "multi-turn",
}
"""Of the letters in the file, as the repository tells them."""


class OwlEval(Task):
    """`questions.jsonl` of {"image", "question_id", "question", "ability": "a,b", "category": ["single_turn"]}, or VisualCLA's
    `owl_test_zh_questions.json` of {"image", "question_id", "question", "type"}.

    Nobody but people scored it (A to D); `evaluate votes` makes a page for them. Questions of one picture marked "multi_turn" are a
    conversation in the original; the files hold each by itself, and so they are asked.
    """

    name = "owleval"
    title = "OwlEval"
    about = "OwlEval's questions.jsonl, or VisualCLA's owl_test_zh_questions.json; answers side by side, for people to judge"
    source = "X-PLUG/mPLUG-Owl, mPLUG-Owl/OwlEval; airaria/Visual-Chinese-LLaMA-Alpaca, examples"
    files = ("owl*questions*.json", "questions.jsonl")
    max_new_tokens = 256

    def read(self, path: Path, images: ImageFolder) -> list[Question]:
        questions = []
        for place, record in records_of(path):
            text = text_of(record, place, "question")
            letters = [letter.strip() for letter in str(record.get("ability", "")).split(",") if letter.strip()]
            if unknown := [letter for letter in letters if letter not in ABILITIES]:
                raise ValueError(f"{place}: unknown abilities {unknown}; OwlEval has {', '.join(ABILITIES)}.")
            turns = record.get("category", [])
            labels = {
                "ability": ",".join(ABILITIES[letter] for letter in letters) or str(record.get("type", "")),
                "turns": ",".join(map(str, turns if isinstance(turns, list) else [turns])),
                "language": language_of(text),
            }
            questions.append(
                Question(
                    text_of(record, place, "question_id"),
                    ask(text),
                    [images.find(text_of(record, place, "image"))],
                    labels={name: value for name, value in labels.items() if value},
                )
            )
        return questions


def language_of(text: str) -> str:
    """ "zh" where a text has Chinese characters, else "en"."""
    return "zh" if any("\u4e00" <= letter <= "\u9fff" for letter in text) else "en"
