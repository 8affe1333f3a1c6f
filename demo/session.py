"""One chat: its turns and pictures, and how the shared model answers the next one. Nothing of the page's looks.

Every tab has a `Session` of its own and all share one `SharedModel`. torch and transformers take seconds to import, so
this file leaves that to the thread that loads the model.
"""

import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.base import ImagePart
from pipelines.images import load_image

from .card import Card

if TYPE_CHECKING:
    from transformers import GenerationConfig

    from pipelines.generation import ChatModel, PreparedConversation

    from .attention import Looks

MAX_PREVIEW_PX = 1024
_MAX_LOSSLESS_PIXELS = 512 * 512


@dataclass(frozen=True)
class Picture:
    """A picture of the chat.

    Attributes:
        part: what the model is given.
        preview: a file with the same picture for the browser: upright, one frame, at most `MAX_PREVIEW_PX` on a side.
        original: a file from which the same picture can be opened again.
    """

    part: ImagePart
    preview: Path
    original: Path

    @classmethod
    def open(cls, file: Path, folder: Path) -> "Picture":
        """Read an untrusted file and write its preview into `folder`, with a copy where the preview is not the whole picture.

        Raises:
            ImageError: it is no picture, or too large.
        """
        image = load_image(file, background="white")
        part = ImagePart.of(image)
        is_small = image.width * image.height <= _MAX_LOSSLESS_PIXELS
        preview = folder / f"{part.key}.{'png' if is_small else 'webp'}"
        if not preview.exists():
            image = image.copy()
            image.thumbnail((MAX_PREVIEW_PX, MAX_PREVIEW_PX))
            unfinished = preview.with_name(f"{threading.get_ident()}-{preview.name}")
            image.save(unfinished)
            unfinished.replace(preview)
        original = preview
        if not is_small or max(part.size) > MAX_PREVIEW_PX:
            original = folder / f"{part.key}.original"
            if not original.exists():
                unfinished = original.with_name(f"{threading.get_ident()}-{original.name}")
                shutil.copyfile(file, unfinished)
                unfinished.replace(original)
        return cls(part, preview, original)


@dataclass(frozen=True)
class Seen:
    """What stood in the context of an answer.

    Attributes:
        prepared: the prompt as the model was given it.
        numbers: the same pictures, as they are counted over the chat, from 1.
        left_out: numbers of the pictures that had to go because the context was full.
        answer_ids: the answer so far.
        picture_tokens: what the pictures cost together.
        max_tokens: size of the context; None where the model does not say.
    """

    prepared: "PreparedConversation"
    numbers: list[int]
    left_out: list[int]
    answer_ids: list[int]
    picture_tokens: int
    max_tokens: int | None

    @property
    def num_tokens(self) -> int:
        return self.prepared.num_tokens + len(self.answer_ids)


@dataclass
class Turn:
    """A question and its answer. A turn that failed (`error`) stays to be seen, but later turns do not know of it.

    `is_done` once it was answered, in whatever way; `looks`, once somebody wanted to know what it looked at; `model`, the name of
    the one that answered.
    """

    question: str
    pictures: list[Picture] = field(default_factory=list)
    answer: str = ""
    error: str = ""
    seen: Seen | None = None
    looks: "Looks | None" = None
    is_done: bool = False
    model: str = ""


@dataclass
class Session:
    """What one tab holds. It is changed in place, also while its answer is being written.

    Attributes:
        turns: the chat.
        language: of the page.
        is_answering, wants_stop: an answer is being written; it shall end.
        cleared: the chat that was cleared, until a new one begins.
        chat_id: the browser's name for the chat; empty where no page has begun, as in a server that was restarted under it.
        model: the name of the one that answers.
    """

    turns: list[Turn] = field(default_factory=list)
    language: str = "en"
    is_answering: bool = False
    wants_stop: bool = False
    cleared: list[Turn] = field(default_factory=list)
    chat_id: str = ""
    model: str = ""

    def use(self, model: str) -> None:
        """Another model answers from now on; what stood in the context of the old one is nothing to it."""
        self.model = model
        for turn in self.turns:
            turn.seen = None

    def open(self, chat_id: str, turns: list[Turn]) -> None:
        """Another chat; an answer that is being written ends."""
        self.wants_stop = True
        self.chat_id, self.turns, self.cleared = chat_id, turns, []

    def clear(self) -> None:
        """An empty chat; the old one is kept until a new one begins."""
        self.turns, self.cleared = [], self.turns or self.cleared

    def undo_clear(self) -> None:
        """The chat that was cleared last, unless a new one has begun."""
        if not self.turns:
            self.turns, self.cleared = self.cleared, []

    def ask(self, question: str, pictures: list[Picture]) -> None:
        self.cleared = []
        self.turns.append(Turn(question, pictures))

    def ask_again(self, index: int, question: str | None = None) -> None:
        """Drop everything after the question of a turn, and its answer; on request with another wording."""
        turn = self.turns[index]
        self.turns[index:] = [Turn(turn.question if question is None else question, turn.pictures)]

    @property
    def seen(self) -> Seen | None:
        """What stood in the context of the newest answer."""
        return next((turn.seen for turn in reversed(self.turns) if turn.seen), None)

    def numbered(self) -> list[tuple[int, Picture, Turn]]:
        """All pictures with their numbers, from 1, and the turns that brought them."""
        shown = [(picture, turn) for turn in self.turns for picture in turn.pictures]
        return [(number, picture, turn) for number, (picture, turn) in enumerate(shown, start=1)]


class SharedModel:
    """A model that is loaded once, whoever asks first, and tried again by the next one after a failure.

    Args:
        load: makes it.
        name: for the user.
        defaults: how it answers unless told otherwise.
        card: what it says of itself.
        folder: where it lies, so that the doctor can look; None where it is no folder here.
    """

    def __init__(
        self,
        load: "Callable[[], ChatModel]",
        name: str,
        defaults: "Callable[[ChatModel], GenerationConfig] | None" = None,
        card: Card | None = None,
        folder: Path | None = None,
    ):
        self.name, self.card, self.folder = name, card or Card(), folder
        self._load, self._defaults = load, defaults
        self._model: ChatModel | None = None
        self._lock = threading.Lock()

    def get(self) -> "ChatModel":
        """The model; waits while it is being loaded.

        Raises:
            Whatever loading raised.
        """
        with self._lock:
            if self._model is None:
                self._model = self._load()
            return self._model

    def defaults(self) -> "GenerationConfig":
        """How it answers; loads it, where it is not."""
        model = self.get()
        with self._lock:  # two threads that import from transformers at once may find it half imported
            return self._defaults(model)

    def unload(self) -> None:
        """Forget it, until somebody asks again."""
        with self._lock:
            self._model = None

    @property
    def is_loaded(self) -> bool:
        return self._model is not None


def answer(chat: "ChatModel", session: Session, config: "GenerationConfig") -> Iterator[Turn]:
    """Answer the last question of a session, yielding its turn before the first and after every token.

    Ends early when the session wants to stop. Closing the iterator stops the generation, too.

    Raises:
        ValueError: the question with its pictures does not fit the context.
        Whatever the generation raised.
    """
    turn = session.turns[-1]
    prepared, numbers = _context(chat, session, turn, config.max_new_tokens or 0)
    turn.seen = _seen(chat, prepared, numbers, [])
    yield turn
    for new_ids in chat.stream_ids(prepared, config):
        turn.answer = chat.decode(new_ids)
        turn.seen = _seen(chat, prepared, numbers, new_ids)
        yield turn
        if session.wants_stop:
            return


def recall(chat: "ChatModel", session: Session, turn: Turn) -> None:
    """Find again what stood in the context of an answer that was kept elsewhere.

    Raises:
        ValueError: it does not fit the context of this model.
    """
    if chat.pipeline is None:  # it runs elsewhere
        return
    ids = chat.tokenizer(turn.answer, add_special_tokens=False)["input_ids"]
    turn.seen = _seen(chat, *_context(chat, session, turn, len(ids)), ids)


def _context(chat: "ChatModel", session: Session, turn: Turn, max_new_tokens: int) -> tuple["PreparedConversation", list[int]]:
    """The prompt of a turn, and the numbers of the pictures that were to stand in it."""
    index = next(index for index, each in enumerate(session.turns) if each is turn)
    turns = [earlier for earlier in session.turns[:index] if earlier.answer and not earlier.error] + [turn]
    numbered = [(number, picture.part) for number, picture, owner in session.numbered() if any(owner is t for t in turns)]
    prepared = chat.prepare(_messages(turns), [part for _, part in numbered], max_new_tokens)
    return prepared, [number for number, _ in numbered]


def _seen(chat: "ChatModel", prepared: "PreparedConversation", numbers: list[int], answer_ids: list[int]) -> Seen:
    num_left_out = prepared.num_dropped_images  # of a server it is known once it has answered
    cost = sum(span.length for span in prepared.image_spans)
    return Seen(prepared, numbers[num_left_out:], numbers[:num_left_out], list(answer_ids), cost, chat.max_tokens)


def _messages(turns: list[Turn]) -> list[dict[str, Any]]:
    from pipelines.generation import message

    messages = []
    for turn in turns:
        messages.append(message("user", turn.question, len(turn.pictures)))
        if turn is not turns[-1]:
            messages.append(message("assistant", turn.answer))
    return messages
