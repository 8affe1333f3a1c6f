"""Rows to batches. One bad row never ends a run: it is left out, logged with its place, and counted."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from pipelines.base import check_rows_together
from pipelines.images import ImageError

from .encode import Encoded, RowEncoder, is_per_token
from .rows import IGNORED, Row, RowError

logger = logging.getLogger(__name__)


class BatchError(ValueError):
    """There is no batch; the last line of the message says why."""


class TooManyBadRows(BatchError):
    """More rows than allowed were left out."""


class ConversationCollator:
    """Conversations to `input_ids`, `attention_mask`, `labels` (B, T), padded on the right, and the processor's other keys.

    Keys by token are padded with 0, all others are joined along the pictures; a batch without pictures has none of them.

    Args:
        processor, max_length, stop_strings: see `RowEncoder`.
        max_bad_rows: how many rows may be left out, as a share of those seen, before the run stops. The first ten never stop
            it.
        rows_together: `VisionPipeline.rows_together` of the model.

    Attributes:
        counts: rows seen, rows left out; shared with the worker processes of a data loader.
    """

    def __init__(
        self,
        processor: Any,
        max_length: int | None = None,
        max_bad_rows: float = 0.05,
        stop_strings: Sequence[str] = (),
        rows_together: str = "any",
    ):
        self.processor, self.rows_together = processor, rows_together
        self.encoder = RowEncoder(processor, max_length, stop_strings)
        self.eos_token_id = processor.tokenizer.eos_token_id
        pad = processor.tokenizer.pad_token_id
        self.pad_token_id = self.eos_token_id if pad is None else pad
        self.max_bad_rows = max_bad_rows
        self.counts = torch.zeros(2, dtype=torch.int64).share_memory_()

    def __call__(self, rows: list[Row]) -> dict[str, torch.Tensor]:
        """One batch.

        Raises:
            TooManyBadRows: the share of bad rows is past `max_bad_rows`.
            BatchError: these rows do not stand in one batch of the model.
        """
        encoded = [encoded for row in rows if (encoded := self.try_encode(row)) is not None]
        try:
            check_rows_together(self.rows_together, [row.num_images for row in encoded])
        except ValueError as error:
            raise BatchError(
                f"{error} Give --per_device_train_batch_size 1 with --gradient_accumulation_steps {max(2, len(rows))}, and "
                "--per_device_eval_batch_size 1."
            ) from error
        return self.join(encoded)

    def encode(self, row: Row) -> Encoded:
        """Ids, labels and other inputs of one row.

        Raises:
            RowError, ImageError: it cannot be used.
        """
        place = row.get("place", "a row")
        if "error" in row:
            raise RowError(place, row["error"])
        return self.encoder(row, place)

    def try_encode(self, row: Row) -> Encoded | None:
        """The same, or None for a row that is left out and counted."""
        self.counts[0] += 1
        try:
            encoded = self.encode(row)
            if encoded.num_supervised:
                return encoded
            reason = f"nothing of its answers fits into {self.encoder.max_length} tokens."
        except (RowError, ImageError, FileNotFoundError) as error:
            reason = error.reason if isinstance(error, RowError) else str(error)
        self.leave_out(row, reason)
        return None

    def leave_out(self, row: Row, reason: str) -> None:
        """Log and count a row that is of no use.

        Raises:
            TooManyBadRows: the share of bad rows is past `max_bad_rows`.
        """
        self.counts[1] += 1
        place = row.get("place") or f"the row that begins {str(row.get('messages'))[:80]}"
        logger.warning("left out %s: %s", place, reason)
        seen, bad = self.counts.tolist()
        if bad > max(10, self.max_bad_rows * seen):
            raise TooManyBadRows(
                f"{bad} of {seen} rows were left out, more than the share of {self.max_bad_rows:g} that may be (the last: {place}: "
                f"{reason}) See all: python -m training data validate FILE"
            )

    def join(self, encoded: list[Encoded]) -> dict[str, torch.Tensor]:
        """Encoded rows as one batch; none at all give one of a single token that teaches nothing."""
        if not encoded:
            encoded = [Encoded([self.pad_token_id], [IGNORED], {})]
        longest = max(len(row.ids) for row in encoded)

        def padded(values: list[int], filler: int) -> list[int]:
            return values + [filler] * (longest - len(values))

        batch = {
            "input_ids": torch.tensor([padded(row.ids, self.pad_token_id) for row in encoded]),
            "attention_mask": torch.tensor([padded([1] * len(row.ids), 0) for row in encoded]),
            "labels": torch.tensor([padded(row.labels, IGNORED) for row in encoded]),
        }
        return {**batch, **join_inputs(encoded, longest)}


def join_inputs(rows: list[Encoded], length: int, in_a_row: bool = False) -> dict[str, Any]:
    """The other keys of encoded rows: by token padded to `length` (each row, or all of them one after the other), else by picture."""
    joined = {}
    for key in dict.fromkeys(key for row in rows for key in row.inputs):
        values = [(row.inputs.get(key), len(row.ids)) for row in rows]
        if not any(is_per_token(value, own) for value, own in values):
            joined[key] = _joined([value for value, _ in values if value is not None])
        elif in_a_row:
            joined[key] = _padded(torch.cat([_padded(value, own, own) for value, own in values], dim=1), 0, length)
        else:
            joined[key] = torch.cat([_padded(value, own, length) for value, own in values])
    shown = [row.inputs for row in rows if "pixel_values" in row.inputs]
    if "target_sizes" in joined:  # MiniCPM-V: the patches of all pictures stand in one row
        joined["pixel_values"] = torch.cat([inputs["pixel_values"] for inputs in shown], dim=-1)
    if "image_token_pooling" in joined:  # Molmo 2: indices of patches, counted through
        joined["image_token_pooling"] = _counted_through(shown)
    return joined


def _counted_through(rows: list[dict[str, torch.Tensor]]) -> torch.Tensor:
    before, found = 0, []
    for inputs in rows:
        indices, (crops, patches) = inputs["image_token_pooling"], inputs["pixel_values"].shape[:2]
        found.append(torch.where(indices < 0, indices, indices + before))
        before += crops * patches
    return torch.cat(found)


def _padded(value: torch.Tensor | None, own: int, length: int) -> torch.Tensor:
    value = torch.zeros(1, own, dtype=torch.long) if value is None else value
    return torch.nn.functional.pad(value, (*(0, 0) * (value.ndim - 2), 0, length - value.shape[1]))


def _joined(values: list[Any]) -> Any:
    """Tensors along dimension 0, each padded with zeros to the largest of the other dimensions (tiles, patches)."""
    if not all(isinstance(value, torch.Tensor) for value in values):
        return [item for value in values for item in value]
    sizes = [max(size) for size in zip(*(value.shape[1:] for value in values), strict=True)]

    def grown(value: torch.Tensor) -> torch.Tensor:
        pads = [(0, size - own) for own, size in zip(value.shape[1:], sizes, strict=True)]
        return torch.nn.functional.pad(value, [side for pad in reversed(pads) for side in pad])

    return torch.cat([grown(value) for value in values])


def preview(collator: ConversationCollator, row: Mapping) -> str:
    """A row as the model is taught it, one token per line: the token, and what has to be predicted there."""
    encoded = collator.encode(dict(row))
    name = collator.processor.tokenizer.convert_ids_to_tokens
    lines = []
    for position, (token, label) in enumerate(zip(encoded.ids, encoded.labels, strict=True)):
        wanted = "" if label == IGNORED else f"  <- {name(label)!r}"
        lines.append(f"{position:5}  {name(token)!r}{wanted}")
    return "\n".join(lines)
