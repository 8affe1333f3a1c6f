"""MiniGPT-4's processor: the originals' prompts.

    SYSTEM LINE###Human: <Img><ImageHere></Img> QUESTION###Assistant: ANSWER###Human: ...

Several pictures of a turn are a `Human:` message each, the question joins the last one. Three prompts are known, `prompt_style`: "v1"
(the first release and LRV-Instruction V1; ends `Assistant:`), "main" (the current code; ends `Assistant: `), "llama2" (the LLaMA-2
variant: `<s>[INST] `, ` [/INST] `, no separator).
"""

from pathlib import Path

from ..composite.processing import CompositeProcessor, read_settings
from .configuration_minigpt4 import MiniGPT4Config

IMAGE_TOKEN = "<ImageHere>"
IMAGE_START, IMAGE_END = "<Img>", "</Img>"
SEPARATOR = "###"
STYLES = ("v1", "main", "llama2")
CHAT_TEMPLATE = (Path(__file__).parent / "chat_template.jinja").read_text(encoding="utf-8")


class MiniGPT4Processor(CompositeProcessor):
    """Image processor, tokenizer and chat template of a MiniGPT-4 model.

    Example:
        >>> messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is this?"}]}]
        >>> text = processor.apply_chat_template(messages, add_generation_prompt=True, prompt_style="main")
        >>> inputs = processor(images=[image], text=text)
    """

    image_token = IMAGE_TOKEN

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """What the chat template writes behind an answer, and training teaches as its end: the separator, where it has one."""
        turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "ANSWER"}]
        behind = self.apply_chat_template([*turns, turns[0]], tokenize=False).partition("ANSWER")[2]
        return (SEPARATOR,) if behind.startswith(SEPARATOR) else ()

    @staticmethod
    def template(prompt_style: str) -> str:
        if prompt_style not in STYLES:
            raise ValueError(f"Unknown prompt style {prompt_style!r}. Available: {', '.join(map(repr, STYLES))}.")
        return f"{{%- set prompt_style = prompt_style | default('{prompt_style}', true) -%}}\n{CHAT_TEMPLATE}"

    @classmethod
    def config_of(cls, folder: Path) -> MiniGPT4Config:
        return MiniGPT4Config.from_dict(read_settings(folder))
