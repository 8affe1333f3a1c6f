"""What happens at each of the web UI's hooks, in the order in which it calls them."""

import sys
import weakref
from dataclasses import dataclass
from typing import Any

from pipelines.prompt import Prompt

from . import api, conversation, generate, marks, panel, patches, settings, vision, webui
from .conversation import STOCK
from .pictures import Picture, PictureError, from_url
from .texts import say

NOTE = "_multimodal_vcla"
"""Key of the state: what `custom_generate_chat_prompt` or `input_modifier` found out about the prompt of this request."""


def setup(params: dict[str, Any]) -> None:
    """Take the settings and adapt what no hook reaches. Never raises."""
    settings.use(params)
    try:
        panel.notices[:] = patches.install_all()
    except Exception as error:
        panel.notices[:] = [say("patch", name="modules.chat", effect=str(error))]
    for notice in panel.notices:
        webui.logger.warning("%s", notice)
    if name := settings.get("model"):
        try:
            webui.load_at_start(str(name))
        except Exception as error:
            webui.logger.exception("%s", say("at_start", name=name, reason=error))
            panel.notices.append(say("at_start", name=name, reason=error))


def state_modifier(state: dict) -> dict:
    """Gives a copy: the web UI's own is the state of the interface, and what is written into it would be saved."""
    return dict(state) if webui.is_ours_to_serve() else state


def input_modifier(string: str, state: dict, is_chat: bool) -> str:
    """Notes that a prompt is no chat: the history in its state does not belong to it."""
    if not is_chat and webui.is_ours_to_serve():
        state[NOTE] = {"is_chat": False}
    return string


def custom_generate_chat_prompt(user_input: str, state: dict, **kwargs: Any) -> str | None:
    """Render the prompt with a mark for each picture.

    Raises:
        An error that the user sees (`panel.visible_error`): the pictures cannot be seen, or not all of the question fit.
    """
    render = webui.next_in_line("custom_generate_chat_prompt")
    if webui.is_ours_to_serve():
        history = kwargs.get("history") or state["history"]
        with panel.shown_to_the_user():
            prepared = _marked_request(history, user_input, state) or _marked_chat(history, user_input, kwargs)
            if prepared is not None:
                return _render_with_pictures(render, prepared, state, kwargs)
            if settings.get("prefix_cache_text") and not webui.takes_no_embeddings():
                webui.wake_model()
                text = _Marked(history, user_input, None, [], [])
                return _render_what_fits(render or webui.generate_chat_prompt, text, state, kwargs)
    return render(user_input, state, **kwargs) if render else None


@dataclass(frozen=True)
class _Marked:
    """A conversation whose texts hold our marks.

    Attributes:
        history, user_input, system: what the web UI renders; a system message of None stays as it is.
        pictures: those that are kept.
        asked: those of the message that is being answered.
    """

    history: dict
    user_input: str
    system: str | None
    pictures: list[Picture]
    asked: list[Picture]


def _marked_chat(history: dict, user_input: str, kwargs: dict) -> _Marked | None:
    """A chat in the browser, or messages that the web UI has taken apart by itself; None without pictures."""
    found = conversation.slots(history, user_input, bool(kwargs.get("_continue")), _picture_at)
    turns = [slot.turn for slot in found]
    if not any(turn.pictures for turn in turns):
        return None
    kept = conversation.choose(turns, settings.pictures_kept())
    marked, text = conversation.marked(history, found, kept, marks.mark, marks.without_typed_marks)
    pictures, asked = (
        [picture for turn in chosen for picture in turn.pictures if id(picture) in kept] for chosen in (turns, turns[-1:])
    )
    return _Marked(marked, user_input if text is None else text, None, pictures, asked)


def _marked_request(history: dict, user_input: str, state: dict) -> _Marked | None:
    """An API request whose rows hold our marks already (`api.convert_history`); None for others."""
    system = str(state.get("custom_system_message") or "")
    rows = history.get("internal") or []
    texts = [system, *(text for entry in rows for text in entry[:3]), user_input]
    if not history.get("messages") or not any(map(marks.has_mark, texts)):
        return None
    pictures = {picture.key: picture for picture in api.pictures(history["messages"])}
    if not pictures:  # somebody typed a mark
        return None
    asked = (
        marks.keys(user_input) if user_input else [key for text in (rows[-1][:3] if rows else ()) for key in marks.keys(text)]
    )
    occurrences = [key for text in texts for key in marks.keys(text)]
    newest = settings.pictures_kept()
    num_dropped = 0 if newest is None else max(len(occurrences) - max(newest, len(asked)), 0)
    drop = marks.Dropping(num_dropped)
    system = drop(system)
    internal = [[*map(drop, entry[:3]), *entry[3:]] for entry in rows]
    kept = [pictures[key] for key in occurrences[num_dropped:] if key in pictures]
    marked = {**history, "internal": internal}
    return _Marked(marked, drop(user_input), system, kept, [pictures[key] for key in asked if key in pictures])


def _render_with_pictures(render, prepared: _Marked, state: dict, kwargs: dict) -> str:
    webui.wake_model()
    _refuse_if_blind()
    current = vision.current() if prepared.pictures else None
    try:
        prompt = _render_what_fits(render or webui.generate_chat_prompt, prepared, state, kwargs)
    except PictureError:
        raise
    except ValueError as error:  # the web UI's own, when not even the beginning of the question fits
        if not prepared.asked:
            raise
        raise PictureError(_no_room(prepared.asked[0], current, state)) from error
    used = marks.keys(prompt)
    for picture in prepared.asked:
        if picture.key not in used:
            raise PictureError(_no_room(picture, current, state))
    _refuse_too_many(len(used))
    by_key = {picture.key: picture for picture in prepared.pictures}
    if used:
        try:
            current.see([by_key[key] for key in dict.fromkeys(used)])
        except PictureError as error:
            if prepared.system is not None:  # a request: there is no panel
                raise
            raise PictureError(f"{error} {say('leave_it_out')}") from error
    state[NOTE] = {"is_chat": True, "prompt": prompt, "sources": {key: (p.source, p.name) for key, p in by_key.items()}}
    panel.remember(state.get("unique_id"), by_key, used)
    return prompt


def _render_what_fits(render, prepared: _Marked, state: dict, kwargs: dict) -> str:
    """The prompt; of a chat that is too long, without its oldest rows, which leave by blocks of a quarter of the context.

    The web UI drops one message after the other, so that every prompt begins in another way and nothing of the one before can be
    used again. What is still too long without all full blocks is left to it.
    """
    shown = state if prepared.system is None else {**state, "custom_system_message": prepared.system}
    budget = webui.prompt_budget(state)
    at_all_lengths = {**shown, "truncation_length": sys.maxsize}

    def rendered(count: int, state: dict) -> str:
        history = conversation.without_oldest(prepared.history, count) if count else prepared.history
        return render(prepared.user_input, state, **{**kwargs, "history": history})

    def fits(count: int) -> bool:
        return webui.num_tokens(rendered(count, at_all_lengths)) <= budget

    count = 0
    if not fits(count):
        rows = prepared.history["internal"]
        sizes = (
            sum(webui.num_tokens(text) for text in entry[:3] if text)
            for entry in (rows[:-1] if kwargs.get("_continue") else rows)
        )
        ends = conversation.block_ends(sizes, max(budget // 4, 1))
        count = next(filter(fits, ends), ends[-1] if ends else 0)
    return rendered(count, shown)


def _no_room(picture: Picture, current: vision.VisionModel, state: dict) -> str:
    room = {"tokens": current.costs([picture])[0], "budget": webui.prompt_budget(state)}
    return say("no_room", name=picture.name, **room)


def custom_tokenized_length(prompt: str) -> int | None:
    """The exact number of tokens of a prompt that marks pictures; of any other what the web UI or the next extension says."""
    if webui.is_ours_to_serve() or webui.model() is None:
        spans = marks.stand_ins(prompt)
        if spans:
            num_tokens = vision.length(prompt, lambda current: marks.to_prompt(prompt, spans, current.placeholder))
            if num_tokens is not None:
                return num_tokens
    ask_next = webui.next_in_line("custom_tokenized_length")
    return ask_next(prompt) if ask_next else None


def tokenizer_modifier(state: dict, prompt: str, input_ids: Any, input_embeds: Any) -> tuple[str, Any, Any]:
    """Put the embeddings of the pictures where their marks stand. The last gate: no prompt passes with a picture unseen.

    Raises:
        An error that the user sees (`panel.visible_error`).
    """
    with panel.shown_to_the_user():
        spans = _spans(state, prompt)
        if not spans:
            if settings.get("prefix_cache_text") and not webui.takes_no_embeddings():
                generate.wrap(webui.model())
            return prompt, input_ids, input_embeds
        _refuse_if_blind()
        _refuse_too_many(len(spans))
        if input_embeds is not None:
            raise PictureError(say("embeds_taken"))
        current = vision.current()
        parts = marks.to_prompt(prompt, spans, current.placeholder)
        prepared = _prepare(current, parts, state)
        embeds = prepared.inputs.get("inputs_embeds")
        waiting = generate.leave(webui.model(), current.pipeline, prepared)
        _handed_over.set(prepared.input_ids, state, input_ids, None if embeds is not None else waiting)
        return prompt, prepared.input_ids, embeds


def _prepare(current: vision.VisionModel, parts: Prompt, state: dict):
    add_bos = bool(state.get("add_bos_token", True))
    try:
        prepared = current.prepare(parts, webui.model(), add_bos, webui.prompt_budget(state))
    except PictureError:
        raise
    except ValueError as error:
        raise PictureError(say("failed", reason=error)) from error
    if prepared.truncated and prepared.truncated.dropped_images:
        raise PictureError(_no_room(prepared.truncated.dropped_images[0], current, state))
    return prepared


def _spans(state: dict, prompt: str) -> list[marks.Span]:
    """Which picture stands where, from the prompt and from what is known about it.

    Raises:
        PictureError: that is not certain.
    """
    note = state.get(NOTE) or {}
    if not note.get("is_chat", True):
        return _spans_of_text(state, prompt)
    if note.get("prompt") == prompt or (note.get("sources") and marks.has_mark(prompt)):
        return marks.find(prompt, {key: Picture(*source, key) for key, source in note["sources"].items()})
    history = state.get("history") or {}
    if messages := history.get("messages"):
        if marks.has_mark(prompt):  # another extension has rendered it
            return marks.find(prompt, {picture.key: picture for picture in api.pictures(messages)})
        return marks.align(prompt, conversation.message_turns(messages, _picture_at), True)
    attached = [conversation.of_attachment(item) for item in state.get("image_attachments") or []]
    if not attached and STOCK not in prompt:
        return []
    turns = conversation.row_turns(history)
    pending = attached[sum(len(turn.pictures) for turn in turns) :]
    if pending:
        turns.append(conversation.Turn(tuple(pending)))
    return marks.align(prompt, turns, bool(pending)) if STOCK in prompt or pending else []


def _spans_of_text(state: dict, prompt: str) -> list[marks.Span]:
    """Of a prompt that is no chat: pictures of a completion by their order; in the notebook our own marks only."""
    if messages := state.get("messages"):
        items = [
            conversation.message_items(message.get("content"), number, _picture_at)
            for number, message in enumerate(messages, 1)
            if isinstance(message, dict)
        ]
        pictures = [item for message in items for item in message if isinstance(item, Picture)]
        count = prompt.count(STOCK)
        if len(pictures) > count:
            raise PictureError(say("no_marker", count=len(pictures), markers=count))
        spans, at = [], 0
        for picture in pictures:
            at = prompt.index(STOCK, at)
            spans.append((at, at + len(STOCK), picture))
            at += len(STOCK)
        return spans
    if "history" not in state or not marks.has_mark(prompt):
        return []
    here = {picture.key: picture for turn in conversation.row_turns(state["history"]) for picture in turn.pictures}
    if any(key not in here for key in marks.keys(prompt)):
        raise PictureError(say("unknown_mark"))
    return marks.find(prompt, here)


def logits_processor_modifier(processor_list: Any, input_ids: Any) -> Any:
    """End the reply where the context ends: the web UI computed its room before the pictures were in the prompt. And let no
    token be chosen for pictures that did not reach the model."""
    processor_list.extend(_handed_over.processors(input_ids))
    return processor_list


class _HandedOver:
    """Hands what is known of a prompt from `tokenizer_modifier` to `logits_processor_modifier`, which follows it at once, on the
    same thread and inside the web UI's generation lock."""

    def __init__(self):
        self._ids, self._max_length, self._waiting = lambda: None, None, None

    def set(self, ids: Any, state: dict, ids_before: Any, waiting: generate.Waiting | None) -> None:
        room = state["truncation_length"] - ids_before.shape[-1]
        num_new = room if state.get("auto_max_new_tokens") else state["max_new_tokens"]
        is_too_long = ids.shape[-1] + num_new > state["truncation_length"]
        self._ids = weakref.ref(ids)
        self._max_length = state["truncation_length"] if is_too_long else None
        self._waiting = waiting

    def processors(self, ids: Any) -> list:
        if self._ids() is not ids:
            return []
        from .limit import EndOfContext, NeverBlind

        eos = webui.tokenizer().eos_token_id
        limit = [EndOfContext(self._max_length, eos)] if self._max_length is not None and eos is not None else []
        return limit + ([NeverBlind(self._waiting)] if self._waiting is not None else [])


_handed_over = _HandedOver()


def _picture_at(address: object, name: str) -> Picture:
    return from_url(address, name, webui.fetch)


def _refuse_if_blind() -> None:
    if loader := webui.takes_no_embeddings():
        raise PictureError(say("blind", reason=say("loader", loader=loader)))
    if name := webui.who_replies():
        raise PictureError(say("blind", reason=say("other_replies", name=name)))


def _refuse_too_many(count: int) -> None:
    limit = int(settings.number("max_images"))
    if count > limit:
        raise PictureError(say("too_many", count=count, limit=limit))


def ui() -> None:
    """Never raises."""
    try:
        panel.build()
    except Exception as error:
        webui.logger.exception("The panel could not be built; the plugin works without it.")
        panel.notice(str(error))


def custom_css() -> str:
    return panel.CSS


def custom_js() -> str:
    return panel.JS
