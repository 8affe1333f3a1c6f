"""What an answer of a chat looked at: found when somebody wants to know, kept with its turn, and said in the chat's language."""

from .session import Session, SharedModel, Turn, recall
from .texts import TEXTS


def find_looks(shared: SharedModel, turn: Turn) -> None:
    """Ask the model, where it is loaded, what it looked at, once for each answer. Nobody else may use the model meanwhile.

    Raises:
        Whatever the model raised.
    """
    if turn.looks is None and turn.seen is not None and shared.is_loaded:
        from .attention import looks

        turn.looks = looks(shared.get(), turn.seen)


def shown(shared: SharedModel, session: Session, turn: Turn, is_looking: bool) -> tuple[str, str]:
    """What the page shows of it: the maps and a note; both are empty where nobody looks, or where there is no answer.

    Raises:
        Whatever the model raised.
    """
    remember(shared, session, turn)
    if not is_looking:
        return "", ""
    find_looks(shared, turn)
    texts = TEXTS[session.language]
    if turn.looks is None and turn.answer and is_of_another(shared, turn):
        return "", texts["looks of another"].format(model=turn.model)
    is_cleared = not any(each is turn for each in session.turns)
    if is_cleared or (turn.looks is None and (turn.seen is None or not shared.is_loaded)):
        return "", ""
    if turn.looks is None:
        return "", texts["looks unknown"]
    from .maps import turn_maps

    maps = turn_maps(turn, texts)
    return maps, texts["looks info" if maps else "no looks"]


def remember(shared: SharedModel, session: Session, turn: Turn) -> None:
    """Find again what stood in the context of an answer that the browser kept."""
    if turn.seen is None and turn.answer and shared.is_loaded and not is_of_another(shared, turn):
        recall(shared.get(), session, turn)


def is_of_another(shared: SharedModel, turn: Turn) -> bool:
    """Whether another model gave the answer of a turn; one that was kept without a name counts as this one's."""
    return turn.model not in ("", shared.name)
