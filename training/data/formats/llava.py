"""Conversations: LLaVA's, mPLUG-Owl's, ShareGPT's, and chats as APIs take them."""

import random
from collections.abc import Mapping
from typing import Any

from ..rows import Row, clean, make_row
from .base import Format, Skipped, need

SPEAKERS = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
}
SPEAKERS |= {"bard": "assistant", "system": "system"}


class ShareGPT(Format):
    name = "sharegpt"
    help = (
        "ShareGPT: {'conversations': [{'from': 'human' | 'gpt', 'value'}]}, text alone; a first answer without question is cut"
    )

    def row(self, record: Any, rng: random.Random) -> Row:
        (turns,) = need(record, "conversations")
        system, pairs = paired(turns)
        return make_row(pairs, [], system)


class Llava(Format):
    name = "llava"
    help = "LLaVA-Instruct (detail, reasoning, conversation) and what took its form: all turns, pictures where <image> stands"

    def row(self, record: Any, rng: random.Random) -> Row:
        (turns,) = need(record, "conversations")
        names = record.get("image") or []
        names = [names] if isinstance(names, str) else list(names)
        system, pairs = paired(turns, strip=lambda text: text)
        messages = [{"role": "system", "content": system}] if system else []
        shown = 0
        for question, answer in pairs:
            content, found = self._question(question)
            shown += found
            answered = [{"type": "text", "text": clean(answer)}]
            messages += [{"role": "user", "content": content}, {"role": "assistant", "content": answered}]
        if names and not shown:  # some exporters leave the mark out
            first = next(message for message in messages if message["role"] == "user")
            first["content"] = [{"type": "image"}] * len(names) + first["content"]
            shown = len(names)
        if shown != len(names):
            raise ValueError(f"{shown} marks <image> but {len(names)} pictures")
        return {"messages": messages, "images": [self.picture(name) for name in names]}

    def _question(self, text: str) -> tuple[list[dict], int]:
        """Items in reading order: a picture before or behind the text stays there."""
        pieces = text.split("<image>")
        content: list[dict] = []
        for number, piece in enumerate(pieces):
            content += [{"type": "image"}] if number else []
            content += [{"type": "text", "text": clean(piece)}] if piece.strip() else []
        return content, len(pieces) - 1


class LlavaFirstTurn(Llava):
    name = "llava_first"
    help = "LLaVA-Instruct as Multimodal-GPT's type 'llava' reads it: the first question and answer alone"

    def row(self, record: Any, rng: random.Random) -> Row:
        turns = need(record, "conversations")[0]
        return super().row({**record, "conversations": turns[:2]}, rng)


class MplugOwl(Format):
    name = "mplug_owl"
    help = "mPLUG-Owl's jsonl: {'text': 'SYSTEM\\nHuman: <image>\\nHuman: Q\\nAI: A', 'image', 'task_type'}; pictures may not be cut off"

    def row(self, record: Any, rng: random.Random) -> Row:
        (text,) = need(record, "text")
        names = record.get("image") or []
        names = [names] if isinstance(names, str) else list(names)
        system, *turns = text.split("\nHuman: ") if not text.startswith("Human: ") else ["", *text[7:].split("\nHuman: ")]
        messages: list[dict] = [{"role": "system", "content": clean(system)}] if system.strip() else []
        waiting: list[dict] = []
        for turn in turns:
            question, is_answered, answer = turn.partition("\nAI: ")
            for number, piece in enumerate(question.split("<image>")):
                waiting += [{"type": "image"}] if number else []
                waiting += [{"type": "text", "text": clean(piece)}] if piece.strip() else []
            if is_answered:
                answered = [{"type": "text", "text": clean(answer)}]
                messages += [{"role": "user", "content": waiting}, {"role": "assistant", "content": answered}]
                waiting = []
        if waiting or not turns:
            raise Skipped("no answer to the last question" if turns else "no 'Human: ' in the text")
        return {"messages": messages, "images": [self.picture(name) for name in names]}


class Chat(Format):
    name = "chat"
    help = "messages whose pictures stand in their items: OpenAI's image_url and input_text, Qwen's {'type': 'image', 'image'}"

    def row(self, record: Any, rng: random.Random) -> Row:
        (messages,) = need(record, "messages")
        images = list(record.get("images") or [])
        found = []
        for message in messages:
            role, content = need(message, "role", "content")
            role = SPEAKERS.get("system" if role == "developer" else role)
            if role is None:
                raise Skipped(f"role {message['role']!r}")
            if isinstance(content, str):
                found.append({"role": role, "content": clean(content)})
                continue
            items = []
            for item in content:
                kind = item["type"]
                if kind in ("text", "input_text", "output_text"):
                    items.append({"type": "text", "text": clean(item["text"])})
                elif kind in ("image", "image_url", "input_image"):
                    items.append({"type": "image"})
                    source = item.get("image") or item.get("image_url") or item.get("url") or item.get("path")
                    source = source.get("url") if isinstance(source, Mapping) else source
                    if source:
                        source = source.removeprefix("file://")
                        images.append(source if source.startswith(("data:", "http")) else self.picture(source))
                else:
                    raise Skipped(f"an item of type {kind!r}")
            found.append({"role": role, "content": items})
        return {"messages": found, "images": images}


def paired(turns: list[Mapping], strip=clean) -> tuple[str, list[tuple[str, str]]]:
    """The system text, and questions with their answers, in order.

    Raises:
        Skipped: questions and answers do not take turns, or there is none.
    """
    spoken = []
    for turn in turns:
        speaker, text = need(turn, "from", "value")
        if speaker not in SPEAKERS:
            raise Skipped(f"a turn from {speaker!r}")
        spoken.append((SPEAKERS[speaker], strip(text)))
    system = spoken.pop(0)[1] if spoken and spoken[0][0] == "system" else ""
    while spoken and spoken[0][0] == "assistant":
        spoken.pop(0)
    if spoken and spoken[-1][0] == "user":
        spoken.pop()
    if not spoken:
        raise Skipped("no question with an answer")
    if [role for role, _ in spoken] != ["user", "assistant"] * (len(spoken) // 2):
        raise Skipped("questions and answers do not take turns")
    return system.strip(), [(spoken[at][1], spoken[at + 1][1]) for at in range(0, len(spoken), 2)]
