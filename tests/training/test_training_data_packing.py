"""Packed rows: full sequences, bounded by pictures, and the losses of each row by itself."""

import random

import pytest
import torch
from models import make_model
from PIL import Image

from training.data.collator import ConversationCollator
from training.data.encode import Encoded
from training.data.packing import PackingCollator, pack
from training.data.rows import IGNORED, make_row


def rows_of_lengths(lengths: list[int], pictures: list[int] | None = None) -> list[Encoded]:
    pictures = pictures or [0] * len(lengths)
    return [
        Encoded([1] * length, [1] * length, {"pixel_values": torch.zeros(count, 3, 2, 2)} if count else {})
        for length, count in zip(lengths, pictures, strict=True)
    ]


def test_packs_of_a_mixed_set_are_full():
    rng = random.Random(0)
    lengths = [rng.choice((rng.randint(20, 120), rng.randint(150, 600), rng.randint(600, 2000))) for _ in range(2000)]
    packs = list(pack(rows_of_lengths(lengths), 2048))
    assert sorted(len(row.ids) for one in packs for row in one) == sorted(lengths)
    assert max(one.length for one in packs) <= 2048
    assert sum(lengths) / (2048 * len(packs)) >= 0.95


def test_packs_are_bounded_by_pictures():
    packs = list(pack(rows_of_lengths([10] * 40, [n % 3 for n in range(40)]), 200, max_pictures=4))
    assert max(one.num_pictures for one in packs) <= 4
    assert sum(map(len, packs)) == 40


def test_row_that_fits_into_no_pack_is_refused():
    with pytest.raises(ValueError, match="fits into no pack"):
        list(pack(rows_of_lengths([11]), 10))
    with pytest.raises(ValueError, match="3 pictures"):
        list(pack(rows_of_lengths([5], [3]), 10, max_pictures=2))


def test_row_that_no_sequence_has_room_for_ends_nothing(caplog):
    collator = ConversationCollator(make_model(text="llama").processor)
    red = Image.new("RGB", (8, 8), "red")
    rows = [make_row([("what", "red")], [red] * count) | {"place": f"row {count}"} for count in (1, 3, 2)]
    rows.append(make_row([("what " * 400, "red")], []) | {"place": "row long"})
    packs = list(PackingCollator(collator, 300, max_pictures=2).packs(rows))
    assert [one.num_pictures for one in packs] == [1, 2]
    assert collator.counts.tolist() == [4, 2]
    assert "left out row 3: 3 pictures, more than the 2 of a sequence" in caplog.text
    assert "left out row long" in caplog.text


def losses(model, batch: dict) -> torch.Tensor:
    """The loss of every supervised token, in reading order."""
    labels = batch.pop("labels")
    with torch.no_grad():
        logits = model(**batch).logits
    each = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten(), reduction="none")
    return each[labels[:, 1:].flatten() != IGNORED]


@pytest.mark.parametrize("text", ["llama", "qwen3"])
def test_packed_rows_have_the_losses_of_rows_alone(text):
    model = make_model(text=text)
    model.set_attn_implementation("sdpa")
    collator = ConversationCollator(model.processor)
    rows = [
        make_row([("what is a", "red circle"), ("where", "left")], [Image.new("RGB", (40, 30), "red")]),
        make_row([("which is blue", "the square")], []),
        make_row([("what", "two"), ("is a", "no")], [Image.new("RGB", (40, 30), "blue")]),
    ]
    encoded = [collator.encode(row) for row in rows]
    alone = torch.cat([losses(model, collator.join([row])) for row in encoded])
    length = sum(len(row.ids) for row in encoded) + 7
    packing = PackingCollator(collator, length)
    (packed,) = packing.packs(rows)
    torch.testing.assert_close(losses(model, packing.join(packed)), alone, rtol=0, atol=1e-5)
    leaking = packing.join(packed) | {"position_ids": torch.arange(length)[None]}
    assert (losses(model, leaking) - alone).abs().max() > 1e-3, "a test that leaks is seen"
