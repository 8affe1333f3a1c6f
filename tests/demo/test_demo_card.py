"""What the page says of a model, from its card."""

import pytest

from demo.card import MAX_CHARACTERS, QUESTIONS, read_card
from demo.cli import DEFAULT_MODEL
from demo.foreign import KINDS
from demo.grammar import LANGUAGES, Question, answer, word
from demo.scenes import COLOURS, SHAPES, Scene

FOREIGN = next(kind for kinds in KINDS.values() for kind in kinds)


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


def test_suggestions_fit_the_last_answer():
    card = read_card(DEFAULT_MODEL)
    told = "Top left: yellow circle; top right: green star."
    assert card.suggest("en", {"Describe the picture."}, told) == [
        "Where is the yellow circle?",
        "How many things are there?",
        "Is there a red thing?",
    ]
    assert card.suggest("en", {"Where's the yellow circle?"}, told)[1] == "Where is the green star?"
    assert "黄色圆形在哪里？" in card.suggest("zh", set(), "左上角：黄色圆形；右上角：绿色星形。")
    assert not any("{" in question for question in card.suggest("en", set(), "Yes."))
    for language in LANGUAGES:
        refused = answer(Question("describe"), [Scene((), foreign=FOREIGN)], language)
        assert refused and card.suggest("en", set(), refused) == []
        words = card.words[language]
        assert words == {
            "colour": [word(each, language) for each in COLOURS],
            "shape": [word(each, language) for each in SHAPES],
        }


def test_slots_without_words_suggest_nothing(tmp_path):
    (tmp_path / "README.md").write_text(
        "---\nmultimodal_vcla: {questions: {en: ['A {b}?', '} {', 'C?']}, words: {en: [1]}}\n---\n"
    )
    assert read_card(tmp_path).suggest("en", {"C?"}, "b") == ["} {"]
