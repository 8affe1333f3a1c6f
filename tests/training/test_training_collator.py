"""The seam: what is trained on is what will be read, and only answers and their ends are supervised."""

import pytest
import torch
from PIL import Image

from pipelines.prompt import ImagePart, Prompt, PromptEncoder
from pipelines.visualcla import VisualCLAProcessor, load_eyes
from pipelines.visualcla.pipeline import VisualCLAPipeline
from pipelines.visualcla.processing_visualcla import IMAGE_MARK
from training.collator import IGNORED, ConversationCollator, preview

TINY = "tests/golden/visualcla/merged/visualcla-tiny-merged"
DEMO = "demo/model"


@pytest.fixture(scope="module", params=[TINY, DEMO])
def processor(request):
    return VisualCLAProcessor.from_pretrained(request.param)


def user(text: str, images: int = 0) -> dict:
    return {"role": "user", "content": [{"type": "image"}] * images + [{"type": "text", "text": text}]}


def assistant(text: str) -> dict:
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}


def picture(colour: str) -> Image.Image:
    return Image.new("RGB", (40, 30), colour)


ROWS = {
    "one picture": {
        "messages": [user("What is at the left?", 1), assistant("A red circle.")],
        "images": [picture("red")],
    },
    "Chinese, several turns": {
        "messages": [
            user("左边是什么？", 1),
            assistant("红色圆形。"),
            user("有几个？"),
            assistant("两个。"),
            user("图片里有什么？", 2),
            assistant("左边：红色圆形。"),
        ],
        "images": [picture("red"), picture("blue"), picture("green")],
    },
    "no picture, text as plain strings": {
        "messages": [
            {"role": "user", "content": "Hello!"},
            {"role": "assistant", "content": "Hello! Show me a picture."},
        ],
        "images": [],
    },
    "an answer that is asked again": {
        "messages": [user("Say Yes."), assistant("Yes."), user("Yes."), assistant("Yes.")],
        "images": [],
    },
}


@pytest.fixture(params=ROWS.values(), ids=ROWS.keys())
def row(request):
    return request.param


def answers(row: dict) -> list[str]:
    contents = [message["content"] for message in row["messages"] if message["role"] == "assistant"]
    return [content if isinstance(content, str) else content[0]["text"] for content in contents]


def test_ids_are_those_of_the_processor(processor, row):
    ids = ConversationCollator(processor).encode(row).ids
    text = processor.apply_chat_template(row["messages"])
    assert ids == processor(text=text, images=row["images"] or None)["input_ids"][0]


@pytest.mark.parametrize("folder", [TINY, DEMO])
def test_ids_are_those_of_the_prompt_encoder(folder, row):
    processor = VisualCLAProcessor.from_pretrained(folder)
    pipeline = VisualCLAPipeline(load_eyes(folder), processor.image_processor)
    text = processor.apply_chat_template(row["messages"], tokenize=False)
    prompt = Prompt.from_text(text, [ImagePart.of(image) for image in row["images"]], IMAGE_MARK)
    ids = ConversationCollator(processor).encode(row).ids
    assert ids == PromptEncoder(processor.tokenizer, pipeline).encode(prompt).input_ids


def test_every_answer_and_its_end_is_supervised_and_nothing_else(processor, row):
    ids, labels, *_ = ConversationCollator(processor).encode(row)
    eos = processor.tokenizer.eos_token_id
    taught, answer = [], []
    for token, label in zip(ids, labels, strict=True):
        if label == eos:
            taught.append(processor.tokenizer.decode(answer))
            answer = []
        elif label != IGNORED:
            assert label == token
            answer.append(label)
    assert taught == answers(row)
    assert answer == []


def test_prompt_of_a_later_turn_continues_what_was_trained(processor):
    """The ids of a generation prompt are a prefix of the training ids, up to the first supervised token of its answer."""
    row = ROWS["Chinese, several turns"]
    ids, labels, *_ = ConversationCollator(processor).encode(row)
    for last in (1, 3, 5):
        text = processor.apply_chat_template(row["messages"][:last], add_generation_prompt=True)
        prompt = processor(text=text, images=row["images"][: text.count("<img_token>")])["input_ids"][0]
        assert ids[: len(prompt)] == prompt
        assert labels[len(prompt) - 1] == IGNORED
        assert labels[len(prompt)] == ids[len(prompt)]


def test_batch_is_padded_on_the_right_and_holds_all_pictures(processor):
    rows = list(ROWS.values())
    collator = ConversationCollator(processor)
    batch = collator(rows)
    assert batch["input_ids"].shape == batch["labels"].shape == batch["attention_mask"].shape
    assert len(batch["pixel_values"]) == 4
    for index, row in enumerate(rows):
        ids, labels, *_ = collator.encode(row)
        length = int(batch["attention_mask"][index].sum())
        assert batch["input_ids"][index, :length].tolist() == ids
        assert batch["labels"][index, :length].tolist() == labels
        assert (batch["labels"][index, length:] == IGNORED).all()
    expected = processor.preprocess_images([image for row in rows for image in row["images"]])
    torch.testing.assert_close(batch["pixel_values"], expected)


def test_batch_without_pictures_has_no_pixel_values(processor):
    assert "pixel_values" not in ConversationCollator(processor)([ROWS["an answer that is asked again"]])


def test_row_without_answer_is_refused(processor):
    with pytest.raises(ValueError, match="no answer to it to learn from"):
        ConversationCollator(processor).encode({"messages": [user("Hello!")], "images": []})


def test_missing_picture_is_refused(processor):
    row = {"messages": [user("What is it?", 2), assistant("Red.")], "images": [picture("red")]}
    with pytest.raises(ValueError, match="2 image items in the messages but 1 pictures"):
        ConversationCollator(processor).encode(row)


def test_template_that_hides_the_answer_is_refused(processor):
    other = VisualCLAProcessor(
        processor.image_processor,
        processor.tokenizer,
        chat_template="{% for message in messages %}{{ message.content | upper }}{% endfor %}",
        num_image_embeds=processor.num_image_embeds,
    )
    with pytest.raises(ValueError, match="chat template"):
        ConversationCollator(other).encode(ROWS["no picture, text as plain strings"])


def test_preview_shows_what_is_taught(processor):
    lines = preview(ConversationCollator(processor), ROWS["one picture"]).splitlines()
    taught = [line for line in lines if "<-" in line]
    assert taught[-1].endswith("<- '</s>'")
    ids, labels, *_ = ConversationCollator(processor).encode(ROWS["one picture"])
    assert (len(lines), len(taught)) == (len(ids), sum(label != IGNORED for label in labels))
