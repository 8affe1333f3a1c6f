"""The page itself: gradio's components and what happens when they are used. The only file of the room that knows gradio.

A tab's `Session` is the one home of its chat. Handlers change it in place and return what is to be seen; of what the
browser sends back about the chat only the position of a message is read.
"""

import copy
import html
import logging
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import gradio as gr
from starlette.middleware import Middleware

from pipelines.images import MAX_BYTES, ImageError

from .card import Card
from .cli import one_line
from .guard import Guard
from .kept import revive, snapshot
from .looking import find_looks, remember, shown
from .messages import address, messages
from .session import Picture, Session, SharedModel, Turn, answer
from .texts import EXAMPLES, LANGUAGES, TEXTS, browser_language, context_line

if TYPE_CHECKING:
    from transformers import GenerationConfig

logger = logging.getLogger(__name__)

TITLE = "Multimodal VCLA"
EXAMPLE_FOLDER = Path(__file__).parent / "examples"
SLIDERS = {  # of the sampling settings: least, most, step, and where it stands when the model's configuration is silent
    "temperature": (0.05, 2.0, 0.05, 1.0),
    "top_p": (0.05, 1.0, 0.05, 1.0),
    "top_k": (1, 200, 1, 50),
    "repetition_penalty": (1.0, 2.0, 0.05, 1.0),
    "max_new_tokens": (1, 2048, 1, 512),
}
ONLY_SAMPLING = ("temperature", "top_p", "top_k")
LATEX = [
    {"left": "$$", "right": "$$", "display": True},
    {"left": "\\[", "right": "\\]", "display": True},
    {"left": "\\(", "right": "\\)", "display": False},
    {"left": "$", "right": "$", "display": False},
]
SAID = ("away", "back", "unkept", "absent", "denied", "occupied", "insecure")  # by the browser's scripts
MAX_CHARACTERS = 100_000  # of a question
KEPT = Path(__file__).with_name("kept.js")
CSS, MAPS_CSS = (Path(__file__).with_name(name) for name in ("page.css", "maps.css"))
SCRIPT = Path(__file__).with_name("page.js")
THEME = gr.themes.Soft(primary_hue="indigo", neutral_hue="slate", font=["system-ui", "sans-serif"], font_mono=["monospace"])
AT_ONCE = {"concurrency_limit": None, "show_progress": "hidden"}  # but through the queue, or gradio would swallow the warnings
IDLE = {"submit_btn": True, "stop_btn": False}
ANSWERING = {"submit_btn": False, "stop_btn": True}


class ChatPage:
    """The page and its handlers.

    Args:
        shared: the model.
        defaults: how it answers unless told otherwise; called when the model is there.
        folder: where previews and saved chats go.
        is_streaming: show answers while they are written.
        card: what the model says of itself.
        num_at_once: how many answers the model can write at the same time.
    """

    def __init__(
        self,
        shared: SharedModel,
        defaults: "Callable[[], GenerationConfig]",
        folder: Path,
        is_streaming: bool = True,
        card: Card | None = None,
        num_at_once: int = 1,
    ):
        self.shared, self.defaults, self.is_streaming = shared, defaults, is_streaming
        self.card = card or Card()
        self.previews, self.chats = folder / "pictures", folder / "chats"
        self.previews.mkdir(parents=True, exist_ok=True)
        self.worded: list[tuple[Any, dict[str, str]]] = []
        self.blocks = self._build(num_at_once)

    def _build(self, num_at_once: int) -> gr.Blocks:
        queue = {"concurrency_id": "model", "concurrency_limit": num_at_once}
        with gr.Blocks(
            title=TITLE, fill_height=True, fill_width=True, analytics_enabled=False, delete_cache=(3600, 86400)
        ) as blocks:
            session = gr.State(Session())
            with gr.Row(equal_height=True):
                gr.Markdown(f"### {TITLE}", elem_id="title")
                chats = gr.HTML(self._chats("en"), elem_id="chats")
                choices = [(name, language) for language, name in LANGUAGES.items()]
                language = gr.Radio(choices, value="en", show_label=False, container=False, elem_id="language")
            knows = gr.HTML(self._knows("en"), elem_id="knows", visible=bool(self.card.knows.get("en")))
            with gr.Row(equal_height=False, scale=1):
                with gr.Column(scale=5, min_width=320):
                    chat = self._put(
                        gr.Chatbot(
                            show_label=False,
                            height=f"calc(100vh - {21 if any(self.card.knows.values()) else 17.5}rem)",
                            min_height=320,
                            editable="user",
                            latex_delimiters=LATEX,
                            allow_tags=False,
                            buttons=["copy"],
                            group_consecutive_messages=False,
                            elem_id="chat",
                        ),
                        placeholder="placeholder",
                    )
                    context = gr.HTML(elem_id="context")
                    box = self._put(
                        gr.MultimodalTextbox(
                            file_types=["image"],
                            file_count="multiple",
                            show_label=False,
                            max_plain_text_length=1_000_000,
                            autofocus=True,
                            elem_id="box",
                        ),
                        placeholder="question",
                    )
                with gr.Column(scale=2, min_width=300):
                    is_looking = self._put(gr.Checkbox(True, container=False, elem_id="is_looking"), label="is looking")
                    looks = gr.HTML(elem_id="looks", visible=False)
                    note = gr.Markdown(elem_id="note", visible=False)
                    with self._put(gr.Accordion(open=False, elem_id="camera"), label="camera"):
                        camera = gr.Image(
                            sources=["webcam"],
                            webcam_options=gr.WebcamOptions(mirror=False),
                            type="filepath",
                            format="png",
                            show_label=False,
                            buttons=[],
                        )
                    with self._put(gr.Accordion(open=False, elem_id="settings"), label="settings"):
                        settings = [self._put(gr.Checkbox(True), label="do_sample")]
                        settings += [
                            self._put(gr.Slider(*limits[:2], limits[3], step=limits[2]), label=name)
                            for name, limits in SLIDERS.items()
                        ]
                    with gr.Row():
                        save = self._put(gr.Button(size="sm", min_width=80, elem_id="save"), value="save")
                        clear = self._put(gr.Button(size="sm", min_width=80, elem_id="clear"), value="clear")
                        undo = self._put(gr.Button(size="sm", min_width=80, elem_id="undo", visible=False), value="undo")
                    saved = gr.DownloadButton(elem_id="download")
            # What the browser's scripts and the server hand each other.
            kept, files = gr.JSON(visible="hidden"), gr.File(file_count="multiple", visible="hidden")
            opener = gr.Button(visible="hidden", elem_id="open")

            worded = [component for component, _ in self.worded]
            look = {"fn": self.look, "inputs": [session, is_looking], "outputs": [looks, note, context]}
            opened = [chat, context, looks, note, undo]
            blocks.load(
                self.start,
                [kept, files, session],
                [session, language, box, *opened, chats, knows, *worded],
                js=KEPT.read_text(encoding="utf-8"),
            ).then(None, js="() => window.kept.begin()").then(
                self.wait_for_model, session, [context, is_looking, *settings], concurrency_limit=None
            ).then(**look, show_progress="hidden", **queue)
            opener.click(self.open, [kept, files, session], opened, js="() => window.kept.open()", queue=False).then(
                None, js="() => window.kept.begin()"
            ).then(**look, show_progress="hidden", **queue)
            kept.change(None, kept, js="(chat) => window.kept.save(chat)")
            language.input(self.relabel, [language, session], [chat, context, chats, knows, *worded], queue=False).then(
                None, language, js="(language) => window.kept.speak(language)"
            ).then(**look, show_progress="hidden", **queue)
            asked = [
                box.submit(self.ask, [box, session], [chat, box], **AT_ONCE),
                chat.example_select(self.ask_example, session, [chat, box], **AT_ONCE),
                chat.option_select(self.ask_suggestion, session, [chat, box], **AT_ONCE),
                chat.retry(self.ask_again, session, [chat, box], **AT_ONCE),
                chat.edit(self.ask_edited, session, [chat, box], **AT_ONCE),
            ]
            for event in asked:
                event.then(self._snapshot, session, kept, **AT_ONCE)
                event.then(self.write, [session, *settings], [chat, context, box, undo], show_progress_on=chat, **queue).then(
                    self.settle, session, [box, kept], **AT_ONCE
                ).then(**look, show_progress="hidden", **queue)
            box.stop(self.stop, session, queue=False)
            # The end of an answer may be on its way to the browser, and be drawn over the empty chat.
            gr.on([clear.click, chat.clear], self.clear, session, [chat, context, looks, note, undo], queue=False).then(
                self._messages, session, chat, **AT_ONCE
            ).then(self._snapshot, session, kept, **AT_ONCE)
            gr.on([clear.click, chat.clear], None, js="() => window.kept.drop()")  # at once, before a reload
            undo.click(self.undo, session, [chat, context, undo], queue=False).then(self._snapshot, session, kept, **AT_ONCE)
            chat.select(self.look_at, [session, is_looking], look["outputs"], show_progress="hidden", **queue)
            is_looking.input(**look, **queue)
            camera.input(self.attach, [camera, box], [camera, box], queue=False)
            save.click(self.save, [session, is_looking], saved, **queue).then(
                None, js="() => document.querySelector('#download').click()"
            )
        return blocks

    def _put(self, component, **words: str):
        """Remember which words of `TEXTS` a component shows, and in which of its properties."""
        self.worded.append((component, words))
        for name, key in words.items():
            setattr(component, name, TEXTS["en"][key].replace("{model}", self.shared.name))
        return component

    def launch(self, host: str, port: int | None, is_shared: bool, opens_browser: bool) -> str:
        """Serve the page from a thread of its own.

        Returns:
            Its address.

        Raises:
            OSError: the port is taken.
        """
        self.blocks.queue(api_open=False)
        _, local_url, share_url = self.blocks.launch(
            server_name=host,
            server_port=port,
            share=is_shared,
            inbrowser=opens_browser,
            prevent_thread_lock=True,
            quiet=True,
            max_file_size=MAX_BYTES,
            enable_monitoring=False,
            footer_links=[],
            theme=THEME,
            css_paths=[CSS, MAPS_CSS],
            js=SCRIPT.read_text(encoding="utf-8"),
            app_kwargs={"middleware": [Middleware(Guard, hosts=lambda: [host, urlsplit(self.blocks.share_url or "").netloc])]},
        )
        return share_url or local_url

    # --- a tab and its words

    def start(self, kept: dict[str, Any] | None, files: list[str] | None, session: Session, request: gr.Request):
        """A tab begins, or begins again, with the chat that its browser kept."""
        kept = kept or {}
        language = kept.get("language")
        session.language = language if language in LANGUAGES else browser_language(request.headers.get("accept-language", ""))
        chat, _, *rest = self.open(kept, files, session)
        context = TEXTS[session.language]["loading"].format(model=html.escape(self.shared.name))
        box = {"text": str(kept["draft"]), "files": []} if kept.get("draft") else gr.skip()
        return [
            *[session, session.language, box, chat, context, *rest, self._chats(session.language)],
            *[self._knows(session.language), *self._words(session.language)],
        ]

    def open(self, kept: dict[str, Any] | None, files: list[str] | None, session: Session):
        """The chat that the browser hands over takes the place of the one in the tab."""
        kept, texts = kept or {}, TEXTS[session.language]
        turns, num_lost = revive(kept, files or [], self._open, texts["interrupted"])
        if num_lost:
            gr.Warning(texts["lost pictures"].format(number=num_lost))
        session.open(str(kept.get("id") or secrets.token_urlsafe(16)), turns)
        return self._messages(session), self._context(session), _hidden(), _hidden(), _hidden()

    def _snapshot(self, session: Session) -> dict[str, Any]:
        return snapshot(session, address)

    def wait_for_model(self, session: Session):
        """Says that the model is there, with its settings, or why it is not."""
        try:
            chat = self.shared.get()
        except Exception as error:
            return [f"⚠️ {html.escape(self._failure(session, error))}", *[gr.skip()] * (2 + len(SLIDERS))]
        config = self.defaults()
        values = {name: getattr(config, name) for name in SLIDERS}
        is_quick = chat.pipeline is not None and (chat.model.device.type != "cpu" or chat.model.num_parameters() < 1e9)
        sliders = [gr.skip() if value is None else value for value in values.values()]
        return [self._context(session), is_quick, config.do_sample, *sliders]

    def relabel(self, language: str, session: Session):
        session.language = language
        return [
            *[self._messages(session), self._context(session), self._chats(language)],
            *[self._knows(language), *self._words(language)],
        ]

    def _words(self, language: str) -> list[dict[str, Any]]:
        texts = TEXTS[language]
        updates = [
            gr.update(**{name: texts[key].replace("{model}", self.shared.name) for name, key in words.items()})
            for _, words in self.worded
        ]
        files = [str(EXAMPLE_FOLDER / name) for name in EXAMPLES]
        updates[0]["examples"] = [{"text": texts["default question"], "files": [file], "icon": file} for file in files]
        return updates

    # --- asking

    def ask(self, message: dict[str, Any], session: Session):
        """Take a message into the chat; `write` then answers it."""
        if not self._may_ask(session):
            return gr.skip(), gr.skip()
        question, files = message["text"].strip(), message["files"]
        if not question and not files:
            gr.Warning(TEXTS[session.language]["nothing"])
            return gr.skip(), gr.skip()
        if self._is_too_long(session, question):
            return gr.skip(), gr.skip()
        pictures, readable = [], []
        for file in files:
            try:
                pictures.append(self._open(file))
                readable.append(file)
            except ImageError as error:
                gr.Warning(html.escape(str(error)))
        if len(readable) < len(files):
            return gr.skip(), {"text": message["text"], "files": readable}
        session.ask(question or TEXTS[session.language]["default question"], pictures)
        return self._begin(session, value=None)

    def ask_example(self, session: Session, event: gr.SelectData):
        """As `ask`, with one of the example pictures."""
        if not self._may_ask(session):
            return gr.skip(), gr.skip()
        picture = self._open(EXAMPLE_FOLDER / EXAMPLES[event.index])
        session.ask(TEXTS[session.language]["default question"], [picture])
        return self._begin(session)

    def ask_suggestion(self, session: Session, event: gr.SelectData):
        """As `ask`, with one of the questions under the last answer."""
        if not self._may_ask(session):
            return gr.skip(), gr.skip()
        session.ask(str(event.value)[:MAX_CHARACTERS], [])
        return self._begin(session)

    def ask_again(self, session: Session, event: gr.RetryData):
        if not self._may_ask_again(session):
            return self._messages(session), gr.skip()
        session.ask_again(self._turn_index(session, event.index))
        return self._begin(session)

    def ask_edited(self, session: Session, event: gr.EditData):
        if not self._may_ask_again(session):
            return self._messages(session), gr.skip()
        index, question = self._turn_index(session, event.index), str(event.value).strip()
        if not question and not session.turns[index].pictures:
            gr.Warning(TEXTS[session.language]["nothing"])
            return self._messages(session), gr.skip()
        if self._is_too_long(session, question):
            return self._messages(session), gr.skip()
        session.ask_again(index, question or TEXTS[session.language]["default question"])
        return self._begin(session)

    def _may_ask_again(self, session: Session) -> bool:
        """Not in a tab that was left open so long that its chat is gone here."""
        return bool(session.turns) and self._may_ask(session)

    def _may_ask(self, session: Session) -> bool:
        if not session.chat_id:  # the server was restarted under the page, which will soon find out
            gr.Warning(TEXTS[session.language]["back"])
        elif session.is_answering:
            gr.Warning(TEXTS[session.language]["busy"])
        return bool(session.chat_id) and not session.is_answering

    def _is_too_long(self, session: Session, question: str) -> bool:
        if len(question) > MAX_CHARACTERS:
            gr.Warning(TEXTS[session.language]["too long"].format(length=len(question), most=MAX_CHARACTERS))
        return len(question) > MAX_CHARACTERS

    def _begin(self, session: Session, **box: Any):
        session.wants_stop = False
        return self._messages(session), gr.update(**ANSWERING, **box)

    def _open(self, file: str | Path) -> Picture:
        try:
            return Picture.open(Path(file), self.previews)
        except ImageError as error:
            raise ImageError(f"{Path(file).name}: {error.reason}") from error

    # --- answering

    def write(self, session: Session, *settings: float) -> Iterator[tuple]:
        """Answer the newest question, unless the message was refused or the chat was cleared meanwhile."""
        turn = session.turns[-1] if session.turns else None
        if turn is not None and not turn.is_done and not session.is_answering:
            session.is_answering = True
            try:
                for _ in self._answer(session, turn, settings):
                    if self.is_streaming:
                        yield self._messages(session), self._context(session), gr.skip(), _hidden()
            finally:  # also when the tab is closed
                session.is_answering, turn.is_done = False, True
        yield self._messages(session), self._context(session), gr.update(**IDLE), _hidden()

    def settle(self, session: Session):
        """Free the box where the request that should have written the answer was itself refused; the chat, for the browser."""
        is_refused = bool(session.turns) and not session.turns[-1].is_done and not session.is_answering
        return gr.update(**IDLE) if is_refused else gr.skip(), self._snapshot(session)

    def _answer(self, session: Session, turn: Turn, settings: tuple[float, ...]) -> Iterator[Turn]:
        """Answer; whatever goes wrong is written into the turn."""
        try:
            if not session.wants_stop:  # it may be so already after a long wait in the queue
                chat = self.shared.get()
                config = copy.deepcopy(self.defaults())
                config.do_sample = settings[0]
                for (name, (*_, step, _)), value in zip(SLIDERS.items(), settings[1:], strict=True):
                    if config.do_sample or name not in ONLY_SAMPLING:
                        setattr(config, name, type(step)(value))
                yield from answer(chat, session, config)
            if session.wants_stop and not turn.answer:
                turn.error = TEXTS[session.language]["stopped"]
        except Exception as error:
            if self.shared.is_loaded and not isinstance(error, ValueError):
                logger.exception("No answer.")
            turn.error = self._failure(session, error)

    def _failure(self, session: Session, error: Exception) -> str:
        texts = TEXTS[session.language]
        if not self.shared.is_loaded:
            return texts["load failed"].format(model=self.shared.name, error=one_line(error))
        is_out_of_memory = isinstance(error, MemoryError) or "out of memory" in str(error).lower()
        return texts["failed"].format(error=texts["out of memory"] if is_out_of_memory else one_line(error))

    def stop(self, session: Session) -> None:
        session.wants_stop = True

    def clear(self, session: Session):
        session.clear()
        session.wants_stop = True
        return [], self._context(session), _hidden(), _hidden(), gr.update(visible=bool(session.cleared))

    def undo(self, session: Session):
        """The chat that was cleared, unless a new one has begun."""
        session.undo_clear()
        return self._messages(session), self._context(session), _hidden()

    # --- what it looks at

    def look(self, session: Session, is_looking: bool):
        """For the newest answer."""
        return self._look(session, session.turns[-1] if session.turns else None, is_looking)

    def look_at(self, session: Session, is_looking: bool, event: gr.SelectData):
        """For the answer that was clicked."""
        turn = session.turns[self._turn_index(session, event.index)] if session.turns else None
        return self._look(session, turn, is_looking)

    def _look(self, session: Session, turn: Turn | None, is_looking: bool):
        maps, note = "", ""
        if turn is not None and not session.is_answering:
            try:
                maps, note = shown(self.shared, session, turn, is_looking)
            except Exception as error:
                logger.exception("What it looks at cannot be shown.")
                note = TEXTS[session.language]["looks failed"].format(error=html.escape(one_line(error)))
        return gr.update(value=maps, visible=bool(maps)), gr.update(value=note, visible=bool(note)), self._context(session)

    # --- small things

    def attach(self, captured: str | None, message: dict[str, Any]):
        """Put what the camera took into the message that is being written."""
        if captured is None:
            return gr.skip(), gr.skip()
        return None, {"text": message["text"], "files": [*message["files"], captured]}

    def save(self, session: Session, is_looking: bool):
        """Write the chat as one HTML file, under a path that nobody guesses; on request with what each answer looked at."""
        from .export import export_html

        if not session.turns:
            gr.Warning(TEXTS[session.language]["nothing to save"])
            return None
        for turn in session.turns if is_looking and not session.is_answering else []:
            try:
                remember(self.shared, session, turn)
                find_looks(self.shared, turn)
            except Exception:
                logger.exception("What it looks at cannot be saved.")
                gr.Warning(TEXTS[session.language]["looks failed"].format(error=html.escape(turn.question[:80])))
        folder = self.chats / secrets.token_urlsafe(16)
        folder.mkdir(parents=True)
        file = folder / "chat.html"
        file.write_text(export_html(session, f"{TITLE} · {self.shared.name}"), encoding="utf-8")
        return str(file)

    def _messages(self, session: Session) -> list[dict[str, Any]]:
        return messages(session, self.card, gr.HTML)

    def _chats(self, language: str) -> str:
        """A choice that kept.js fills, and the words that it says."""
        texts = TEXTS[language]
        words = {word: texts[word] for word in SAID} | {"fresh": texts["new chat"], "language": language}
        data = " ".join(f'data-{name}="{html.escape(text)}"' for name, text in words.items())
        return f'<select aria-label="{html.escape(texts["chats"])}" {data}></select>'

    def _knows(self, language: str) -> str:
        return html.escape(self.card.knows.get(language, ""))

    def _turn_index(self, session: Session, index: int | tuple[int, int]) -> int:
        """Which turn a message of `_messages` belongs to."""
        message = index if isinstance(index, int) else index[0]
        return min(message // 2, len(session.turns) - 1)

    def _context(self, session: Session) -> str:
        if not self.shared.is_loaded:
            return gr.skip()
        if session.seen is not None:
            return html.escape(context_line(session.language, self.shared.name, session.seen))
        return html.escape(TEXTS[session.language]["ready"].format(model=self.shared.name))


def _hidden() -> dict[str, Any]:
    return gr.update(visible=False)
