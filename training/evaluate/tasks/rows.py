"""Your own rows, in the format of training: the last answer of a row is the right one."""

import re
import unicodedata
from pathlib import Path

from .base import ImageFolder, Question, Task, Verdict, expects, yes_or_no


class Rows(Task):
    """Rows of training (docs/data.md); `meta` may hold "kind", "language" and other short labels, which scores are broken down by.

    An answer is right when it is the row's last one, letter case, punctuation and spaces aside.
    """

    name = "rows"
    title = "Rows"
    about = "your own rows in the format of training (docs/data.md), such as those of 'python -m demo rows'; exact answers"
    source = "the row format of this project"
    files = ("*rows*.jsonl", "*rows*.json", "*.parquet")
    max_new_tokens = 96

    def read(self, path: Path, images: ImageFolder) -> list[Question]:
        from training.data.files import RowFile
        from training.data.rows import content_items

        file = RowFile(path)
        questions = []
        for number in range(len(file)):
            row, place = file[number], file.records.place(number)
            if isinstance(row, Exception):
                raise row
            messages = row["messages"]
            if len(messages) < 2 or messages[-1]["role"] != "assistant":
                raise ValueError(f"{place}: the last message has to be the right answer, of the role 'assistant'.")
            right = "".join(item.get("text", "") for item in content_items(messages[-1]))
            later = sum(item["type"] == "image" for item in content_items(messages[-1]))
            if later:
                raise ValueError(f"{place}: the answer holds a picture.")
            asked = [{"role": each["role"], "content": content_items(each)} for each in messages[:-1]]
            questions.append(
                Question(
                    str(row.get("id", number + 1)),
                    asked,
                    list(row.get("images", ())),
                    right=(right,),
                    labels={key: str(value) for key, value in (row.get("meta") or {}).items() if isinstance(value, (str, int))},
                    expects=expects(right),
                )
            )
        return questions

    def judge(self, question: Question, answer: str) -> Verdict:
        said = yes_or_no(answer) if question.expects else ""
        return Verdict(float(plain(answer) == plain(question.right[0])), said)


def plain(text: str) -> str:
    """Without case, punctuation and spaces."""
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", text).casefold())
