"""Prompts with images in them: exact lengths, truncation that never cuts an image. Property tests."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models import make_tokenizer

from pipelines.base import ImagePart, VisionPipeline
from pipelines.prompt import Prompt, PromptEncoder


class ByWidth(VisionPipeline):
    """A family whose pictures cost a row of placeholders per 10 pixels of height, a line break after each row; and one row less
    when there are several pictures."""

    name, image_start, image_end, image_mark = "by width", "<img>", "</img>\n", "<img><img_token></img>\n"
    embedding_width, fingerprint = 64, "one"

    def __init__(self, tokenizer):
        self.placeholder_token_id = tokenizer.convert_tokens_to_ids("<img_token>")

    def image_ids(self, sizes, tokenizer):
        line_break = tokenizer("\n", add_special_tokens=False)["input_ids"]
        rows = [max(1, height // 10 - (len(sizes) > 1)) for _, height in sizes]
        widths = [width // 10 for width, _ in sizes]
        return [([self.placeholder_token_id] * w + line_break) * r for w, r in zip(widths, rows, strict=True)]

    def encode_images(self, images, lengths=None):
        raise AssertionError("lengths are known without looking")


def never():
    raise AssertionError("lengths are known without decoding")


def picture(key, size=(20, 20)):
    return ImagePart(key, size, never)


TOKENIZER = make_tokenizer()
PIPELINE = ByWidth(TOKENIZER)
ENCODER = PromptEncoder(TOKENIZER, PIPELINE)
IMAGE_IDS = set(TOKENIZER.convert_tokens_to_ids(["<img>", "</img>", "<img_token>"]))

texts = st.lists(st.sampled_from(["red ", "what", " is", "\n", "!", "</s>", " "]), max_size=6).map("".join)
sizes = st.tuples(st.integers(10, 40), st.integers(10, 40))
images = st.builds(picture, st.sampled_from("abcdef"), sizes)
prompts = st.lists(st.one_of(texts, images), max_size=9).map(lambda parts: Prompt(tuple(parts)))


def whole_text(prompt: Prompt) -> str:
    ids = iter(PIPELINE.image_ids([image.size for image in prompt.images], TOKENIZER))
    return "".join(
        f"<img>{TOKENIZER.decode(next(ids))}</img>\n" if isinstance(part, ImagePart) else part for part in prompt.parts
    )


@settings(deadline=None)
@given(prompts)
def test_ids_are_those_of_the_whole_text(prompt):
    assert ENCODER.encode(prompt).input_ids == TOKENIZER(whole_text(prompt), add_special_tokens=False)["input_ids"]


@settings(deadline=None)
@given(prompts, st.booleans())
def test_length_is_exact_before_anything_is_embedded(prompt, add_bos):
    encoder = PromptEncoder(TOKENIZER, PIPELINE, add_bos=add_bos)
    assert encoder.length(prompt) == len(encoder.encode(prompt).input_ids)


@settings(deadline=None)
@given(prompts)
def test_every_image_has_its_span(prompt):
    encoded = ENCODER.encode(prompt)
    assert [span.image for span in encoded.image_spans] == prompt.images
    expected = PIPELINE.image_ids([image.size for image in prompt.images], TOKENIZER)
    assert [encoded.input_ids[span.start : span.end] for span in encoded.image_spans] == expected


@settings(deadline=None)
@given(prompts, st.integers(min_value=1, max_value=60))
def test_truncation_fits_and_never_cuts_an_image(prompt, max_tokens):
    whole = ENCODER.encode(prompt).input_ids
    try:
        cut = ENCODER.truncate(prompt, max_tokens)
    except ValueError as error:
        assert isinstance(prompt.parts[-1], ImagePart) and "An image takes" in str(error)
        return
    ids = cut.encoded.input_ids
    assert len(ids) <= max_tokens or len(whole) <= max_tokens
    assert cut.dropped_tokens == len(whole) - len(ids)
    if len(prompt.images) < 2:  # with several, each one's length depends on the others
        assert whole[len(whole) - len(ids) + 1 :] == ids[1:], "what stays is the end of the prompt (a BOS may stand in front)"
    assert cut.dropped_images + [span.image for span in cut.encoded.image_spans] == prompt.images
    spans = cut.encoded.image_spans
    assert all(
        ids[span.start : span.end] == found
        for span, found in zip(spans, PIPELINE.image_ids([s.image.size for s in spans], TOKENIZER), strict=True)
    )
    in_spans = {position for span in spans for position in range(span.start - 1, span.end + 1)} - {
        position for position, token in enumerate(ids) if token not in IMAGE_IDS
    }
    marks = {position for position, token in enumerate(ids) if token in IMAGE_IDS}
    assert marks == in_spans, "no mark without its image, no image without its marks"


def test_truncation_keeps_the_bos_in_front():
    prompt = Prompt(("<s>what is", picture("a"), "red"))
    cut = ENCODER.truncate(prompt, 3)
    assert TOKENIZER.convert_ids_to_tokens(cut.encoded.input_ids) == ["<s>", "red"]
    assert cut.dropped_images == [picture("a")]


def test_a_text_too_long_by_itself_loses_its_beginning():
    cut = ENCODER.truncate(Prompt(("what is the red circle",)), 2)
    assert TOKENIZER.convert_ids_to_tokens(cut.encoded.input_ids) == ["red", "circle"]
    assert cut.dropped_tokens == 3


def test_no_room_at_all_is_refused():
    with pytest.raises(ValueError, match="room for at least 1 token, but max_tokens is 0"):
        ENCODER.truncate(Prompt(("what",)), 0)


def test_marks_and_images_must_agree():
    image = picture("a")
    assert Prompt.from_text("what <M> is <M>", [image, image], "<M>").parts == ("what ", image, " is ", image)
    with pytest.raises(ValueError, match="2 image marks '<M>' in the prompt but 1 images"):
        Prompt.from_text("what <M> is <M>", [image], "<M>")


def test_bos_is_added_once():
    encoder = PromptEncoder(TOKENIZER, PIPELINE, add_bos=True)
    for prompt in (Prompt(("what",)), Prompt(("<s>what",)), Prompt((picture("a"),)), Prompt(())):
        ids = encoder.encode(prompt).input_ids
        assert ids[0] == TOKENIZER.bos_token_id and ids.count(TOKENIZER.bos_token_id) == 1


def test_a_text_is_tokenised_once():
    seen = []

    def tokenize(text):
        seen.append(text)
        return TOKENIZER(text, add_special_tokens=False)["input_ids"]

    encoder = PromptEncoder(TOKENIZER, PIPELINE, tokenize=tokenize)
    prompt = Prompt(("what is", picture("a"), "red"))
    lengths = {encoder.length(prompt) for _ in range(5)}
    assert len(lengths) == 1 and len(seen) == 2


def test_memory_of_the_encoder_is_bounded():
    encoder = PromptEncoder(TOKENIZER, PIPELINE)
    encoder.max_remembered_texts = 3
    for index in range(10):
        encoder.length(Prompt((f"red {index}",)))
    assert len(encoder._remembered) == 3
