"""The web UI's other chat modes: the same conversation as a dialogue of two characters, with or without an instruction around it.

Source: text-generation-webui, `modules/chat.py` (`generate_chat_prompt`) and `user_data/characters`; the texts that it sets by
default are `DEFAULT_CONTEXT`, `GREETING` and `COMMAND`.
"""

import random
from typing import Any

Row = dict[str, Any]
MODES = ("chat", "chat-instruct")
DEFAULT_CONTEXT = (
    "The following is a conversation with an AI Large Language Model. The AI has been trained to answer questions, provide "
    "recommendations, and help with decision making. The AI follows user requests. The AI thinks outside the box."
)
GREETING = "How can I help you today?"
COMMAND = (
    'Continue the chat dialogue below. Write a single reply for the character "{name}". Reply directly, without starting the reply '
    "with the character name."
)
NAMES = (("You", "AI"), ("You", "AI"), ("You", "Assistant"), ("User", "AI"), ("You", "Eyes"))
"""(user, character), to choose from."""
_CONTEXTS = (
    DEFAULT_CONTEXT,
    DEFAULT_CONTEXT,
    "A conversation between a curious human and an AI assistant.",
    "The assistant answers questions about pictures.",
    "This is a chat with a friendly character that likes drawings. The character is calm and kind.",
    "",
)
_GREETINGS = (GREETING, GREETING, "Hello! Show me a picture.", "Hi!", "")
_TEMPLATE = (
    "{%- macro said(content) -%}{%- for item in content -%}{%- if item.type == 'image' -%}{{ '<img><img_token></img>\\n' }}"
    "{%- else -%}{{ item.text }}{%- endif -%}{%- endfor -%}{%- endmacro -%}"
    "{{ bos_token }}{%- for message in messages -%}{{ {'system': '', 'user': '\\nUSER: ', 'assistant': '\\nCHARACTER: '}[message.role] "
    "~ said(message.content) }}{%- endfor -%}{{ '\\nCHARACTER:' if add_generation_prompt else '' }}"
)


def in_mode(mode: str, row: Row, rng: random.Random | None = None) -> Row:
    """A row as a mode of `MODES` would have it; context, greeting and names vary with `rng`, else they are the web UI's own."""
    user, character = rng.choice(NAMES) if rng else NAMES[0]
    context, greeting = (rng.choice(_CONTEXTS), rng.choice(_GREETINGS)) if rng else (DEFAULT_CONTEXT, GREETING)
    opening = (f"{context}\n" if context else "") + (f"\n{character}: {greeting}" if greeting else "")
    return (_as_chat if mode == "chat" else _as_chat_instruct)(row, opening, user, character)


def all_texts() -> list[str]:
    """Every text and name of the dialogues: what a tokenizer has to be able to say."""
    names = [f"{name}: " for pair in NAMES for name in pair]
    return [*_CONTEXTS, *_GREETINGS, COMMAND.format(name=""), *names]


def _as_chat(row: Row, opening: str, user: str, character: str) -> Row:
    """Every answer is learnt, behind the character's name."""
    template = _TEMPLATE.replace("USER", user).replace("CHARACTER", character)
    system = [{"role": "system", "content": [_text(opening)]}] if opening else []
    return {**row, "messages": [*system, *row["messages"]], "chat_template_kwargs": {"chat_template": template}}


def _as_chat_instruct(row: Row, opening: str, user: str, character: str) -> Row:
    """The whole dialogue stands in one instruction, and its last answer is learnt."""
    content = [_text(f"{COMMAND.format(name=character)}\n\n{opening}")]
    for message in row["messages"][:-1]:
        content.append(_text(f"\n{user if message['role'] == 'user' else character}: "))
        pictures = [item for item in message["content"] if item["type"] == "image"]
        said = "".join(item["text"] for item in message["content"] if item["type"] == "text")
        content += [*pictures, _text(said)]
    content.append(_text("\n"))
    return {**row, "messages": [{"role": "user", "content": content}, row["messages"][-1]]}


def _text(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}
