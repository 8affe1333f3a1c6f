"""The one file that knows text-generation-webui: what the plugin asks it, and nothing of what the plugin does.

Written against TextGen 4.7.3 and 4.9. `modules.*` is imported when asked for, because which parts of it can be
imported depends on the loader and on the flags.
"""

import functools
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from . import settings

NATIVE_LOADERS = {"LlamaServer", "Exllamav3Model", "TensorRTLLMModel"}
"""Classes of `shared.model` that never call our hooks and have a vision of their own."""

logger = logging.getLogger("multimodal_vcla")


def shared():
    import modules.shared

    return modules.shared


def module(name: str) -> ModuleType:
    """One of the web UI's modules, for `patches.py`."""
    import importlib

    return importlib.import_module(name)


def model() -> Any:
    return shared().model


def tokenizer() -> Any:
    return shared().tokenizer


def model_name() -> str:
    return shared().model_name


def model_folder() -> Path | None:
    """Where the loaded model lies; None when no model is named."""
    from modules.utils import resolve_model_path

    name = model_name()
    return None if name in (None, "", "None") else Path(resolve_model_path(name))


def models_folder() -> Path:
    return Path(shared().args.model_dir)


def is_ours_to_serve() -> bool:
    """The model's loader is one whose prompts go through our hooks; also while the model is unloaded for idleness."""
    if model() is None:
        return model_folder() is not None and shared().args.loader in ("Transformers", "ExLlamav3_HF")
    return type(model()).__name__ not in NATIVE_LOADERS


def wake_model() -> None:
    """Load the model again when it was unloaded for idleness."""
    from modules.models import load_model_if_idle_unloaded

    load_model_if_idle_unloaded()


@functools.cache
def load_at_start(name: str) -> None:
    """Load a model with the Transformers loader, once, where none is loaded: `--model` is loaded before extensions, without what
    only they can load.

    Raises:
        FileNotFoundError: there is no such model.
        Whatever the loader raises.
    """
    from modules.LoRA import add_lora_to_model
    from modules.models import load_model
    from modules.models_settings import get_model_metadata, update_model_parameters

    web = shared()
    if web.model is not None:
        return
    if not (models_folder() / name).is_dir():
        raise FileNotFoundError(f"{str(models_folder() / name)!r} is not a folder.")
    update_model_parameters(get_model_metadata(name), initial=True)
    try:
        web.model, web.tokenizer = load_model(name, loader="Transformers")
    except BaseException:
        web.model_name = "None"
        raise
    if web.args.lora:
        add_lora_to_model(web.args.lora)


def takes_no_embeddings() -> str | None:
    """The loader's name where our hooks are called but embeddings cannot be given to the model."""
    return "ExLlamav3_HF" if type(model()).__name__ == "Exllamav3HF" else None


def is_multi_user() -> bool:
    return bool(shared().args.multi_user)


def generate_chat_prompt(user_input: str, state: dict, **kwargs) -> str:
    import modules.chat

    return modules.chat.generate_chat_prompt(user_input, state, **kwargs)


def prompt_budget(state: dict) -> int:
    """How many tokens a prompt may have."""
    from modules.text_generation import get_max_prompt_length

    return get_max_prompt_length(state)


def num_tokens(text: str) -> int:
    """How long a text is, pictures counted: the web UI asks our hook."""
    from modules.text_generation import get_encoded_length

    return get_encoded_length(text)


def others_with(hook: str) -> list[tuple[str, Any, bool]]:
    """Other extensions that define a hook: name, module, and whether they stand before us, so that the web UI asks them only."""
    from modules import extensions

    found, before_us = [], True
    for extension, name in extensions.iterator():
        if getattr(extension, "params", None) is settings.params:
            before_us = False
        elif hasattr(extension, hook):
            found.append((name, extension, before_us))
    return found


def next_in_line(hook: str) -> Callable | None:
    """The hook of the next extension that defines it: it would have been asked, were we not here."""
    return next((getattr(extension, hook) for _, extension, is_before in others_with(hook) if not is_before), None)


def who_has(hook: str) -> str | None:
    """The extension that the web UI asks instead of us."""
    return next((name for name, _, is_before in others_with(hook) if is_before), None)


def who_replies() -> str | None:
    """An extension that generates the replies itself, so that no prompt reaches us."""
    return next((name for name, *_ in others_with("custom_generate_reply")), None)


def fetch(url: str, max_bytes: int) -> bytes:
    """The bytes behind an http address, through the web UI's own guard against addresses that are not public.

    Raises:
        Exception: refused or unreachable; requests' and the guard's own.
    """
    from modules.web_search import safe_get

    response = safe_get(url, timeout=10)
    response.raise_for_status()
    data = response.content
    if len(data) > max_bytes:
        raise ValueError(f"{len(data)} bytes, allowed are {max_bytes}")
    return data


def api_error() -> type[Exception] | None:
    """The exception that the API turns into an answer with a message; None where there is no API."""
    try:
        from modules.api.errors import OpenAIError
    except Exception:
        return None
    return OpenAIError


def picture_file(image: Any) -> str:
    """Write a picture where the message box takes files from; the web UI empties that folder at every start."""
    folder = shared().user_data_dir / "cache" / "gradio"
    folder.mkdir(parents=True, exist_ok=True)
    path = Path(tempfile.mkdtemp(dir=folder)) / "webcam.png"
    image.convert("RGB").save(path)
    return str(path)


def redraw(*values: Any) -> Any:
    """The whole chat, as the web UI draws it."""
    return module("modules.chat").redraw_html(*values)


def save_history(history: dict, state: dict) -> None:
    """Write a chat to the disk as the web UI does after every change; it leaves out what it never saves."""
    import modules.chat

    modules.chat.save_history(history, state["unique_id"], state["character_menu"], state["mode"])
