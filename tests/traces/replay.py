"""Loads the recorded hook calls of this folder and makes them again, on an extension of choice.

    from traces import replay
    for call, result in replay.run(replay.load("03_three_images_two_turns"), script): ...

`state` is one dictionary through a request: what an extension adds to it stays, what was recorded is put back before every call.
A state that is first seen in the middle of a known request is a deep copy of that request's, as in the web UI, so a value
that cannot be deep-copied fails here as it would there.
"""

import base64
import copy
import hashlib
import io
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from PIL import Image

HERE = Path(__file__).parent
NAMES = sorted(path.stem for path in HERE.glob("*.json"))
PICTURES = {hashlib.sha256(path.read_bytes()).hexdigest(): path.name for path in (HERE / "images").iterdir()}
POSITIONAL = {
    "history_modifier": ("history",),
    "state_modifier": ("state",),
    "chat_input_modifier": ("text", "visible_text", "state"),
    "input_modifier": ("string", "state"),
    "bot_prefix_modifier": ("string", "state"),
    "output_modifier": ("string", "state"),
    "custom_generate_chat_prompt": ("user_input", "state"),
    "tokenizer_modifier": ("state", "prompt", "input_ids", "input_embeds"),
    "logits_processor_modifier": ("processor_list", "input_ids"),
    "custom_tokenized_length": ("prompt",),
}


def load(name: str) -> dict:
    """A trace, its long strings put back."""
    trace = json.loads((HERE / f"{name}.json").read_text(encoding="utf-8"))
    constants = trace.get("constants", {})

    def put_back(value):
        if isinstance(value, dict):
            if set(value) == {"$const"}:
                return constants[value["$const"]]
            return {key: put_back(item) for key, item in value.items()}
        return [put_back(item) for item in value] if isinstance(value, list) else value

    trace["calls"] = [call for call in put_back(trace["calls"]) if "skipped" not in call]
    return trace


def calls(trace: dict, hook: str) -> list[dict]:
    return [call for call in trace["calls"] if call["hook"] == hook]


def name_of(source: str | bytes) -> str:
    """Which picture of `images/` these bytes, or this `data:` URI, are."""
    data = base64.b64decode(source.split(",", 1)[1]) if isinstance(source, str) else source
    return PICTURES[hashlib.sha256(data).hexdigest()]


def as_value(recorded):
    """A recorded value as the hook got it."""
    if isinstance(recorded, dict):
        if recorded.get("$type") == "threading.Event":
            return threading.Event()
        return None if "$type" in recorded else {key: as_value(item) for key, item in recorded.items()}
    return [as_value(item) for item in recorded] if isinstance(recorded, list) else recorded


class Replayer:
    """Builds the arguments of each call of one trace."""

    def __init__(self):
        self.states: dict[str, dict] = {}

    def state(self, call: dict) -> dict:
        recorded = {
            key: value
            for key, value in call["args"]["state"].items()
            if key not in ("_absent", "_other_keys", "_raw_images_info")
        }
        values = {key: as_value(value) for key, value in recorded.items()}
        if "raw_images" in recorded:
            values["raw_images"] = [Image.open(io.BytesIO(base64.b64decode(image))) for image in recorded["raw_images"]]
        own, request = call["ids"].get("state"), call["ids"].get("request")
        if own not in self.states:
            known = {key: value for key, value in self.states.get(request, {}).items() if key != "stop_event"}
            self.states[own] = copy.deepcopy(known)
        self.states[own].update(values)
        return self.states[own]

    def keep(self, call: dict, state: dict) -> None:
        """What `state_modifier` gave back is the state from then on."""
        self.states[call["ids"].get("state")] = state

    def arguments(self, call: dict) -> tuple[list, dict]:
        values = []
        for name in POSITIONAL[call["hook"]]:
            recorded = call["args"].get(name)
            if name == "state":
                values.append(self.state(call))
            elif name == "input_ids":
                values.append(torch.tensor(recorded))
            elif name == "processor_list":
                values.append([])
            else:
                values.append(as_value(recorded))
        keywords = {"is_chat": call["args"]["is_chat"]} if "is_chat" in call["args"] else {}
        return values, {**keywords, **as_value(call["args"].get("kwargs") or {})}


def run(trace: dict, extension, leave_out: tuple[str, ...] = (), threads: bool = False):
    """Make every recorded call that `extension` has a hook for; yields (call, what it returned or raised).

    Args:
        leave_out: hooks that are not called.
        threads: on threads of their own, as recorded, in the recorded order.
    """
    replayer, pools = Replayer(), {}
    try:
        for call in trace["calls"]:
            hook = getattr(extension, call["hook"], None)
            if call["hook"] not in POSITIONAL or hook is None or call["hook"] in leave_out:
                continue
            values, keywords = replayer.arguments(call)
            try:
                if threads:
                    pool = pools.setdefault(call["thread_id"], ThreadPoolExecutor(1))
                    result = pool.submit(hook, *values, **keywords).result()
                else:
                    result = hook(*values, **keywords)
            except Exception as error:
                result = error
            if call["hook"] == "state_modifier" and isinstance(result, dict):
                replayer.keep(call, result)
            yield call, result
    finally:
        for pool in pools.values():
            pool.shutdown()
