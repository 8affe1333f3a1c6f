"""What happens when the page is used: the handlers of gradio's events; where the components stand is in ui.py.

A tab's `Session` is the one home of its chat. Handlers change it in place and return what is to be seen; of what the
browser sends back about the chat only the position of a message is read.
"""

import html
import logging
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from pipelines.images import ImageError

from .answering import SLIDERS, answer_with, failure
from .cli import one_line
from .kept import revive, snapshot, so_far
from .looking import find_looks, remember, shown
from .messages import address, messages
from .models import Models
from .parts import chats_html, models_html
from .reasons import reason_in
from .session import Picture, Session, SharedModel, Turn
from .texts import EXAMPLES, LANGUAGES, TEXTS, browser_language, context_line

logger = logging.getLogger(__name__)

TITLE = "Multimodal VCLA"
EXAMPLE_FOLDER = Path(__file__).parent / "examples"
MAX_CHARACTERS = 100_000  # of a question
IDLE = {"submit_btn": True, "stop_btn": False}
ANSWERING = {"submit_btn": False, "stop_btn": True}


class Handlers:
    """The handlers of a page.

    Args:
        models: that can answer.
        folder: where previews and saved chats go.
        is_streaming: show answers while they are written.
    """

    def __init__(self, models: Models, folder: Path, is_streaming: bool = True):
        self.models, self.is_streaming = models, is_streaming
        self.previews, self.chats = folder / "pictures", folder / "chats"
        self.previews.mkdir(parents=True, exist_ok=True)
        self.worded: list[tuple[Any, dict[str, str]]] = []

    # --- a tab and its words

    def start(self, kept: dict[str, Any] | None, files: list[str] | None, session: Session, request: gr.Request):
        """A tab begins, or begins again, with the chat that its browser kept."""
        kept = kept or {}
        language = kept.get("language")
        session.language = language if language in LANGUAGES else browser_language(request.headers.get("accept-language", ""))
        session.model = self.models.usable(str(kept.get("model") or "")).name
        chat, _, *rest = self.open(kept, files, session)
        opened = [chat, self._loading(session), *rest]
        words, pictures = str(kept.get("draft") or ""), (files or [])[len(files or []) - int(kept.get("drafted") or 0) :]
        box = {"text": words, "files": pictures} if words or pictures else gr.skip()
        return [session, session.language, box, *opened, chats_html(session.language), *self._words(session)]

    def open(self, kept: dict[str, Any] | None, files: list[str] | None, session: Session):
        """The chat that the browser hands over takes the place of the one in the tab."""
        kept, texts = kept or {}, TEXTS[session.language]
        turns, num_lost = revive(kept, files or [], self._open, texts["interrupted"])
        if num_lost:
            self._warn(session, "lost pictures", number=num_lost)
        session.open(str(kept.get("id") or secrets.token_urlsafe(16)), turns)
        return self._messages(session), self._context(session), _hidden(), _hidden(), _hidden()

    def _snapshot(self, session: Session) -> dict[str, Any]:
        return snapshot(session, address)

    def wait_for_model(self, session: Session):
        """Says that the model is there, with its settings, or why it is not. Nobody else may use another one meanwhile."""
        shared = self._model(session)
        try:
            chat = self.models.load(shared)
        except Exception as error:
            return [f"⚠️ {html.escape(failure(shared, session.language, error))}", *[gr.skip()] * (2 + len(SLIDERS))]
        config = shared.defaults()
        values = {name: getattr(config, name) for name in SLIDERS}
        is_quick = chat.pipeline is not None and (chat.model.device.type != "cpu" or chat.model.num_parameters() < 1e9)
        sliders = [gr.skip() if value is None else value for value in values.values()]
        return [self._context(session), is_quick, config.do_sample, *sliders]

    def _loading(self, session: Session) -> str:
        model = self._model(session)
        loading = TEXTS[session.language]["loading"].format(model=model.name)
        return self._context(session) if model.is_loaded else html.escape(loading)

    def relabel(self, language: str, session: Session):
        session.language = language
        return [self._messages(session), self._context(session), chats_html(language), *self._words(session)]

    def _words(self, session: Session) -> list[Any]:
        """What the model knows, the models to choose from, and the words of the components."""
        texts, model = TEXTS[session.language], self._model(session)
        knows = model.card.knows.get(session.language, "")
        if not knows and model.folder is not None:
            knows = texts["knows nothing"].format(model=model.name)
        updates = [
            gr.update(**{name: texts[key].replace("{model}", model.name) for name, key in words.items()})
            for _, words in self.worded
        ]
        files = [str(EXAMPLE_FOLDER / name) for name in EXAMPLES]
        examples = [{"text": texts["default question"], "files": [file], "icon": file} for file in files]
        for (_, words), update in zip(self.worded, updates, strict=True):
            if words.get("placeholder") == "placeholder":  # the empty chat
                update["examples"] = examples
        return [gr.update(value=html.escape(knows), visible=bool(knows)), models_html(self.models, session), *updates]

    def offers(self, session: Session) -> Iterator[str]:
        """The models to choose from, as the doctor comes from one to the next."""
        num_examined = -1
        while num_examined < self.models.num_folders:
            num_examined = self.models.wait_for_news(num_examined)
            yield models_html(self.models, session)

    def pick(self, name: str | None, session: Session):
        """Another model for this tab; `wait_for_model` then loads it."""
        chosen = next((model for model in self.models if model.name == name), None)
        if session.is_answering:
            self._warn(session, "busy")
        elif chosen is not None and not self.models.offer(chosen, session.language)[1]:
            session.use(chosen.name)
        return [self._messages(session), self._loading(session), _hidden(), _hidden(), *self._words(session)]

    # --- asking

    def ask(self, message: dict[str, Any], session: Session):
        """Take a message into the chat; `write` then answers it."""
        if not self._may_ask(session):
            return gr.skip(), gr.skip()
        question, files = message["text"].strip(), message["files"]
        if not question and not files:
            self._warn(session, "nothing")
            return gr.skip(), gr.skip()
        if self._is_too_long(session, question):
            return gr.skip(), gr.skip()
        pictures, readable = [], []
        for file in files:
            try:
                pictures.append(self._open(file))
                readable.append(file)
            except ImageError as error:
                self._warn(session, "unread", error=html.escape(reason_in(session.language, str(error))))
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
            self._warn(session, "nothing")
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
            self._warn(session, "back")
        elif session.is_answering:
            self._warn(session, "busy")
        return bool(session.chat_id) and not session.is_answering

    def _is_too_long(self, session: Session, question: str) -> bool:
        if len(question) > MAX_CHARACTERS:
            self._warn(session, "too long", length=len(question), most=MAX_CHARACTERS)
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
                for _ in answer_with(self.models, session, turn, settings):
                    if self.is_streaming:
                        yield self._messages(session), self._context(session), gr.skip(), _hidden(), so_far(session, turn)
            finally:  # also when the tab is closed
                session.is_answering, turn.is_done = False, True
        yield self._messages(session), self._context(session), gr.update(**IDLE), _hidden(), gr.skip()

    def settle(self, session: Session):
        """Free the box where the request that should have written the answer was itself refused; the chat, for the browser."""
        is_refused = bool(session.turns) and not session.turns[-1].is_done and not session.is_answering
        return gr.update(**IDLE) if is_refused else gr.skip(), self._snapshot(session)

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
                maps, note = shown(self._model(session), session, turn, is_looking)
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

        shared = self._model(session)
        if not session.turns:
            self._warn(session, "nothing to save")
            return None
        for turn in session.turns if is_looking and not session.is_answering else []:
            try:
                remember(shared, session, turn)
                find_looks(shared, turn)
            except Exception:
                logger.exception("What it looks at cannot be saved.")
                self._warn(session, "looks failed", error=html.escape(turn.question[:80]))
        folder = self.chats / secrets.token_urlsafe(16)
        folder.mkdir(parents=True)
        file = folder / "chat.html"
        file.write_text(export_html(session, f"{TITLE} · {shared.name}"), encoding="utf-8")
        return str(file)

    # --- what they share

    def _model(self, session: Session) -> SharedModel:
        return self.models[session.model]

    def _messages(self, session: Session) -> list[dict[str, Any]]:
        return messages(session, self._model(session).card, gr.HTML)

    def _warn(self, session: Session, key: str, **values: Any) -> None:
        texts = TEXTS[session.language]
        gr.Warning(texts[key].format(**values), title=texts["warning"])

    def _turn_index(self, session: Session, index: int | tuple[int, int]) -> int:
        """Which turn a message of `_messages` belongs to."""
        message = index if isinstance(index, int) else index[0]
        return min(message // 2, len(session.turns) - 1)

    def _context(self, session: Session) -> str:
        model, texts = self._model(session), TEXTS[session.language]
        if not model.is_loaded:  # what was said of it stays: it is on its way, or cannot be loaded
            return gr.skip()
        if session.seen is not None:
            return html.escape(context_line(session.language, model.name, session.seen))
        return html.escape(texts["ready again" if session.numbered() else "ready"].format(model=model.name))


def _hidden() -> dict[str, Any]:
    return gr.update(visible=False)
