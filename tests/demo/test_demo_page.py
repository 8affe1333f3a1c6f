"""The chat page in a browser, with a tiny model of random weights or with answers that the test writes itself."""

import base64
import io
import queue
import re
import struct
import threading
import zlib

import pytest
import torch
from chat_page_driver import EXAMPLES, GOLDEN, PATIENCE_MS, TINY_MODEL, Tab, camera_flags, chromium, served
from PIL import Image
from transformers import GenerationConfig

from demo.card import Card
from pipelines import load_model
from pipelines.generation import ChatModel

pytestmark = [
    pytest.mark.browser,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:gradio"),  # what it asks of pandas
]

GREEDY = GenerationConfig(do_sample=False, max_new_tokens=8, min_new_tokens=4)
ONE, OTHER = EXAMPLES / "four-shapes.png", EXAMPLES / "star-and-ring.png"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Its camera sees red on the left and blue on the right."""
    folder = tmp_path_factory.mktemp("camera")
    frame = Image.new("RGB", (480, 480), "blue")
    frame.paste("red", (0, 0, 240, 480))
    frame.save(folder / "frame.jpg")
    (folder / "camera.mjpeg").write_bytes((folder / "frame.jpg").read_bytes() * 5)
    with chromium(*camera_flags(folder / "camera.mjpeg")) as browser:
        yield browser


@pytest.fixture(scope="module")
def context(browser):
    return browser.new_context(viewport={"width": 1280, "height": 800}, reduced_motion="reduce", permissions=["camera"])


@pytest.fixture(scope="module")
def tiny():
    return ChatModel(*load_model(TINY_MODEL, dtype=torch.float32))


@pytest.fixture(scope="module")
def chat_page(browser, tiny, tmp_path_factory):
    """The page behind `address`."""
    from demo.models import Models
    from demo.session import SharedModel
    from demo.ui import ChatPage

    folder = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(folder))
        yield ChatPage(Models([SharedModel(lambda: tiny, "tiny", lambda _: GREEDY)]), folder)


@pytest.fixture(scope="module")
def address(chat_page):
    with served(chat_page) as address:
        yield address


@pytest.fixture(scope="module")
def kept(context, address):
    """The tab that most tests use, one after the other: opening the page is what takes longest."""
    return Tab(context, address)


@pytest.fixture
def tab(kept):
    kept.clear()
    return kept


@pytest.fixture(scope="module")
def stranger(browser, address):
    """A tab of somebody else, whose browser is Chinese."""
    return Tab(browser.new_context(locale="zh-CN"), address)


@pytest.fixture
def fresh(browser, address):
    """Opens tabs that nobody else uses, for tests that load the page anew; they are closed at the end."""
    contexts = []

    def opened(**kwargs) -> Tab:
        contexts.append(browser.new_context(reduced_motion="reduce", **kwargs))
        return Tab(contexts[-1], address)

    yield opened
    for context in contexts:
        context.close()


@pytest.fixture
def share(chat_page, monkeypatch):
    """Gives the page a model that is not loaded yet."""
    from demo.models import Models
    from demo.session import SharedModel

    return lambda load: monkeypatch.setattr(chat_page, "models", Models([SharedModel(load, "tiny", lambda _: GREEDY)]))


class Script:
    """Answers that a test writes word by word, in place of the model's.

    Attributes:
        words: what is still to be said; None ends an answer.
        asked: questions so far, with the number of their pictures.
        num_closed: how many answers have ended, in whatever way.
        session: of whoever asked last.
    """

    def __init__(self):
        self.words: queue.Queue[str | Exception | None] = queue.Queue()
        self.asked: list[tuple[str, int]] = []
        self.num_closed = 0
        self.session = None

    def __call__(self, model, session, config):
        turn = session.turns[-1]
        self.session = session
        self.asked.append((turn.question, len(turn.pictures)))
        try:
            while (word := self.words.get(timeout=PATIENCE_MS / 2000)) is not None:
                if isinstance(word, Exception):
                    raise word
                turn.answer += word
                yield turn
                if session.wants_stop:
                    return
        finally:
            self.num_closed += 1

    def say(self, *words: str | Exception) -> None:
        for word in words if isinstance(words[-1], Exception) else (*words, None):
            self.words.put(word)


@pytest.fixture
def script(monkeypatch):
    script = Script()
    monkeypatch.setattr("demo.answering.answer", script)
    yield script
    for _ in range(8):
        script.words.put(None)  # so that no answer is left waiting, and others behind it in the queue


def test_pictures_of_one_message_are_shown_numbered_and_counted(tab):
    assert tab.ask("What?", ONE, OTHER)
    assert re.search(r"pictures 1, 2 \(10 tokens\) · \d+ of 2048 tokens used", tab.context())
    shown = tab.page.locator("#chat figure")
    assert shown.all_inner_texts() == ["Picture 1", "Picture 2"]
    assert tab.page.evaluate("[...document.querySelectorAll('#chat figure img')].map(image => image.naturalWidth)") == [
        192,
        192,
    ]
    assert tab.ask("And?", GOLDEN / "images/shapes_rgba.png")
    assert "pictures 1, 2, 3 (15 tokens)" in tab.context()


def test_what_it_looks_at_shows_each_picture_with_its_share(tab):
    tab.ask("What?", ONE, OTHER)
    tab.wait_until(lambda: tab.page.locator("#looks figure").count() == 2)
    captions = tab.page.locator("#looks figcaption").all_inner_texts()
    shares = [int(re.fullmatch(rf"Picture {number} · (\d+)%", caption)[1]) for number, caption in enumerate(captions, 1)]
    assert len(shares) == 2 and 99 <= sum(shares) <= 101
    masks = "[...document.querySelectorAll('#looks img')].map(image => getComputedStyle(image).maskImage)"
    of_answer = tab.page.evaluate(masks)
    assert "".join(tab.page.locator("#looks label").all_text_contents()).split() == tab.last_answer().split()
    tab.page.locator("#looks label").first.hover()
    of_word = tab.page.evaluate(masks)
    assert all(before != after for before, after in zip(of_answer, of_word, strict=True))
    tab.page.locator("#looks input").first.check(force=True)
    tab.box.hover()
    assert tab.page.evaluate(masks) == of_word  # chosen, as a keyboard does it
    tab.ask("And now?", OTHER)
    tab.wait_until(lambda: tab.page.locator("#looks figure").count() == 3)
    tab.answers().first.click()
    tab.wait_until(lambda: tab.page.locator("#looks figure").count() == 2)
    tab.page.locator("#is_looking input").uncheck()
    tab.wait_until(lambda: tab.page.locator("#looks figure").count() == 0)


GIVE = """([selector, kind, base64]) => {
    const bytes = Uint8Array.from(atob(base64), character => character.charCodeAt(0));
    const data = new DataTransfer();
    data.items.add(new File([bytes], "picture.png", {type: "image/png"}));
    const given = kind === "paste" ? {clipboardData: data} : {dataTransfer: data};
    const event = kind === "paste" ? new ClipboardEvent(kind, {...given, bubbles: true, cancelable: true})
                                   : new DragEvent(kind, {...given, bubbles: true, cancelable: true});
    document.querySelector(selector).dispatchEvent(event);
}"""


@pytest.mark.parametrize("place", ["#box textarea", "#chat", "#title"])
@pytest.mark.parametrize("way", ["paste", "drop"])
def test_picture_is_pasted_or_dropped(tab, script, way, place):
    tab.box.click()
    tab.page.evaluate(GIVE, [place, way, base64.b64encode(ONE.read_bytes()).decode("ascii")])
    tab.wait_until(lambda: tab.attached() == 1)
    script.say("Yes.")
    tab.ask("This?")
    assert script.asked == [("This?", 1)]


def test_camera_picture_joins_the_message_and_is_not_mirrored(tab, script):
    tab.attach(ONE)
    tab.take_picture()
    script.say("Yes.")
    tab.ask("Both?")
    assert script.asked == [("Both?", 2)]
    colours = tab.page.evaluate(COLOURS, "#chat figure:nth-of-type(2) img")
    assert [max("rgb", key=dict(zip("rgb", colour, strict=True)).get) for colour in colours] == ["r", "b"]


COLOURS = """selector => {
    const image = document.querySelector(selector);
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
    const pen = canvas.getContext("2d");
    pen.drawImage(image, 0, 0);
    return [0.1, 0.9].map(x => [...pen.getImageData(x * canvas.width, canvas.height / 2, 1, 1).data].slice(0, 3));
}"""


def test_example_picture_is_asked_about_with_a_click(tab):
    tab.page.get_by_text("Describe the picture.").first.click()
    tab.wait_until(lambda: tab.answers().count() == 1)
    tab.wait()
    assert tab.questions()[-1] == "Describe the picture."
    assert tab.page.locator("#chat figure").count() == 1


def test_answer_is_streamed_and_stop_keeps_what_was_said(tab, script):
    tab.send("Tell me.")
    script.words.put("One ")
    tab.wait_until(lambda: tab.answers().count() == 1 and tab.last_answer() == "One")
    script.words.put("two ")
    tab.wait_until(lambda: tab.last_answer() == "One two")
    tab.page.locator("#box .stop-button").click()
    tab.wait_until(lambda: script.session.wants_stop)
    script.words.put("three")
    assert tab.wait() == "One two three"
    script.say("Again.")
    assert tab.ask("And?") == "Again."
    assert tab.answers().first.inner_text().strip() == "One two three"


def test_regenerate_asks_the_same_again_and_edit_asks_anew(tab, script):
    script.say("First.")
    tab.ask("What is it?", ONE)
    script.say("Second.")
    tab.ask("Sure?")
    script.say("Third.")
    tab.press("Retry")
    tab.wait_until(lambda: tab.last_answer() == "Third.")
    tab.wait()
    script.say("Fourth.")
    tab.edit("Really?")
    tab.wait_until(lambda: tab.last_answer() == "Fourth.")
    tab.wait()
    assert script.asked == [("What is it?", 1), ("Sure?", 0), ("Sure?", 0), ("Really?", 0)]
    assert tab.answers().count() == 2
    script.say("Fifth.")
    tab.page.locator("#chat [aria-label=Edit]").first.click()
    tab.page.locator("#chat textarea").fill("What is that?")
    tab.press("Submit")
    tab.wait_until(lambda: tab.answers().count() == 1 and tab.last_answer() == "Fifth.")
    assert script.asked[-1] == ("What is that?", 1)
    assert tab.page.locator("#chat figure").count() == 1


def test_edit_to_nothing_asks_the_default_question_about_a_picture_and_nothing_without_one(tab, script):
    script.say("First.")
    tab.ask("What is it?")
    tab.edit(" ")
    tab.page.locator(".toast-body", has_text="Write a question or add a picture first.").wait_for()
    script.say("Second.")
    tab.ask("And this?", ONE)
    script.say("Third.")
    tab.edit(" ")
    tab.wait_until(lambda: tab.last_answer() == "Third.")
    assert script.asked == [("What is it?", 0), ("And this?", 1), ("Describe the picture.", 1)]


def test_clear_empties_the_chat(tab, script):
    script.say("First.")
    tab.ask("What is it?", ONE)
    tab.page.locator("#clear").click()
    tab.wait_until(lambda: tab.answers().count() == 0)
    script.say("Second.")
    assert tab.ask("Anything?") == "Second."
    assert tab.questions() == ["Anything?"]


def test_clear_can_be_undone_until_a_new_chat_begins(tab, script):
    script.say("First.")
    tab.ask("What is it?", ONE)
    tab.page.locator("#clear").click()
    tab.wait_until(lambda: tab.answers().count() == 0)
    tab.page.locator("#undo").click()
    tab.wait_until(lambda: tab.answers().count() == 1)
    assert tab.last_answer() == "First." and tab.page.locator("#chat figure").count() == 1
    script.say("Second.")
    assert tab.ask("Sure?") == "Second."
    tab.page.locator("#clear").click()
    tab.page.locator("#undo").wait_for()
    script.say("Third.")
    tab.ask("Anew?")
    tab.page.locator("#undo").wait_for(state="hidden")


def test_picture_is_shown_large_on_a_click(tab, script):
    script.say("Yes.")
    tab.ask("This?", ONE)
    tab.page.locator("#chat figure img").click()
    large = tab.page.locator("#large img")
    large.wait_for()
    assert large.bounding_box()["width"] > 2 * tab.page.locator("#chat figure img").bounding_box()["width"]
    tab.page.keyboard.press("Escape")
    large.wait_for(state="hidden")


def test_page_says_what_the_model_knows_and_suggests_what_to_ask(tab, chat_page, script, monkeypatch):
    card = Card({"en": "Knows <shapes>.", "zh": "只认识图形。"}, {"en": ["How many?", "Where?"], "zh": ["多少？"]})
    monkeypatch.setattr(chat_page.models["tiny"], "card", card)
    script.say("First.")
    tab.ask("What is it?", ONE)
    script.say("Second.")
    tab.page.locator("#chat").get_by_role("button", name="How many?").click()
    tab.wait_until(lambda: script.asked[-1:] == [("How many?", 0)])
    tab.wait()
    tab.page.locator("#chat").get_by_role("button", name="Where?").wait_for()
    assert tab.page.locator("#chat").get_by_role("button", name="How many?").count() == 0


def test_two_browsers_share_no_picture_and_wait_for_each_other(tab, stranger, script):
    stranger.clear()
    tab.attach(ONE)
    tab.send("Mine?")
    tab.wait_until(lambda: script.asked == [("Mine?", 1)])
    stranger.attach(OTHER, GOLDEN / "images/stripes_gray.png")
    stranger.send("Yours?")
    stranger.page.locator("#chat").get_by_text("1/1").wait_for()
    script.say("To me.")
    assert tab.wait() == "To me."
    script.say("To you.")
    stranger.wait_until(lambda: stranger.answers().count() == 1)
    assert stranger.wait() == "To you."
    assert script.asked == [("Mine?", 1), ("Yours?", 2)]
    assert (tab.page.locator("#chat figure").count(), stranger.page.locator("#chat figure").count()) == (1, 2)
    assert "To you." not in tab.page.locator("#chat").inner_text()


def test_closed_tab_ends_its_answer(tab, context, address, script):
    closed = Tab(context, address)
    closed.send("Tell me.")
    script.words.put("One ")
    closed.wait_until(lambda: closed.answers().count() == 1)
    closed.page.close()

    def is_closed_after_one_more_word():
        script.words.put("more ")
        return script.num_closed == 1

    tab.wait_until(is_closed_after_one_more_word)  # nothing here said that the answer was at its end
    while not script.words.empty():
        script.words.get()
    script.say("For you.")
    assert tab.ask("Me?") == "For you."


def test_second_question_while_answering_stays_in_the_box(tab, script):
    tab.send("One?")
    tab.wait_until(lambda: script.asked == [("One?", 0)])
    tab.send("Two?")
    tab.page.locator(".toast-body", has_text="Wait for the answer, or stop it first.").wait_for()
    assert tab.box.input_value() == "Two?"
    script.say("Done.")
    assert tab.wait() == "Done."
    assert tab.questions() == ["One?"]


def bad_files():
    file = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(file, "PNG")
    whole = file.getvalue()
    header = b"IHDR" + struct.pack(">2I", 60_000, 60_000) + whole[24:29]
    return {
        "broken.png": b"this is no picture",
        "cut.png": whole[:900],
        "huge.png": whole[:12] + header + struct.pack(">I", zlib.crc32(header)) + whole[33:],
        "program.svg": b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
    }


def test_bad_pictures_are_refused_and_the_chat_goes_on(tab, script, tmp_path):
    script.say("Yes.")
    tab.ask("Here?")
    for name, data in bad_files().items():
        (tmp_path / name).write_bytes(data)
        tab.attach(tmp_path / name)
        tab.send("And this?")
        tab.page.locator(".toast-body", has_text=name).wait_for()
        assert tab.box.input_value() == "And this?"
        tab.wait_until(lambda: tab.attached() == 0)  # it leaves the box, the question stays
    tab.attach(ONE, tmp_path / "broken.png")
    tab.send("And these?")
    tab.wait_until(lambda: tab.attached() == 1)
    tab.detach()
    assert tab.questions() == ["Here?"]
    script.say("Good.")
    assert tab.ask("Without?") == "Good."


def test_odd_pictures_are_taken_and_shown(tab, tmp_path):
    grey = Image.radial_gradient("L").resize((60, 40))
    frames = {"save_all": True, "append_images": [grey.rotate(90), grey.rotate(180)]}
    grey.save(tmp_path / "animated.gif", **frames)
    grey.save(tmp_path / "animated.webp", **frames)
    grey.convert("CMYK").save(tmp_path / "cmyk.jpg")
    grey.convert("I;16").save(tmp_path / "deep.png")
    grey.convert("P").save(tmp_path / "palette.png", transparency=3)
    grey.convert("1").save(tmp_path / "scan.tiff")
    Image.new("RGB", (2000, 1), "red").save(tmp_path / "line.png")
    tab.ask("What?", *sorted(tmp_path.iterdir()))
    assert "pictures 1, 2, 3, 4, 5, 6, 7 " in tab.context()
    widths = "[...document.querySelectorAll('#chat figure img')].filter(image => image.naturalWidth > 0).length"
    tab.wait_until(lambda: tab.page.evaluate(widths) == 7)


def test_too_many_pictures_for_the_context_are_refused_and_old_ones_left_out(tab, tiny, monkeypatch, tmp_path):
    monkeypatch.setattr(tiny.model.config.get_text_config(), "max_position_embeddings", 80)
    files = []
    for number in range(8):
        files.append(tmp_path / f"{number}.png")
        Image.new("RGB", (32, 32), (number * 30, 0, 0)).save(files[-1])
    assert "takes" in tab.ask("?", *files) and "of a context of 80" in tab.last_answer()
    assert not tab.ask("?", files[0]).startswith("⚠")
    assert not tab.ask("?", files[1], files[2]).startswith("⚠")
    assert "left out because the context is full" in tab.context()


def test_failed_answer_is_said_and_the_chat_kept(tab, script):
    script.say("First.")
    tab.ask("One?", ONE)
    script.say(RuntimeError("CUDA out of memory. Tried to allocate 7 GiB"))
    assert "Out of memory" in tab.ask("Two?")
    script.say("Third.")
    tab.press("Retry")
    tab.wait_until(lambda: tab.last_answer() == "Third.")
    tab.wait()
    assert [question for question in tab.questions() if question.endswith("?")] == ["One?", "Two?"]


def test_model_that_does_not_load_is_told_and_tried_again(fresh, share, tiny):
    tab = fresh()
    is_mended, loaded = threading.Event(), []

    def load():
        if not is_mended.is_set():
            raise ValueError("'nowhere' is not a checkpoint: missing ['config.json'].")
        loaded.append(1)
        return tiny

    share(load)
    tab.reload()
    tab.page.locator("#context", has_text="could not be loaded: 'nowhere'").wait_for()
    assert "could not be loaded" in tab.ask("What?", ONE)
    is_mended.set()
    tab.press("Retry")
    tab.wait_until(lambda: not tab.last_answer().startswith("⚠"))
    tab.wait()
    assert len(loaded) == 1


def test_model_is_loaded_once_for_all(fresh, share, tiny):
    tab, stranger = fresh(), fresh(locale="zh-CN")
    attempts, may_go = [], threading.Event()

    def load():
        attempts.append(1)
        assert may_go.wait(2 * PATIENCE_MS / 1000)
        return tiny

    share(load)
    tab.reload()
    tab.page.locator("#context", has_text="Loading tiny…").wait_for()
    tab.send("What?")
    stranger.send("What?")
    queued = re.compile(r"\d/\d \|")
    tab.wait_until(lambda: any(asking.page.locator("#chat").get_by_text(queued).count() for asking in (tab, stranger)))
    may_go.set()
    for asking in (tab, stranger):
        asking.wait_until(lambda: asking.answers().count() == 1)  # noqa: B023
        assert not asking.wait().startswith("⚠")
    assert attempts == [1]


def test_answers_come_whole_without_streaming(tab, chat_page, monkeypatch, script):
    monkeypatch.setattr(chat_page, "is_streaming", False)
    tab.send("Tell me.")
    script.words.put("One ")
    tab.wait_until(lambda: script.session is not None and script.session.turns[-1].answer)
    assert tab.answers().count() == 0
    script.say("two.")
    tab.wait_until(lambda: tab.answers().count() == 1)
    assert tab.wait() == "One two."


def test_markdown_code_and_maths_are_rendered_and_html_does_not_run(tab, script):
    script.say(
        "**bold** and $x^2$ and \\(y\\)\n\n$$\\frac{a}{b}$$\n\n```python\nprint(1)\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n"
        "<img src=x onerror='window.hacked = 1'><script>window.hacked = 1</script> ![far](http://192.0.2.1/x.png)"
    )
    tab.ask("Show <img src=x onerror='window.hacked = 1'>")
    answer = tab.answers().last
    # The page draws in its own time, and may draw twice.
    tags = ("strong", ".katex-display", "pre code", "table", ".katex")
    tab.wait_until(lambda: [answer.locator(tag).count() for tag in tags] == [1, 1, 1, 1, 3])
    tab.page.evaluate(LATER_PICTURE)
    assert tab.page.evaluate("window.hacked") is None
    assert tab.foreign == []  # the far picture, too: the policy of the page forbids it


def test_form_in_a_message_posts_nowhere(context, address, script):
    tab = Tab(context, address)  # of its own: Playwright may wait for ever for a navigation that the policy stopped
    script.say("<form action='http://192.0.2.1/take' method='post'><input name='a' value='b'><button>More</button></form>Done.")
    tab.ask("A form?")
    tab.wait_until(
        lambda: tab.answers().last.locator("button", has_text="More").count() and not tab.page.locator("#chat form").count()
    )
    tab.answers().last.locator("button", has_text="More").click()
    before = tab.page.url
    stopped_by = tab.page.evaluate("""() => new Promise(stopped => {
        document.addEventListener("securitypolicyviolation", event => stopped(event.effectiveDirective));
        const form = document.body.appendChild(document.createElement('form'));
        form.action = 'http://192.0.2.1/take';
        form.method = 'post';
        form.submit();
    })""")
    assert (stopped_by, tab.page.url, tab.foreign) == ("form-action", before, [])
    tab.page.close()


def test_question_of_endless_length_stays_in_the_box(tab, script):
    tab.send("a" * 100_001)
    tab.page.locator(".toast-body", has_text="at most 100000").wait_for()
    assert len(tab.box.input_value()) == 100_001
    tab.box.fill("")
    script.say("Yes.")
    assert tab.ask("Short?") == "Yes."


def test_refused_request_leaves_the_chat_usable(chat_page, script):
    """What writes the answer is a request of its own: if that one is refused, the next question is answered all the same."""
    from demo.session import Session

    session = Session(chat_id="one")
    chat_page.ask({"text": "One?", "files": []}, session)
    assert chat_page.settle(session)[0]["submit_btn"] is True
    chat_page.ask({"text": "Two?", "files": []}, session)
    script.say("Yes.")
    list(chat_page.write(session, True, 1.0, 1.0, 50, 1.0, 8))
    assert [turn.answer for turn in session.turns] == ["", "Yes."]
    assert "submit_btn" not in chat_page.settle(session)[0]


# The pictures that were there before have failed by then.
LATER_PICTURE = """() => new Promise(failed => {
    const picture = new Image();
    picture.onerror = failed;
    picture.src = "x?later";
})"""


def test_page_speaks_the_browsers_language_and_changes_it(stranger):
    stranger.clear()
    stranger.page.get_by_placeholder("请就图片提问").wait_for()
    stranger.ask("是吗？", ONE)
    stranger.page.locator("#looks figcaption", has_text="图片 1 · 100%").wait_for()
    assert stranger.page.locator("#chat figcaption").inner_text() == "图片 1"
    for name in ("复制", "编辑", "重新回答", "添加图片"):  # gradio's own controls
        stranger.page.locator(f"[aria-label='{name}']").first.wait_for()
    stranger.page.get_by_text("English").click()
    stranger.page.get_by_placeholder("Ask about your pictures").wait_for()
    stranger.page.locator("#chat figcaption", has_text="Picture 1").wait_for()
    stranger.page.locator("#looks figcaption", has_text="Picture 1 · 100%").wait_for()
    assert stranger.page.locator("#save").inner_text() == "Save chat"
    for name in ("Copy", "Edit", "Retry", "Add pictures"):
        stranger.page.locator(f"[aria-label='{name}']").first.wait_for()
    stranger.page.get_by_text("中文").click()
    stranger.page.get_by_placeholder("请就图片提问").wait_for()


def test_settings_reach_the_model(tab, monkeypatch):
    configs = []

    def answer(model, session, config):
        configs.append(config)
        session.turns[-1].answer = "Yes."
        yield session.turns[-1]

    monkeypatch.setattr("demo.answering.answer", answer)
    tab.ask("One?")
    tab.page.locator("#settings").get_by_text("Settings").click()
    tab.page.get_by_label("number input for Longest answer, in tokens").fill("3")
    tab.page.get_by_label("number input for Temperature").fill("0.3")
    tab.page.get_by_label("Sample (off: always the likeliest token)").check()
    tab.box.click()
    tab.ask("Two?")
    assert [(config.do_sample, config.max_new_tokens) for config in configs] == [(False, 8), (True, 3)]
    assert configs[1].temperature == 0.3


def test_saved_chat_is_whole_and_runs_nothing(tab, browser, script, tmp_path):
    script.say("It is $x^2$ <script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>")
    tab.ask("What <b onclick='x()'>is</b> it?", ONE)
    with tab.page.expect_download() as download:
        tab.page.locator("#save").click()
    assert download.value.suggested_filename == "chat.html"
    download.value.save_as(tmp_path / "chat.html")
    context = browser.new_context(offline=True)
    page, asked = context.new_page(), []
    page.on("request", lambda request: asked.append(request.url))
    page.goto((tmp_path / "chat.html").as_uri())
    assert page.evaluate("[window.hacked, document.querySelector('img').naturalWidth]") == [None, 192]
    assert page.locator("article math msup").count() == 1
    assert page.locator("[onclick], [onerror], script").count() == 0
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []


def test_saved_chat_has_the_maps(tab, browser, tmp_path):
    tab.page.locator("#is_looking input").check()
    tab.ask("What?", ONE, OTHER)
    with tab.page.expect_download() as download:
        tab.page.locator("#save").click()
    download.value.save_as(tmp_path / "chat.html")
    page = browser.new_context(offline=True).new_page()
    page.goto((tmp_path / "chat.html").as_uri())
    page.get_by_text("What it looked at").click()
    shown = page.locator(".looked img").first
    before = shown.evaluate("image => getComputedStyle(image).maskImage")
    assert before.startswith('url("data:image/png')
    page.locator(".looked label").first.hover()
    assert shown.evaluate("image => getComputedStyle(image).maskImage") != before


def test_nothing_was_asked_of_other_machines_and_no_script_failed(kept):
    """Over all that the tests above did in this tab."""
    assert kept.foreign == [] and kept.errors == []
