"""Renders prompts as the web UI does, and keeps a chat as it does, as far as pictures are concerned."""

import base64
import copy
import sys
from pathlib import Path
from types import SimpleNamespace

from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from . import shared
from .extensions import apply_extensions
from .text_generation import encode, get_encoded_length, get_max_prompt_length

_jinja = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
saved: list = []


def get_compiled_template(template_str):
    return _jinja.from_string(template_str)


def _named(text, state):
    for mark, name in (("{{user}}", "name1"), ("{{char}}", "name2"), ("<USER>", "name1"), ("<BOT>", "name2")):
        text = text.replace(mark, state[name])
    return text


def _with_pictures(text, entry):
    attached = (entry or {}).get("attachments") or []
    marks = "<__media__>" * sum(item.get("type") == "image" for item in attached)
    return f"{marks}\n\n{text}" if marks else text


def generate_chat_prompt(user_input, state, **kwargs):
    is_continued, is_impersonated = kwargs.get("_continue", False), kwargs.get("impersonate", False)
    history = kwargs.get("history", state["history"])
    metadata = history.get("metadata", {})
    rows = history["internal"]
    template = state["instruction_template_str" if state["mode"] == "instruct" else "chat_template_str"]
    values = {"tools": state.get("tools"), "bos_token": shared.bos_token, "eos_token": shared.eos_token}
    values |= {"name1": state["name1"], "name2": state["name2"], "user_bio": state["user_bio"]}
    if state["mode"] == "instruct":
        system = state["custom_system_message"]
    else:
        system, template = _named(state["context"], state), _named(template, state)
    messages = [{"role": "system", "content": system}] if system.strip() else []
    for row, entry in enumerate(rows):
        if len(entry) > 3 and entry[3].get("role") == "system":
            messages.append({"role": "system", "content": entry[0].strip()})
        elif entry[0].strip() not in ("", "<|BEGIN-VISIBLE-CHAT|>"):
            content = _with_pictures(entry[0].strip(), metadata.get(f"user_{row}"))
            messages.append({"role": "user", "content": content})
        if entry[1].strip():
            messages.append({"role": "assistant", "content": entry[1].strip()})
    if not (is_continued or is_impersonated):
        entry = metadata.get(f"user_{len(rows)}", {})
        if user_input.strip() or "attachments" in entry:
            messages.append({"role": "user", "content": _with_pictures(user_input.strip(), entry)})
    if is_impersonated:
        messages.append({"role": "user", "content": "fake user message replace me"})

    def make_prompt():
        last, shown = messages[-1], list(messages)
        is_nested = state["mode"] == "chat-instruct"
        if is_continued:
            shown = shown[:-1]
            if not is_nested:
                shown += [{"role": last["role"], "content": "FAKE"}, {"role": "assistant", "content": "."}]
        is_open = not (is_continued or is_impersonated or is_nested)
        prompt = get_compiled_template(template).render(messages=shown, add_generation_prompt=is_open, **values)
        if is_nested:
            command = state["chat-instruct_command"].replace("<|character|>", state["name2"]).replace("<|prompt|>", prompt)
            outer = [{"role": "user", "content": _named(command, state)}]
            if state["custom_system_message"].strip():
                outer.insert(0, {"role": "system", "content": state["custom_system_message"]})
            if is_continued:
                outer += [{"role": "assistant", "content": "FAKE"}, {"role": "assistant", "content": "."}]
            prompt = get_compiled_template(state["instruction_template_str"]).render(
                messages=outer, add_generation_prompt=not is_continued, **values
            )
        if is_continued:
            prompt = prompt.split("FAKE", 1)[0] + last["content"]
        if is_impersonated:
            prompt = prompt.split("fake user message replace me", 1)[0] + user_input
        return prompt

    prompt = make_prompt()
    if shared.tokenizer is None:
        return prompt
    budget = get_max_prompt_length(state)
    while messages and get_encoded_length(prompt) > budget:
        oldest = 1 if messages[0]["role"] == "system" else 0
        if len(messages) > oldest + 1:
            messages.pop(oldest)
            prompt = make_prompt()
            continue
        text, low, high = messages[-1]["content"], 0, len(messages[-1]["content"])
        while low < high:
            middle = (low + high + 1) // 2
            messages[-1]["content"] = text[:middle]
            fits = get_encoded_length(make_prompt()) <= budget
            low, high = (middle, high) if fits else (low, middle - 1)
        messages[-1]["content"] = text[:low]
        prompt = make_prompt()
        if get_encoded_length(prompt) > budget:
            raise ValueError("Failed to build the chat prompt.")
        get_encoded_length(text), get_encoded_length(text[:low])
        break
    return prompt


def add_message_attachment(history, row_idx, file_path, is_user=True):
    path = Path(file_path)
    entry = history.setdefault("metadata", {}).setdefault(f"user_{row_idx}", {"timestamp": get_current_timestamp()})
    attached = entry.setdefault("attachments", [])
    kinds = {".png": "png", ".jpg": "jpeg", ".gif": "gif"}
    if path.suffix not in kinds:
        return None
    data = base64.b64encode(path.read_bytes()).decode()
    url = f"data:image/{kinds[path.suffix]};base64,{data}"
    attached.append({"name": path.name, "type": "image", "image_data": url, "image_id": len(attached) + 1})
    return attached[-1]


def get_current_timestamp():
    return "Jan 01, 2026 00:00"


def send_dummy_message(text, state):
    history = state["history"]
    text = text["text"] if isinstance(text, dict) else text
    history["visible"].append([text, ""])
    history["internal"].append([apply_extensions("input", text, state, is_chat=True), ""])
    history.setdefault("metadata", {})[f"user_{len(history['internal']) - 1}"] = {"timestamp": get_current_timestamp()}
    return history


def generate_chat_reply_wrapper(text, state, regenerate=False, _continue=False):
    if state["start_with"] and not _continue:
        if regenerate:
            state["history"]["visible"].pop()
            text = state["history"]["internal"].pop()[0]
            state["history"]["metadata"].pop(f"user_{len(state['history']['internal'])}", None)
        send_dummy_message(text, state)
        state["history"]["internal"][-1][1] = state["start_with"]
    yield state["history"]


def chat_html_wrapper(history, name1, name2, mode, style, character, reset_cache=False, last_message_only=False):
    return {"html": "".join(f"<p>{entry[0]}</p>" for entry in history["visible"] if entry[0])}


def handle_send_chat_click(state):
    return generate_chat_prompt("", state, _continue=True)


def save_history(history, unique_id, character, mode):
    saved.append((unique_id, history))


def one_turn(text, state, files=(), regenerate=False, _continue=False):
    """A chat turn up to the model: every hook in the web UI's order. Gives the history, the prompt and what `generate` would get."""
    output = copy.deepcopy(state["history"])
    output.setdefault("metadata", {})
    state = apply_extensions("state", state)
    state["add_bos_token"] = False
    if not (regenerate or _continue):
        row = len(output["internal"])
        for path in files:
            sys.modules[__name__].add_message_attachment(output, row, path, is_user=True)
        text = apply_extensions("input", text, state, is_chat=True)
        output["internal"].append([text, ""])
        output["visible"].append([text, ""])
    else:
        text = output["internal"][-1][0]
    attached = [item for row in range(len(output["internal"])) for item in _images(output, row)]
    if attached:
        state["image_attachments"] = attached
    shown = output if _continue else {**output, "internal": output["internal"][:-1], "visible": output["visible"][:-1]}
    keywords = {"_continue": _continue, "history": shown}
    prompt = apply_extensions("custom_generate_chat_prompt", text, state, **keywords)
    if prompt is None:
        prompt = generate_chat_prompt(text, state, **keywords)
    return SimpleNamespace(history=output, state=state, **vars(inputs_of(prompt, state)))


def inputs_of(prompt, state):
    """What `generate` would get for a prompt."""
    ids = encode(prompt, add_bos_token=state["add_bos_token"], truncation_length=get_max_prompt_length(state))
    max_new_tokens = state["truncation_length"] - ids.shape[-1] if state["auto_max_new_tokens"] else state["max_new_tokens"]
    prompt, ids, embeds = apply_extensions("tokenizer", state, prompt, ids, None)
    processors = apply_extensions("logits_processor", [], ids)
    return SimpleNamespace(prompt=prompt, ids=ids, embeds=embeds, processors=processors, max_new_tokens=max_new_tokens)


def _images(history, row):
    attached = history.get("metadata", {}).get(f"user_{row}", {}).get("attachments", [])
    return [item for item in attached if item.get("type") == "image"]


def new_state(**changes):
    """The interface's state, as far as prompts depend on it."""
    history = {"internal": [], "visible": [], "metadata": {}}
    texts = ("name1", "name2", "user_bio", "context", "custom_system_message", "chat-instruct_command", "start_with")
    state = {**dict.fromkeys(texts, ""), "history": history, "mode": "instruct", "chat_template_str": CHAT_TEMPLATE}
    state |= {"instruction_template_str": CHAT_TEMPLATE, "truncation_length": 2048, "max_new_tokens": 64}
    state |= {"auto_max_new_tokens": False, "add_bos_token": True, "unique_id": "chat 1", "character_menu": "", "tools": None}
    return {**state, **changes}


CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message.role + ': ' + message.content + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
)
