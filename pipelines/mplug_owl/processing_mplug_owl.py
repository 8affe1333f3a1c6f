"""mPLUG-Owl's processor: the original's prompts.

    SYSTEM LINE\nHuman: <image>\nHuman: QUESTION\nAI: ANSWER\nHuman: ...

Pictures stand before the question of their turn, one `Human: <image>` line each. Three prompts are known, `prompt_style`: "readme"
(the README's system line, ends `AI: `), "server" (the demo server's system line, ends `AI: `), "lrv" (the server's system line, ends
`AI:`; LRV-Instruction V2's inference script).
"""

from pathlib import Path

from ..composite.processing import CompositeProcessor, read_settings
from .configuration_mplug_owl import MplugOwlConfig

IMAGE_TOKEN = "<image>"
AFTER_IMAGE = "\nHuman: "
STYLES = ("readme", "server", "lrv")
CHAT_TEMPLATE = (Path(__file__).parent / "chat_template.jinja").read_text(encoding="utf-8")


class MplugOwlProcessor(CompositeProcessor):
    """Image processor, tokenizer and chat template of an mPLUG-Owl model.

    Example:
        >>> messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is this?"}]}]
        >>> text = processor.apply_chat_template(messages, add_generation_prompt=True, prompt_style="server")
        >>> inputs = processor(images=[image], text=text)
    """

    image_token = IMAGE_TOKEN

    @staticmethod
    def template(prompt_style: str) -> str:
        if prompt_style not in STYLES:
            raise ValueError(f"Unknown prompt style {prompt_style!r}. Available: {', '.join(map(repr, STYLES))}.")
        return f"{{%- set prompt_style = prompt_style | default('{prompt_style}', true) -%}}\n{CHAT_TEMPLATE}"

    @classmethod
    def config_of(cls, folder: Path) -> MplugOwlConfig:
        return MplugOwlConfig.from_dict(read_settings(folder))
