"""Parts of the page that are HTML of its own: the choice of a chat, the choice of a model."""

import json

from .messages import plain
from .models import Models
from .session import Session
from .texts import LABELS, TEXTS

SAID = ("away", "back", "unkept", "absent", "denied", "occupied", "insecure")  # by the browser's scripts


def chats_html(language: str) -> str:
    """A choice that kept.js fills, with the words of the browser's scripts."""
    texts = TEXTS[language]
    words = {word: texts[word] for word in SAID} | {"fresh": texts["new chat"], "language": language}
    words["labels"] = json.dumps([[[*own, *ours.values()], ours[language]] for own, ours in LABELS], ensure_ascii=False)
    data = " ".join(f'data-{name}="{plain(text)}"' for name, text in words.items())
    return f'<select aria-label="{plain(texts["chats"])}" {data}></select>'


def models_html(models: Models, session: Session) -> str:
    """Every model with the doctor's line; who cannot be chosen is told why."""
    texts = TEXTS[session.language]
    offers = []
    for model in models:
        line, is_refused = models.offer(model, session.language)
        state = " checked" if model.name == session.model else " disabled" if is_refused else ""
        offers.append(
            f'<label><input type="radio" name="model" value="{plain(model.name)}"{state}>'
            f"<span><b>{plain(model.name)}</b> {plain(line)}</span></label>"
        )
    return f'<fieldset class="models"><legend>{plain(texts["models"])}</legend>{"".join(offers)}</fieldset>'
