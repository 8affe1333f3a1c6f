"""Rows longer than the context, answers left out, batches with bad rows; labels without VisualCLA's own template."""

import logging

import pytest
import torch
from models import make_model
from PIL import Image

from training.data.collator import ConversationCollator, TooManyBadRows, join_inputs
from training.data.encode import Encoded, RowEncoder, align
from training.data.rows import IGNORED, make_row


@pytest.fixture(scope="module")
def processor():
    return make_model().processor


def picture() -> Image.Image:
    return Image.new("RGB", (40, 30), "red")


def taught(processor, labels: list[int]) -> str:
    return " ".join(processor.tokenizer.convert_ids_to_tokens([label for label in labels if label != IGNORED]))


def test_answers_without_weight_are_not_supervised(processor):
    row = make_row([("what is a", "red"), ("what is a", "blue")], [])
    row["messages"][1]["weight"] = 0
    assert taught(processor, RowEncoder(processor)(row).labels) == "blue </s>"


def test_long_row_loses_whole_turns_and_their_pictures(processor):
    row = make_row([("what is a", "red"), ("what is a", "blue"), ("what is a", "green")], [picture()])
    row["messages"][4]["content"].insert(0, {"type": "image"})
    row["images"].append(picture())
    whole = RowEncoder(processor)(row)
    encoder = RowEncoder(processor, max_length=len(whole.ids) - 1)
    short = encoder(row)
    assert taught(processor, short.labels) == "red </s> blue </s>"
    assert len(short.inputs["pixel_values"]) == 1
    assert short.ids == whole.ids[: len(short.ids)][:-1] + short.ids[-1:]
    assert (encoder.shortened.rows, encoder.shortened.turns) == (1, 1)


def test_row_whose_picture_does_not_fit_is_left_out_and_never_cut(processor, caplog):
    collator = ConversationCollator(processor)
    good, long = make_row([("a", "red")], []), make_row([("what is a", "red")], [picture()])
    collator.encoder.max_length = len(collator.encode(good).ids)
    with caplog.at_level(logging.WARNING):
        batch = collator([good, {**long, "place": "rows.jsonl, line 2"}])
    assert len(batch["input_ids"]) == 1
    assert "pixel_values" not in batch
    assert collator.counts.tolist() == [2, 1]
    assert "left out rows.jsonl, line 2" in caplog.text


def test_text_that_does_not_fit_is_cut_where_the_context_ends(processor):
    row = make_row([("what is a", "red " * 50)], [])
    assert len(RowEncoder(processor, max_length=60)(row).ids) == 60


def test_bad_rows_are_left_out_until_there_are_too_many(processor, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    good, bad = make_row([("a", "red")], []), make_row([("a", "red")], [tmp_path / "broken.png"])
    collator = ConversationCollator(processor, max_bad_rows=0.5)
    assert len(collator([good, bad])["input_ids"]) == 1
    assert (collator([bad])["labels"] == IGNORED).all()
    with pytest.raises(TooManyBadRows, match="broken.png"):
        collator([bad] * 30)


def test_template_with_an_end_of_turn_token_is_supervised_up_to_it(processor):
    template = (
        "{% for message in messages %}{% if message.role == 'user' %}{% for item in message.content %}"
        "{% if item.type == 'image' %}<img_token>{% else %}{{ item.text }}{% endif %}{% endfor %} : {% else %}"
        "{{ message.content[0].text }}</s> {% endif %}{% endfor %}"
    )
    other = type(processor)(processor.image_processor, processor.tokenizer, template, processor.num_image_embeds)
    encoded = RowEncoder(other)(make_row([("what is a", "red"), ("which", "blue")], [picture()]))
    tokens = processor.tokenizer.convert_ids_to_tokens(encoded.ids)
    expected = ["<img_token>"] * 5 + ["what", "is", "a", ":", "red", "</s>", "which", ":", "blue", "</s>"]
    assert tokens == expected
    assert encoded.labels == [
        token if tokens[at] in ("red", "blue", "</s>") else IGNORED for at, token in enumerate(encoded.ids)
    ]


class PieceByPiece:
    """A processor that tokenises around its pictures, as mPLUG-Owl and MiniGPT-4 do, and marks them by an id of its own."""

    def __init__(self, processor):
        self.tokenizer = processor.tokenizer

    def apply_chat_template(self, messages, tokenize=False, add_generation_prompt=False) -> str:
        text = ""
        for message in messages:
            for item in message["content"]:
                text += "@" if item["type"] == "image" else f" {item['text']}"
            text += " :" if message["role"] == "user" else " ;"
        return text

    def __call__(self, text, images=((),), return_tensors="pt", **kwargs):
        ids = [self.tokenizer.bos_token_id]
        for number, piece in enumerate(text[0].split("@")):
            if number:
                ids += [9_999] * images[0][number - 1].width
            ids += self.tokenizer(piece, add_special_tokens=False)["input_ids"]
        return {"input_ids": torch.tensor([ids]), "token_type_ids": torch.zeros(1, len(ids), dtype=torch.long)}


def test_processor_that_tokenises_in_its_own_way_is_supervised_the_same(processor):
    other = PieceByPiece(processor)
    encoded = RowEncoder(other)(make_row([("what is a", "red"), ("which", "blue circle")], [Image.new("RGB", (3, 2))]))
    tokens = processor.tokenizer.convert_ids_to_tokens([token for token in encoded.ids if token != 9_999])
    assert tokens == ["<s>", "what", "is", "a", ":", "red", ";", "which", ":", "blue", "circle", ";"]
    labels = encoded.labels[4:]
    eos = processor.tokenizer.eos_token_id
    red, blue, circle = processor.tokenizer.convert_tokens_to_ids(["red", "blue", "circle"])
    assert labels == [IGNORED] * 4 + [red, eos, IGNORED, IGNORED, blue, circle, eos]
    assert encoded.inputs["token_type_ids"].shape == (1, len(encoded.ids))


@pytest.mark.parametrize(
    ("plain", "full", "where"),
    [
        ([1, 2], [1, 2], [0, 1]),
        ([1, 2], [1, 2, 3], None),
        ([1, 0, 2], [1, 0, 0, 9, 0, 2], [0, 1, 5]),
        ([0, 2, 0, 2], [0, 0, 2, 0, 2], [0, 2, 3, 4]),
        ([0, 0, 2], [0, 9, 0, 9, 2], [0, 1, 4]),
        ([1, 0], [1, 0, 0, 9], [0, 1]),
        ([1, 0, 2], [1, 2], None),
        ([1, 0, 2], [1, 0, 0, 3], None),
    ],
)
def test_marks_are_laid_beside_their_expansions(plain, full, where):
    assert align(plain, full, 0) == where


def test_pictures_that_do_not_stand_along_dimension_0_are_joined_as_their_model_reads_them():
    """MiniCPM-V has the patches of all pictures in one row, Molmo 2 counts patches through."""
    sides = [{"pixel_values": torch.full((1, 3, 2, n), float(n)), "target_sizes": torch.full((1, 2), n)} for n in (4, 6)]
    joined = join_inputs([Encoded([1], [1], each, 1) for each in (sides[0], {}, sides[1])], 1)
    assert joined["pixel_values"].tolist() == torch.cat([each["pixel_values"] for each in sides], dim=-1).tolist()
    assert joined["target_sizes"].tolist() == [[4, 4], [6, 6]]
    indices = torch.tensor([[0, 1], [5, -1]])
    rows = [{"pixel_values": torch.zeros(crops, 6, 3), "image_token_pooling": indices} for crops in (2, 1, 1)]
    joined = join_inputs([Encoded([1], [1], each, 1) for each in rows], 1)
    assert joined["image_token_pooling"].tolist() == [[0, 1], [5, -1], [12, 13], [17, -1], [18, 19], [23, -1]]


def test_every_key_of_the_processor_is_passed_on_and_padded(processor):
    collator = ConversationCollator(processor)
    first, second = (collator.encode(make_row([("what is a", answer)], [])) for answer in ("red", "red red"))
    tiles = {
        "pixel_values": torch.ones(1, 2, 3),
        "names": ["a"],
        "token_type_ids": torch.ones(1, len(second.ids), dtype=torch.long),
    }
    batch = collator.join([first._replace(inputs={"pixel_values": torch.ones(1, 4, 3)}), second._replace(inputs=tiles)])
    assert batch["pixel_values"].shape == (2, 4, 3)
    assert batch["pixel_values"][1, 2:].sum() == 0
    assert batch["token_type_ids"].tolist() == [[0] * len(second.ids), [1] * len(second.ids)]
    assert batch["names"] == ["a"]


def test_transparent_pictures_are_learnt_as_a_person_sees_them(processor):
    """Over white, as page, terminal and plugin show them to the model later; the hidden colour is black."""
    hidden, seen = Image.new("RGBA", (32, 32), (0, 0, 0, 0)), Image.new("RGB", (32, 32), "white")
    encode = RowEncoder(processor)
    first, second = (encode(make_row([("what", "red")], [image])).inputs["pixel_values"] for image in (hidden, seen))
    assert torch.equal(first, second)
