"""Rows to batches. The labels are made here, while tokenising: only answers and their end are supervised.

What the model is trained on is exactly what it will read: a row's ids are the processor's ids of the conversation, and the
labels are laid beside them. The template writes no end-of-sequence token between turns, so the end of an answer is taught by
its label alone: where the text after the answer begins, the label is EOS while the id stays what it is.
"""

from typing import Any

import numpy as np
import torch

from .source import Row

IGNORED = -100


class ConversationCollator:
    """Conversations to `input_ids`, `attention_mask`, `labels` (B, T), padded on the right, and `pixel_values` (N, 3, S, S).

    Args:
        processor: a `VisualCLAProcessor`, or one that renders, expands and tokenises as it does.
    """

    def __init__(self, processor: Any):
        self.processor = processor
        self.eos_token_id = processor.tokenizer.eos_token_id
        pad = processor.tokenizer.pad_token_id
        self.pad_token_id = self.eos_token_id if pad is None else pad

    def __call__(self, rows: list[Row]) -> dict[str, torch.Tensor]:
        encoded = [self.encode(row) for row in rows]
        longest = max(len(ids) for ids, _, _ in encoded)

        def padded(values: list[int], filler: int) -> list[int]:
            return values + [filler] * (longest - len(values))

        batch = {
            "input_ids": torch.tensor([padded(ids, self.pad_token_id) for ids, _, _ in encoded]),
            "attention_mask": torch.tensor([padded([1] * len(ids), 0) for ids, _, _ in encoded]),
            "labels": torch.tensor([padded(labels, IGNORED) for _, labels, _ in encoded]),
        }
        if pictures := [pixels for _, _, pixels in encoded if pixels is not None]:
            batch["pixel_values"] = torch.cat(pictures)
        return batch

    def encode(self, row: Row) -> tuple[list[int], list[int], torch.Tensor | None]:
        """Ids, labels and pixels of one row.

        A token that holds characters of an answer and of its surroundings is not supervised: when the model generates, it
        does not occur.

        Raises:
            ValueError: the row has nothing to learn from, or its images and image items differ in number.
        """
        messages, images = row["messages"], row.get("images") or []
        text = self._rendered(messages)
        inputs = self.processor(
            text=self.processor.apply_chat_template(messages, tokenize=False),
            images=images or None,
            return_offsets_mapping=True,
        )
        ids, offsets = list(inputs["input_ids"][0]), inputs["offset_mapping"][0]
        labels = [IGNORED] * len(ids)
        for start, end in self._answers(messages, text):
            for position, (first, last) in enumerate(offsets):
                if start <= first < last <= end:
                    labels[position] = ids[position]
            after = next((position for position, (_, last) in enumerate(offsets) if last > end), len(ids))
            if after == len(ids):
                ids.append(self.eos_token_id)
                labels.append(self.eos_token_id)
            else:
                labels[after] = self.eos_token_id
        if all(label == IGNORED for label in labels):
            raise ValueError(f"Nothing to learn from in a row: it has no answer of the assistant. It begins {text[:120]!r}.")
        pixels = torch.as_tensor(np.stack(inputs["pixel_values"])) if images else None
        return ids, labels, pixels

    def _rendered(self, messages: list[dict], add_generation_prompt: bool = False) -> str:
        """The text of a conversation as the tokenizer gets it, every image mark expanded."""
        text = self.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=add_generation_prompt)
        return text.replace(self.processor.image_token, self.processor.image_token * self.processor.num_image_embeds)

    def _answers(self, messages: list[dict], text: str) -> list[tuple[int, int]]:
        """Start and end of every answer in the rendered text, in characters."""
        spans = []
        for index, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            before = self._rendered(messages[:index], add_generation_prompt=True)
            content = message["content"]
            answer = content if isinstance(content, str) else "".join(item["text"] for item in content)
            if not text.startswith(before + answer):
                raise ValueError(
                    f"The chat template does not write {answer[:60]!r} after its own generation prompt, so it cannot be seen where "
                    "the answer is. Use a template whose generation prompt is what stands before an answer."
                )
            spans.append((len(before), len(before) + len(answer)))
        return spans


def preview(collator: ConversationCollator, row: Row) -> str:
    """A row as the model is taught it, one token per line: the token, and what has to be predicted there."""
    ids, labels, _ = collator.encode(row)
    name = collator.processor.tokenizer.convert_ids_to_tokens
    lines = []
    for position, (token, label) in enumerate(zip(ids, labels, strict=True)):
        wanted = "" if label == IGNORED else f"  <- {name(label)!r}"
        lines.append(f"{position:5}  {name(token)!r}{wanted}")
    return "\n".join(lines)
