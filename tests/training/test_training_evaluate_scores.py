"""Scorers against the official ones: expected values were computed by those, on the same answers."""

import pytest
from PIL import Image

from training.evaluate.figures import mean, share
from training.evaluate.tasks import choice, mme, pope, svt, vqa
from training.evaluate.tasks.base import ImageFolder, Question, Verdict, ask, expects, yes_or_no
from training.evaluate.tasks.captions import bleu, cider

# facebookresearch/mmf, pythia/tasks/processors.py (commit c46b3b3), in the copy of lmms-eval 0.7.3.
NORMALISED = {
    "Two dogs.": "2 dogs",
    "a red, green and blue flag": "red green and blue flag",
    "don't know": "don't know",
    "dont know": "don't know",
    "It's 1,000 feet": "it 's 1000 feet",
    "3.5 m": "3.5 m",
    "The man's hat": "man 's hat",
    "9:30 am": "9:30 am",
    "ice-cream (vanilla)": "ice cream vanilla",
    "none": "0",
    "U.S.A.": "usa",
    "whos there": "who's there",
    "  an  Apple\n": "apple",
    "black/white": "black white",
    "couldn'tve": "couldn't've",
    "yall'll": "y'all'll",
    "$5.00": "$5.00",
    "it is a cat. or dog": "it is cat or dog",
}


@pytest.mark.parametrize("answer", NORMALISED)
def test_vqa_normalises_as_the_official_processor(answer):
    assert vqa.normalised(answer) == NORMALISED[answer]


def test_vqa_agreement_leaves_one_person_out_at_a_time():
    right = ["red"] * 2 + ["blue"] * 8
    # of the ten, two are left out with one other "red" (1/3), eight with two others (2/3)
    assert vqa.agreement("red", right) == pytest.approx((2 * 1 / 3 + 8 * 2 / 3) / 10)
    assert vqa.agreement("blue", right) == 1
    assert vqa.agreement("green", right) == 0
    assert vqa.agreement("2", ["two"]) == 1


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("Yes, there is a dog.", "yes"),
        ("No.", "no"),
        ("There is no dog in it.", "no"),
        ("I do not see one. Yes.", "no"),
        ("no, it is not", "no"),
        ("Nothing of the kind", "yes"),  # the official script knows three words
        ("Yes. It is not large.", "yes"),  # and reads one sentence
        ("", "yes"),
    ],
)
def test_pope_reads_answers_as_the_official_script(answer, said):
    assert pope.official(answer) == said


def test_pope_figures():
    task = pope.Pope()
    wanted = ["yes", "yes", "yes", "no", "no", "no"]
    answers = ["Yes", "yes", "No", "No, none", "Yes", "Yes"]
    questions = [Question(str(n), ask("?"), [], (want,), expects=want) for n, want in enumerate(wanted)]
    verdicts = [task.judge(*pair) for pair in zip(questions, answers, strict=True)]
    figures = {name: figure.value for name, figure in task.figures(questions, answers, verdicts).items()}
    assert figures == pytest.approx({"accuracy": 3 / 6, "precision": 2 / 4, "recall": 2 / 3, "F1": 4 / 7, "yes-ratio": 4 / 6})


def test_mme_counts_pictures_with_both_right():
    task = mme.Mme()
    rows = [("count/a", "yes", "Yes"), ("count/a", "no", "No."), ("count/b", "yes", "yes"), ("count/b", "no", "Yes, so"), ]  # fmt: skip
    questions = [
        Question(f"{pair}/{n}", ask("?"), [], (want,), labels={"subtask": "count"}, expects=want, pair=pair)
        for n, (pair, want, _) in enumerate(rows)
    ]
    answers = [answer for _, _, answer in rows]
    verdicts = [task.judge(*pair) for pair in zip(questions, answers, strict=True)]
    figures = {name: figure.value for name, figure in task.figures(questions, answers, verdicts).items()}
    assert figures["accuracy"] == 0.75 and figures["accuracy+"] == 0.5
    assert figures["count (of 200)"] == figures["perception (of 200)"] == 125


@pytest.mark.parametrize(
    ("answer", "said"), [("Yes", "yes"), ("The dog is not there", "other"), (" no", "no"), ("Note", "no"), ("", "other")]
)
def test_mme_reads_four_characters(answer, said):
    assert mme.official(answer) == said


def test_cider_and_bleu_are_those_of_coco_caption():
    """pycocoevalcap 1.2, on the same words."""
    answers = ["a red square on a white ground", "two dogs play in the snow", "a man rides a horse"]
    right = [
        ["a red square on white", "the square is red"],
        ["dogs playing in snow", "two dogs in the snow play"],
        ["a man is riding a brown horse", "a horse with a man"],
    ]
    assert sum(cider(answers, right)) / 3 == pytest.approx(2.9977150111102833, abs=1e-9)
    assert bleu(answers, right) == pytest.approx(0.3333333333069446, abs=1e-6)
    assert bleu(["nothing of it"], [["a cat"]]) == 0


OPTIONS = ("a red car", "a blue car", "a bicycle")


@pytest.mark.parametrize(
    ("answer", "chosen"),
    [
        ("B", 1),
        ("(C)", 2),
        ("b", None),
        ("A. a red car", 0),
        ("A blue car.", 1),
        ("The answer is C.", 2),
        ("答案是B", 1),
        ("I see a bicycle there", 2),
        ("a red car and a blue car", None),
        ("", None),
    ],
)
def test_which_option_an_answer_names(answer, chosen):
    assert choice.chosen_option(answer, OPTIONS) == chosen


@pytest.mark.parametrize(
    ("text", "said", "expected"),
    [
        ("A red thing? No.", "no", "no"),
        ("Yes, there is one.", "yes", "yes"),
        ("红色圆形？没有。", "no", "no"),
        ("有。", "yes", "yes"),
        ("图中有三个圆形。", "other", None),
        ("I see no picture.", "no", None),
        ("Red.", "other", None),
        ("Nobody knows.", "other", None),
    ],
)
def test_yes_and_no_in_both_languages(text, said, expected):
    assert (yes_or_no(text), expects(text)) == (said, expected)


def test_confidence_intervals():
    """Wilson's interval of 10 of 10 begins at 1 / (1 + z^2 / 10); that of nothing is none."""
    figure = share(10, 10)
    assert (figure.low, figure.high) == (pytest.approx(0.7224672), pytest.approx(1))
    assert mean([1, 0, 1, 1]).low == share(3, 4).low
    assert mean([0.5, 0.25]).low >= 0 and mean([]).low is None


def test_answer_that_nobody_can_score_has_no_figure():
    from training.evaluate.tasks.owleval import OwlEval

    assert OwlEval().figures([], [], [Verdict()]) == {}


SVT = """<?xml version="1.0"?><tagset><image><imageName>img/1.jpg</imageName><taggedRectangles>
<taggedRectangle height="10" width="20" x="-2" y="5"><tag>HOTEL</tag></taggedRectangle>
<taggedRectangle height="4" width="6" x="30" y="8"><tag>Joe&apos;s</tag></taggedRectangle>
</taggedRectangles></image></tagset>"""


def test_words_of_svt_are_cut_out_and_found_in_answers(tmp_path):
    (tmp_path / "img").mkdir()
    Image.new("RGB", (40, 30)).save(tmp_path / "img" / "1.jpg")
    (tmp_path / "test.xml").write_text(SVT)
    task = svt.Svt()
    questions = task.read(tmp_path / "test.xml", ImageFolder(tmp_path))
    assert [question.images[0].size for question in questions] == [(18, 10), (6, 4)]
    answers = ['The word is "Hotel".', "JOES"]
    verdicts = [task.judge(*each) for each in zip(questions, answers, strict=True)]
    figures = task.figures(questions, answers, verdicts)
    assert [figures[name].value for name in ("word accuracy", "the word alone")] == [1, 0.5]
    assert task.judge(questions[0], "hotels").score == task.judge(questions[0], "").score == 0


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("<tagset>", "no XML that can be read"),
        ("<tagset/>", "holds no images"),
        (SVT.replace('x="30"', 'x="40"'), "rectangle 2 lies outside of its picture of 40 x 30"),
        (SVT.replace('width="6"', ""), "rectangle 2 has no x, y, width and height"),
        (SVT.replace("HOTEL", "!"), "'!' has no letter and no digit"),
    ],
)
def test_wrong_file_of_svt_is_one_line(tmp_path, text, named):
    (tmp_path / "img").mkdir()
    Image.new("RGB", (40, 30)).save(tmp_path / "img" / "1.jpg")
    (tmp_path / "test.xml").write_text(text)
    with pytest.raises(ValueError, match=named):
        svt.Svt().read(tmp_path / "test.xml", ImageFolder(tmp_path))
