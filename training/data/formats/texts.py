"""Instructions without pictures: Dolly-15k, Alpaca-GPT4, Baize."""

import random
from typing import Any

from ..rows import Row, clean, make_row
from .base import Format, Skipped, need


class Alpaca(Format):
    name = "alpaca"
    help = "Alpaca and Alpaca-GPT4: {'instruction', 'input', 'output'}; a given input stands below the instruction"
    keys = ("instruction", "input", "output")

    def row(self, record: Any, rng: random.Random) -> Row:
        task, given, answer = self.keys
        question, right = map(clean, need(record, task, answer))
        more = clean(record.get(given) or "")
        if not right:
            raise Skipped("no answer")
        return make_row([(f"{question}\n\n{more}".strip(), right)], [])


class Dolly(Alpaca):
    name = "dolly"
    help = "Dolly-15k: {'instruction', 'context', 'response'}; a given context stands below the instruction"
    keys = ("instruction", "context", "response")


class Baize(Format):
    name = "baize"
    help = "Baize (quora, ...): {'topic', 'input': '... [|Human|] ... [|AI|] ...'}, all turns"

    def row(self, record: Any, rng: random.Random) -> Row:
        (text,) = need(record, "input")
        pairs = []
        for piece in text.split("[|Human|]")[1:]:
            question, *answers = piece.split("[|AI|]")
            if not answers and not question.strip():
                continue  # the file ends its conversations with an empty question
            if len(answers) != 1 or not question.strip() or not answers[0].strip():
                raise Skipped("a question without exactly one answer")
            # Line ends stay: Multimodal-GPT deletes them, which joins words.
            pairs.append((clean(question), clean(answers[0])))
        if not pairs:
            raise Skipped("no question with an answer")
        return make_row(pairs, [])
