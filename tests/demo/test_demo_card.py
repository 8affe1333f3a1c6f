"""What the page says of a model, from its card."""

import pytest

from demo.card import MAX_CHARACTERS, QUESTIONS, read_card
from demo.cli import DEFAULT_MODEL


@pytest.mark.parametrize(
    ("card", "knows"),
    [
        ("# Tiny\n\nIt sees **cats**. And dogs.", "It sees cats."),
        (
            "---\nlicense: mit\n---\n\n# T\n\n<!-- x. -->\n\n![a](b.png)\n\nA [model](https://x) of cats! More.",
            "A model of cats!",
        ),
        ("---\nmultimodal_vcla: {knows: {en: 'Only cats.'}}\n---\nText here.", "Only cats."),
        ("---\nmultimodal_vcla: {knows: [1]}\n---\nText here.", "Text here."),
        ("---\n: : :\n  - {\n---\nText here.", "Text here."),
        ("x" * 1000 + ".", "x" * (MAX_CHARACTERS - 1) + "…"),
        ("", ""),
    ],
)
def test_line_about_a_model(tmp_path, card, knows):
    (tmp_path / "README.md").write_text(card)
    assert read_card(tmp_path).knows["en"] == knows


def test_model_without_a_card_has_questions_that_fit_most(tmp_path):
    assert read_card(tmp_path).questions == QUESTIONS
    (tmp_path / "README.md").write_bytes(b"\xff\xfe")
    assert read_card(tmp_path).knows["en"] == ""


def test_shipped_model_says_what_it_does_not_know():
    card = read_card(DEFAULT_MODEL)
    assert "photo" in card.knows["en"] and "照片" in card.knows["zh"]
    assert len(card.questions["en"]) == len(card.questions["zh"]) == 4
