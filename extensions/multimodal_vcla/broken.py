"""The hooks of an install that cannot be imported: everything goes on without pictures, and pictures are refused.

Standard library only, and nothing of the package at import time: it has to load when the rest does not.
"""

import sys

MARK = "<__media__>"
NATIVE = {"LlamaServer", "Exllamav3Model", "TensorRTLLMModel"}  # loaders whose own vision goes on


class Hooks:
    """Stands in for `hooks.py`.

    Args:
        error: why that could not be imported.
    """

    def __init__(self, error: Exception):
        self.reason = f"multimodal_vcla is not installed rightly, so pictures cannot be seen: {error}"

    def setup(self, params):
        pass

    def state_modifier(self, state):
        return state

    def input_modifier(self, string, state, is_chat=False):
        return string

    def custom_generate_chat_prompt(self, user_input, state, **kwargs):
        if _is_native():
            return None
        history = kwargs.get("history") or state.get("history") or {}
        rows = (history.get("metadata") or {}).values()
        attachments = [item for row in rows if isinstance(row, dict) for item in row.get("attachments") or []]
        parts = [message.get("content") for message in history.get("messages") or [] if isinstance(message, dict)]
        items = [item for part in parts if isinstance(part, list) for item in part] + attachments
        if any(isinstance(item, dict) and item.get("type") in ("image", "image_url") for item in items):
            self._refuse()

    def custom_tokenized_length(self, prompt):
        return None

    def tokenizer_modifier(self, state, prompt, input_ids, input_embeds):
        if state.get("raw_images") or (state.get("image_attachments") and MARK in prompt):
            self._refuse()
        return prompt, input_ids, input_embeds

    def logits_processor_modifier(self, processor_list, input_ids):
        return processor_list

    def ui(self):
        try:
            from multimodal_vcla import panel

            panel.notice(self.reason)
        except Exception:  # not even that; the terminal has the reason
            pass

    def custom_css(self):
        return ""

    def custom_js(self):
        return ""

    def _refuse(self):
        try:
            from multimodal_vcla.panel import visible_error

            error = visible_error(self.reason)
        except Exception:
            error = RuntimeError(self.reason)
        raise error


def _is_native():
    shared = sys.modules.get("modules.shared")
    return type(getattr(shared, "model", None)).__name__ in NATIVE
