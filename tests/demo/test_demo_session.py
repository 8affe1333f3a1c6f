"""A chat and how it is answered, without a page."""

import threading

import pytest
from conftest import GREEDY, load_golden
from PIL import Image

from demo.session import Picture, Session, SharedModel, answer
from demo.texts import LANGUAGES, TEXTS, browser_language, context_line
from pipelines.generation import ChatModel
from pipelines.images import ImageError
from pipelines.visualcla import chat


@pytest.fixture(scope="module")
def model():
    return load_golden("merged")


@pytest.fixture
def picture(tmp_path):
    def make(colour: str) -> Picture:
        Image.new("RGB", (40, 30), colour).save(tmp_path / f"{colour}.png")
        return Picture.open(tmp_path / f"{colour}.png", tmp_path)

    return make


def run(model, session: Session) -> str:
    for turn in answer(ChatModel(model, model.processor), session, GREEDY):
        last = turn
    return last.answer


def test_answers_are_those_of_the_python_api(model, picture):
    session, history = Session(), []
    for question, pictures in (("What?", [picture("red"), picture("blue")]), ("And?", []), ("This?", [picture("green")])):
        session.ask(question, pictures)
        expected, _ = chat(model, [p.part.open() for p in pictures], question, history, GREEDY)
        assert run(model, session) == expected


def test_failed_turn_is_unknown_to_later_ones_and_keeps_its_numbers(model, picture):
    session = Session()
    session.ask("One?", [picture("red")])
    session.turns[-1].error = "No answer."
    session.ask("Two?", [picture("blue")])
    run(model, session)
    assert session.seen.numbers == [2]
    alone = Session()
    alone.ask("Two?", [picture("blue")])
    assert run(model, alone) == session.turns[-1].answer


def test_wish_to_stop_ends_the_answer_after_the_next_token(model, picture):
    session = Session()
    session.ask("What?", [picture("red")])
    for number, _ in enumerate(answer(ChatModel(model, model.processor), session, GREEDY)):
        session.wants_stop = number == 2
    assert len(session.seen.answer_ids) == 2


def test_asking_again_drops_what_came_after(picture):
    session = Session()
    shown = picture("red")
    for question in ("One?", "Two?", "Three?"):
        session.ask(question, [shown])
        session.turns[-1].answer = "Yes."
    session.ask_again(1, "Second?")
    assert [(turn.question, turn.answer, turn.pictures) for turn in session.turns] == [
        ("One?", "Yes.", [shown]),
        ("Second?", "", [shown]),
    ]


def test_sessions_share_nothing(picture):
    Session().ask("What?", [picture("red")])
    assert Session().turns == []


def test_preview_of_a_large_picture_is_small_and_the_model_still_gets_all_of_it(tmp_path):
    Image.effect_noise((3000, 600), 50).save(tmp_path / "wide.png")
    opened = Picture.open(tmp_path / "wide.png", tmp_path)
    assert opened.part.open().size == opened.part.size == (3000, 600)
    assert Image.open(opened.preview).size == (1024, 205)


def test_no_picture_is_refused(tmp_path):
    (tmp_path / "no.png").write_text("no picture")
    with pytest.raises(ImageError, match="no format that is read here"):
        Picture.open(tmp_path / "no.png", tmp_path)


def test_model_is_loaded_once_by_many_threads_and_again_after_a_failure():
    attempts = []

    def load():
        attempts.append(1)
        if len(attempts) == 1:
            raise MemoryError("too large")
        return "model"

    shared = SharedModel(load, "name")
    with pytest.raises(MemoryError, match="too large"):
        shared.get()
    assert not shared.is_loaded
    threads = [threading.Thread(target=shared.get) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert shared.get() == "model" and len(attempts) == 2


def test_context_line_names_pictures_and_cost(model, picture):
    session = Session()
    session.ask("What?", [picture("red"), picture("blue")])
    run(model, session)
    line = context_line("en", "tiny", session.seen)
    assert line == f"tiny · in the context: pictures 1, 2 (10 tokens) · {session.seen.num_tokens} of 2048 tokens used"


def test_both_languages_say_the_same_things():
    assert TEXTS.keys() == LANGUAGES.keys()
    assert TEXTS["en"].keys() == TEXTS["zh"].keys()
    for key, english in TEXTS["en"].items():
        assert english.count("{") == TEXTS["zh"][key].count("{"), key


@pytest.mark.parametrize(
    ("header", "language"), [("zh-CN,zh;q=0.9,en;q=0.8", "zh"), ("en-GB,en;q=0.9,zh;q=0.5", "en"), ("", "en"), ("fr", "en")]
)
def test_language_of_the_browser(header, language):
    assert browser_language(header) == language
