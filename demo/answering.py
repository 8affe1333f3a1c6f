"""The newest question of a chat is answered with the settings of the page; whatever goes wrong is written into its turn."""

import copy
import logging
from collections.abc import Iterator

from .cli import one_line
from .models import Models
from .reasons import reason_in
from .session import Session, SharedModel, Turn, answer
from .texts import TEXTS

logger = logging.getLogger(__name__)

SLIDERS = {  # of the sampling settings: least, most, step, and where it stands when the model's configuration is silent
    "temperature": (0.05, 2.0, 0.05, 1.0),
    "top_p": (0.05, 1.0, 0.05, 1.0),
    "top_k": (1, 200, 1, 50),
    "repetition_penalty": (1.0, 2.0, 0.05, 1.0),
    "max_new_tokens": (1, 2048, 1, 512),
}
ONLY_SAMPLING = ("temperature", "top_p", "top_k")


def answer_with(models: Models, session: Session, turn: Turn, settings: tuple[float, ...]) -> Iterator[Turn]:
    """Answer, yielding the turn after every token.

    Args:
        models: of the page.
        session: which of them is asked, and what stands before the turn.
        turn: the newest of the session.
        settings: whether to sample, and the values of `SLIDERS`.
    """
    shared = models[session.model]
    turn.model = shared.name
    try:
        if not session.wants_stop:  # it may be so already after a long wait in the queue
            chat = models.load(shared)
            config = copy.deepcopy(shared.defaults())
            config.do_sample = settings[0]
            for (name, (*_, step, _)), value in zip(SLIDERS.items(), settings[1:], strict=True):
                if config.do_sample or name not in ONLY_SAMPLING:
                    setattr(config, name, type(step)(value))
            yield from answer(chat, session, config)
        if session.wants_stop and not turn.answer:
            turn.error = TEXTS[session.language]["stopped"]
    except Exception as error:
        if shared.is_loaded and not isinstance(error, ValueError):
            logger.exception("No answer.")
        turn.error = failure(shared, session.language, error)


def failure(shared: SharedModel, language: str, error: Exception) -> str:
    """What is said of an error."""
    texts, told = TEXTS[language], reason_in(language, one_line(error))
    if not shared.is_loaded:
        return texts["load failed"].format(model=shared.name, error=told)
    is_out_of_memory = isinstance(error, MemoryError) or "out of memory" in str(error).lower()
    return texts["failed"].format(error=texts["out of memory"] if is_out_of_memory else told)
