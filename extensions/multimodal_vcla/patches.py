"""Changes to the web UI's functions, for what no hook reaches. Nothing on the disk is touched.

Each stands for one sentence that a user would otherwise have to be told. A function is only wrapped while its parameters are
the ones written here; where they are not, the plugin goes on without, and says what is lost.
"""

import base64
import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from pipelines import registry
from pipelines.images import ImageError, load_image, to_data_uri

from . import api, conversation, marks, templates, vision, webui
from .conversation import attachments
from .texts import say

_ORIGINAL = "_multimodal_vcla_original"
_KEPT = "_multimodal_vcla_kept"
_SUFFIXES = {".tif", ".tiff", ".avif", ".heic", ".heif", ".jfif", ".ppm", ".pgm", ".pbm"}
"""Pictures that the file picker offers and the web UI then takes for text."""


@dataclass(frozen=True)
class Patch:
    """A function of the web UI and what is put around it.

    Attributes:
        parameters: what the function must take.
        around: (the original, its module) to the function that stands in its place.
        effect: what happens without it.
        is_loader: it loads a model, so that none says yet whether it is ours to serve.
    """

    parameters: tuple[str, ...]
    around: Callable[[Callable, ModuleType], Callable]
    effect: str
    is_loader: bool = False


def install(module: ModuleType, patches: Mapping[str, Patch]) -> list[str]:
    """Wrap functions of a module, each once however often this runs. Gives back what could not be done, in words."""
    problems = []
    for name, patch in patches.items():
        found = getattr(module, name, None)
        if hasattr(found, _ORIGINAL):
            continue
        if found is None or tuple(inspect.signature(found).parameters) != patch.parameters:
            problems.append(say("patch", name=f"{module.__name__}.{name}", effect=patch.effect))
            continue
        ours = patch.around(found, module)
        wrapped = functools.wraps(found)(ours if patch.is_loader else _while_ours(found, ours))
        setattr(wrapped, _ORIGINAL, found)
        setattr(module, name, wrapped)
    return problems


def _while_ours(original: Callable, ours: Callable) -> Callable:
    """Ours while the loaded model is ours to serve; with a loader that has its own vision the web UI's, unchanged."""

    def choose() -> Callable:
        return ours if webui.is_ours_to_serve() else original

    if inspect.isgeneratorfunction(original):  # gradio streams what is a generator function itself

        def generate(*args, **kwargs):
            yield from choose()(*args, **kwargs)

        return generate
    return lambda *args, **kwargs: choose()(*args, **kwargs)


def _take_other_formats(original, chat):
    """A picture in a format that the web UI takes for text becomes a PNG attachment, with the name it had."""

    def add_message_attachment(history, row_idx, file_path, is_user=True):
        path = Path(file_path)
        if path.suffix.lower() not in _SUFFIXES:
            return original(history, row_idx, file_path, is_user)
        try:
            data = to_data_uri(load_image(path))
        except ImageError:  # as it is: what is wrong is said when the prompt is made, with the message in the chat
            data = "data:application/octet-stream;base64," + base64.b64encode(path.read_bytes()).decode("ascii")
        entry = history.setdefault("metadata", {}).setdefault(f"{'user' if is_user else 'assistant'}_{row_idx}", {})
        entry.setdefault("timestamp", chat.get_current_timestamp())
        known = entry.setdefault("attachments", [])
        number = sum(item.get("type") == "image" for item in known) + 1
        known.append({"name": path.name, "type": "image", "image_data": data, "image_id": number})
        return known[-1]

    return add_message_attachment


def _keep_pictures_of_dummy_messages(original, chat):
    """ "Send dummy message" and "Start reply with" keep the pictures of the message."""

    def send_dummy_message(text, state):
        history = original(text, state)
        row = len(history["internal"]) - 1
        for path in text.get("files", []) if isinstance(text, dict) else []:
            chat.add_message_attachment(history, row, path, is_user=True)
        if kept := state.pop(_KEPT, None):
            history["metadata"].setdefault(f"user_{row}", {}).setdefault("attachments", []).extend(kept)
        return history

    return send_dummy_message


def _keep_pictures_on_regenerate(original, chat):
    """With "Start reply with" set, "Regenerate" takes the last message out and puts its text back; here its pictures too."""

    def generate_chat_reply_wrapper(text, state, regenerate=False, _continue=False):
        state.pop(_KEPT, None)
        if regenerate and state.get("start_with") and not _continue:
            kept = attachments(state["history"], len(state["history"]["internal"]) - 1)
            state = {**state, _KEPT: kept} if kept else state
        yield from original(text, state, regenerate, _continue)

    return generate_chat_reply_wrapper


def _draw_messages_without_text(original, chat):
    """A message that is nothing but a picture is drawn in the chat."""

    def chat_html_wrapper(history, *args, **kwargs):
        rows = [row for row, entry in enumerate(history["visible"]) if not entry[0] and attachments(history, row)]
        if rows:
            visible = [list(entry) for entry in history["visible"]]
            for row in rows:
                visible[row][0] = "&nbsp;"
            history = {**history, "visible": visible}
        return original(history, *args, **kwargs)

    return chat_html_wrapper


def _send_marks_to_the_notebook(original, chat):
    """ "Send to Notebook" writes our marks, so that the text goes on seeing the pictures of the chat it came from."""

    def handle_send_chat_click(state):
        history = state["history"]
        found = conversation.slots(history, "", True, None)
        kept = conversation.choose([slot.turn for slot in found], None)
        marked, _ = conversation.marked(history, found, kept, marks.mark, marks.without_typed_marks)
        return original({**state, "history": marked})

    return handle_send_chat_click


def _pictures_as_items(original, chat):
    """Chat templates of whole models get pictures as they take them."""

    def get_compiled_template(template_str):
        seeing = vision.whole()
        return original(template_str) if seeing is None else templates.compiled(original, template_str, seeing.pipeline)

    return get_compiled_template


def _load_whole_models(original, models):
    """The Transformers loader opens folders of image-text-to-text models, most of which `AutoModelForCausalLM` does not know."""

    def transformers_loader(model_name):
        whole = registry.model_class(webui.models_folder() / model_name)
        if whole is None:
            return original(model_name)
        loader = webui.module("modules.transformers_loader")
        known, loader.AutoModelForCausalLM = loader.AutoModelForCausalLM, whole
        try:
            return original(model_name)
        finally:
            loader.AutoModelForCausalLM = known

    return transformers_loader


CHAT = {
    "add_message_attachment": Patch(
        ("history", "row_idx", "file_path", "is_user"), _take_other_formats, "TIFF, AVIF and HEIC files are not taken."
    ),
    "send_dummy_message": Patch(
        ("text", "state"), _keep_pictures_of_dummy_messages, 'dummy messages and "Start reply with" lose their pictures.'
    ),
    "generate_chat_reply_wrapper": Patch(
        ("text", "state", "regenerate", "_continue"),
        _keep_pictures_on_regenerate,
        'regenerating with "Start reply with" loses the pictures.',
    ),
    "chat_html_wrapper": Patch(
        ("history", "name1", "name2", "mode", "style", "character", "reset_cache", "last_message_only"),
        _draw_messages_without_text,
        "messages that are only a picture are not drawn.",
    ),
    "handle_send_chat_click": Patch(
        ("state",), _send_marks_to_the_notebook, "the notebook does not see the pictures of a chat sent to it."
    ),
    "get_compiled_template": Patch(
        ("template_str",), _pictures_as_items, "chat templates of image-text-to-text models may write nothing for a picture."
    ),
}
"""Functions of `modules.chat`, by name."""

ANTHROPIC = {
    "convert_request": Patch(
        ("body",), api.convert_request, "pictures given by address, or in tool results, are dropped in Anthropic requests."
    ),
}
"""Functions of `modules.api.anthropic`, by name."""

COMPLETIONS = {
    "convert_history": Patch(
        ("history",), api.convert_history, "pictures are seen in the user's messages only, before the text of their message."
    ),
    **dict.fromkeys(
        ("stream_chat_completions", "stream_completions"),
        Patch(
            ("body", "is_legacy", "stop_event"),
            api.told_in_the_stream,
            "a streamed request that is refused ends without the reason.",
        ),
    ),
}
"""Functions of `modules.api.completions`, by name."""

MODELS = {
    "transformers_loader": Patch(
        ("model_name",),
        _load_whole_models,
        "image-text-to-text models of transformers are not loaded, or without their vision part.",
        is_loader=True,
    ),
}
"""Functions of `modules.models`, by name."""


def install_all() -> list[str]:
    """Put all of the above into the web UI; gives back what could not be done, in words."""
    problems = install(webui.module("modules.chat"), CHAT) + install(webui.module("modules.models"), MODELS)
    if webui.api_error() is not None:
        problems += install(webui.module("modules.api.anthropic"), ANTHROPIC)
        problems += install(webui.module("modules.api.completions"), COMPLETIONS)
    return problems
