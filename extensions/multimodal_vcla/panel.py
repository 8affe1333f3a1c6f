"""The panel below the chat, and errors that the user sees: the one file with gradio.

It works with the web UI's gradio (a 4.37 of its own). Everything it shows comes from the chat history of the browser session it
is shown in, so several users do not see each other's pictures.
"""

import base64
import contextlib
import html
import io
from collections import OrderedDict
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

from . import price, settings, strip, webui
from .texts import say

notices: list[str] = []
"""What the user should know about this installation."""

CSS = """
#multimodal_vcla .vcla-pictures {display: flex; flex-wrap: wrap; gap: 8px; margin-top: 6px}
#multimodal_vcla figure {margin: 0; width: 96px; font-size: 11px; line-height: 1.3; text-align: center}
#multimodal_vcla figure img {width: 96px; height: 72px; object-fit: contain; background: #8882; border-radius: 4px}
#multimodal_vcla figure.vcla-out img {opacity: .35}
#multimodal_vcla .vcla-error {color: #d33}
#multimodal_vcla_again {flex: none; width: auto; max-width: none}
#multimodal_vcla pre {white-space: pre-wrap; font-size: 11px}
"""
CSS += strip.CSS

# The chat is drawn by the web UI's own script, and no event of gradio tells when: so the panel follows what is drawn, but not while
# a reply is being written, when every long task of the browser can cost a drawing. gradio keeps one value per animation frame, so the
# drawing of a new message can be lost to the first words of its reply: then the words are for a message that is not there, and the
# whole chat is drawn again instead of writing them over the message before.
JS = """
{
    STRIP
    let seen = "", timer = null;
    const look = () => {
        timer = null;
        if (document.querySelector("._generating") !== null) return;
        copyStrip();
        const rows = document.querySelectorAll("#chat [data-index]").length;
        const pictures = [...document.querySelectorAll("#chat .image-attachment img")].map((image) => image.src.length);
        const chat = document.querySelector("#past-chats input:checked")?.value;
        const now = [rows, chat, ...pictures].join();
        if (now !== seen) {
            seen = now;
            document.getElementById("multimodal_vcla_refresh")?.click();
        }
    };
    new MutationObserver(() => { timer ??= setTimeout(look, 400); }).observe(document.body,
        {subtree: true, childList: true, attributes: true, attributeFilter: ["class"]});
    const draw = window.applyMorphdomUpdate;
    if (draw) window.applyMorphdomUpdate = (data) => {
        const wanted = data.last_message_only ? data.html.match(/data-index="?(\\d+)/)?.[1] : undefined;
        const drawn = [...document.querySelectorAll("#chat .messages > [data-index]")].at(-1)?.dataset.index;
        if (wanted === undefined || wanted === drawn) draw(data);
        else document.getElementById("multimodal_vcla_redraw")?.click();
    };
}
""".replace("STRIP", strip.JS)


def visible_error(message: str, code: int = 400) -> Exception:
    """An error that the browser shows as a toast and the API answers with.

    Args:
        message: for the user.
        code: the API's HTTP status.
    """
    bases: list[type[Exception]] = []
    with contextlib.suppress(Exception):
        import gradio

        bases.append(gradio.Error)
    if (api_error := webui.api_error()) is not None:
        bases.append(api_error)

    def __init__(self, message: str):
        Exception.__init__(self, message)
        self.message, self.code, self.param, self.internal_message = message, code, "messages", ""
        self.duration, self.visible = 20, True

    names = {"__init__": __init__, "__str__": lambda self: self.message}
    return type("PictureRefused", tuple(bases) or (RuntimeError,), names)(message)


@contextlib.contextmanager
def shown_to_the_user():
    """Turns whatever goes wrong with pictures inside into an error that the user sees."""
    from .pictures import PictureError

    try:
        yield
    except PictureError as error:
        raise visible_error(str(error)) from error
    except Exception as error:
        if hasattr(error, "internal_message"):  # made by visible_error already, or the web UI's own
            raise
        webui.logger.exception("A prompt with pictures could not be made.")
        raise visible_error(say("failed", reason=f"{type(error).__name__}: {error}"), 500) from error


_last_prompts: "OrderedDict[Any, frozenset[str]]" = OrderedDict()
"""Chat to the pictures that were dropped from its last prompt to fit the context."""


def remember(chat: Any, offered: Iterable[str], used: list[str]) -> None:
    """Which pictures were to stand in the last prompt of a chat, and which of them do."""
    if chat is None:  # the API
        return
    _last_prompts[chat] = frozenset(offered).difference(used)
    _last_prompts.move_to_end(chat)
    while len(_last_prompts) > 256:
        _last_prompts.popitem(last=False)


def notice(text: str) -> None:
    """A panel that holds one sentence."""
    import gradio as gr

    gr.HTML(f'<div class="vcla-error">{html.escape(text)}</div>', elem_id="multimodal_vcla")


def build() -> None:
    """Make the panel. Called inside the interface's layout, when every component of the web UI exists."""
    import gradio as gr

    components = webui.shared().gradio
    history, textbox = components["history"], components["textbox"]
    chat = [components[name] for name in ("unique_id", "character_menu", "mode", "truncation_length")]
    with gr.Accordion(say("title"), open=True, elem_id="multimodal_vcla"):
        display = gr.HTML(show({"internal": []}))
        with gr.Row():
            which = gr.CheckboxGroup(
                label=say("which"), choices=[], visible=False, interactive=True, elem_id="multimodal_vcla_which"
            )
            policies = [(say("all"), "all"), (say("last_n"), "last N"), (say("last_only"), "last only")]
            is_fixed = webui.is_multi_user()  # one setting for everybody: not one for anybody to change
            policy = gr.Radio(
                policies, value=_policy(), label=say("policy"), interactive=not is_fixed, elem_id="multimodal_vcla_policy"
            )
            count = gr.Number(
                value=settings.get("last_images"), label=say("n"), minimum=1, precision=0, interactive=not is_fixed,
                visible=_policy() == "last N", elem_id="multimodal_vcla_count",
            )  # fmt: skip
        limits = [
            gr.Radio(
                [], label=say(f"limits_{name}"), visible=False, interactive=not is_fixed, elem_id=f"multimodal_vcla_{name}"
            )
            for name in ("pixels", "tiles")
        ]
        with gr.Accordion(say("webcam"), open=False, elem_id="multimodal_vcla_webcam"):
            camera = gr.Image(
                sources=["webcam"],
                mirror_webcam=False,
                type="pil",
                show_label=False,
                height=320,
                elem_id="multimodal_vcla_camera",
            )
            take = gr.Button(say("take"), elem_id="multimodal_vcla_take")
        with gr.Row():
            look_again = gr.Button(say("look_again"), elem_id="multimodal_vcla_again", elem_classes=["small-button"])
        refresh = gr.Button(say("refresh"), visible=False, elem_id="multimodal_vcla_refresh")

    redraw = gr.Button(visible=False, elem_id="multimodal_vcla_redraw")
    drawn_from = [components[name] for name in ("history", "name1", "name2", "mode", "chat_style", "character_menu")]
    redraw.click(webui.redraw, drawn_from, components["display"], show_progress="hidden")
    for name in ("model_status", "truncation_length"):
        # In the browser: a Python event here would leave a progress timer running. gradio calls a value changed whenever the component
        # took part in an event, the refresh among them.
        js = f"(value) => {{ if (window.vcla_{name} === value) return; window.vcla_{name} = value; CLICK }}"
        click = "document.getElementById('multimodal_vcla_refresh')?.click();"
        components[name].change(None, components[name], None, js=js.replace("CLICK", click))

    outputs = [display, which, *limits]
    # By default a click is dropped while the one before is not answered, and what has been drawn meanwhile would never be shown.
    refresh.click(_refresh, [history, *chat], outputs, show_progress="hidden", trigger_mode="multiple")
    which.input(_leave_out, [which, history, *chat], [history, display], show_progress="hidden")
    policy.input(_set_policy, [policy, count, history, *chat], [count, *outputs], show_progress="hidden")
    count.input(_set_policy, [policy, count, history, *chat], [count, *outputs], show_progress="hidden")
    for limit in limits:
        limit.input(_set_limits, [*limits, history, *chat], outputs, show_progress="hidden")
    look_again.click(_look_again, [history, *chat], outputs, show_progress="hidden")
    take.click(_to_message, [camera, textbox], [camera, textbox], show_progress="hidden")


def show(history: dict, chat: Any = None, context: Any = None) -> str:
    """The status line, the pictures of a chat and what is known about the model folder, as HTML.

    Args:
        context: the length of the session's context, in tokens; the web UI's setting when absent.
    """
    about, missing = _about_the_folders()
    parts = [f"<div>{html.escape(text)}</div>" for text in (_status(history, chat, context), *_reused())]
    parts += [f'<div class="vcla-error">{html.escape(text)}</div>' for text in (*notices, *_neighbours(), *missing)]
    entries = _entries(history, chat)
    figures = [
        f'<figure class="{"" if entry.is_in else "vcla-out"}"><img src="{entry.thumbnail}" alt="">'
        f"<figcaption>{number}. {html.escape(entry.name[:24])}<br>{html.escape(entry.note)}</figcaption></figure>"
        for number, entry in enumerate(entries, 1)
    ]
    parts.append(f'<div class="vcla-pictures">{"".join(figures)}</div>')
    parts.append(strip.render(entries, _in_short(history, chat, context), _sees()))
    if about:
        lines = html.escape("\n".join(about))
        parts.append(f"<details><summary>{html.escape(say('about'))}</summary><pre>{lines}</pre></details>")
    return "".join(parts)


def _entries(history: dict, chat: Any) -> list[strip.Entry]:
    entries = []
    for (picture, is_kept), is_left_out in zip(_pictures(history), _left_out(history), strict=True):
        was_dropped = is_kept and picture.key in _last_prompts.get(chat, ())
        note = say("left_out") if not is_kept else say("fits_not") if was_dropped else _cost(picture)
        entries.append(strip.Entry(picture.name, _thumbnail(picture), note, not is_left_out, is_kept and not was_dropped))
    return entries


def _reused() -> list[str]:
    """How much of the last prompt was there from before, where anything is kept."""
    from .generate import last_reuse

    last = last_reuse()
    if last is None or not last.num_prompt_tokens or webui.is_multi_user():  # the last one may be somebody else's
        return []
    return [say("reused", total=last.num_prompt_tokens, reused=last.num_reused_tokens)]


def _about_the_folders() -> tuple[list[str], list[str]]:
    """What the doctor says of the folders where the model and its vision model are, and, while it does not see, what they lack."""
    from . import vision

    if not webui.is_ours_to_serve() or webui.model() is None or webui.is_multi_user():  # paths are not for everybody
        return [], []
    lines, missing = [], []
    for folder in vision.folders():
        found, lacking = _examined(str(folder), max(path.stat().st_mtime_ns for path in (folder, *folder.glob("vision"))))
        lines, missing = [*lines, *found], [*missing, *lacking]
    return lines, missing if vision.status()[0] != "ready" else []


@lru_cache(maxsize=8)
def _examined(folder: str, changed_ns: int) -> tuple[list[str], list[str]]:
    """The doctor's lines about a folder, and what is missing. Nothing about memory: the model is there already."""
    from pipelines import doctor

    try:
        report = doctor.examine(folder, is_thorough=False)
    except Exception as error:  # odd files must not take the panel away
        return [f"{folder}: {error}"], []
    report.folder, report.memory, report.next = Path(folder).name, {}, []
    return report.lines(), report.missing


def _status(history: dict, chat: Any, context: Any) -> str:
    from . import vision

    if not webui.is_ours_to_serve():
        loader = type(webui.model()).__name__
        return say("no_model") if webui.model() is None else say("native", loader=loader)
    state, found, reason = vision.status()
    if state == "ready":
        return say("seeing", name=found.pipeline.name, device=found.device, **_held(found, history, chat, context))
    return reason or say(state if state != "none" else "no_model", name=webui.model_name())


def _held(found: Any, history: dict, chat: Any, context: Any) -> dict[str, Any]:
    """The pictures in the context, what they take of it, and its length, in tokens."""
    held = [picture for picture, is_kept in _pictures(history) if is_kept]
    held = [picture for picture in held if picture.key not in _last_prompts.get(chat, ())]
    pictures = say("one_picture" if len(held) == 1 else "pictures", count=len(held))
    length = int(context or webui.shared().settings.get("truncation_length"))
    return {"pictures": pictures, "used": sum(found.costs(held)), "context": length}


def _in_short(history: dict, chat: Any, context: Any) -> str:
    """For the strip: what the pictures take of the context; why none is seen."""
    from . import vision

    if not webui.is_ours_to_serve():
        return ""
    _, found, reason = vision.status()
    return reason or (say("in_strip", **_held(found, history, chat, context)).strip() if found else "")


def _sees() -> bool:
    """The loaded model sees, or is going to once there is a picture."""
    from . import vision

    return webui.is_ours_to_serve() and vision.status()[0] in ("waiting", "loading", "ready")


def _cost(picture: Any) -> str:
    from . import vision

    found = vision.status()[1]
    return price.of_picture(found, picture) if found else ""


def _neighbours() -> list[str]:
    """Other extensions that stand before us at a hook of ours."""
    effects = {"custom_generate_chat_prompt": "effect_prompt", "custom_tokenized_length": "effect_length"}
    owners = {hook: webui.who_has(hook) for hook in effects}
    return [say("other_owns", name=owners[hook], hook=hook, effect=say(effects[hook])) for hook in effects if owners[hook]]


def _pictures(history: dict) -> list[tuple[Any, bool]]:
    """The pictures of a chat, and whether they go into the prompt."""
    from . import conversation

    turns = conversation.row_turns(history or {})
    kept = conversation.choose(turns, settings.pictures_kept())
    return [(picture, id(picture) in kept) for turn in turns for picture in turn.pictures]


_thumbnails: "OrderedDict[str, str]" = OrderedDict()


def _thumbnail(picture: Any) -> str:
    if picture.key not in _thumbnails:
        try:
            image = picture.open().convert("RGB")
            image.thumbnail((192, 144))
            file = io.BytesIO()
            image.save(file, "JPEG", quality=80)
            _thumbnails[picture.key] = "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")
        except Exception:  # what is wrong with it is said when it is sent
            _thumbnails[picture.key] = ""
        while len(_thumbnails) > 256:
            _thumbnails.popitem(last=False)
    return _thumbnails[picture.key]


def _policy() -> str:
    if settings.get("add_all_images_to_prompt"):
        return "all"
    return "last only" if settings.get("last_images") == 1 else "last N"


def _left_out(history: dict) -> list[bool]:
    """Which pictures of a chat the user has left out."""
    from .conversation import LEFT_OUT, attachments

    rows = range(len((history or {}).get("internal") or []))
    return [bool(item.get(LEFT_OUT)) for row in rows for item in attachments(history, row)]


def _refresh(history, unique_id, character, mode, context):
    import gradio as gr

    from . import vision

    vision.look_if_whole()
    flags = _left_out(history)
    numbers = [str(number) for number in range(1, len(flags) + 1)]
    chosen = [number for number, is_out in zip(numbers, flags, strict=True) if not is_out]
    which = gr.update(choices=numbers, value=chosen, visible=bool(numbers))
    return show(history, unique_id, context), which, *_limits()


def _limits() -> list[dict]:
    """What can be chosen to make pictures cost less, as updates of both controls; unseen where the model leaves no choice."""
    import gradio as gr

    from . import vision

    state, found, _ = vision.status()
    offered = [
        price.pixel_choices(found) if found else [],
        price.tile_choices(found) if found or state == "blind" else [],
    ]
    return [
        gr.update(choices=choices, value=value if choices else None, visible=bool(choices))
        for choices, value in zip(offered, price.chosen(), strict=True)
    ]


def _set_limits(pixels, tiles, history, unique_id, character, mode, context):
    price.choose(pixels, tiles)
    _last_prompts.pop(unique_id, None)
    return _refresh(history, unique_id, character, mode, context)


def _leave_out(chosen, history, unique_id, character, mode, context):
    """Write what was chosen into the chat history, where the pictures are."""
    from .conversation import LEFT_OUT, attachments

    items = [item for row in range(len(history["internal"])) for item in attachments(history, row)]
    for number, item in enumerate(items, 1):
        if str(number) in chosen:
            item.pop(LEFT_OUT, None)
        else:
            item[LEFT_OUT] = True
    _last_prompts.pop(unique_id, None)
    webui.save_history(history, {"unique_id": unique_id, "character_menu": character, "mode": mode})
    return history, show(history, unique_id, context)


def _set_policy(policy, count, history, unique_id, character, mode, context):
    import gradio as gr

    settings.params["add_all_images_to_prompt"] = policy == "all"
    settings.params["last_images"] = 1 if policy == "last only" else max(int(count or 1), 2 if policy == "last N" else 1)
    _last_prompts.pop(unique_id, None)
    number = gr.update(value=settings.params["last_images"], visible=policy == "last N")
    return number, *_refresh(history, unique_id, character, mode, context)


def _look_again(history, unique_id, character, mode, context):
    from . import vision

    vision.look_again()
    _examined.cache_clear()
    return _refresh(history, unique_id, character, mode, context)


def _to_message(image, message):
    """A capture becomes a file of the message box, as if it had been attached there; the camera's picture is cleared."""
    import gradio as gr

    if image is None:
        gr.Warning(say("no_capture"))
        return gr.update(), gr.update()
    message = message or {"text": "", "files": []}
    path = webui.picture_file(image)
    return None, {"text": message.get("text") or "", "files": [*(message.get("files") or []), path]}
