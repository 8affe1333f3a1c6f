"""What each family is taught, token by token, beside what its original supervised."""

import json
import random
from pathlib import Path

import pytest
import torch
from PIL import Image

from pipelines import load_model
from pipelines.registry import pipeline_of
from training.data.encode import RowEncoder
from training.data.formats import FORMATS
from training.data.rows import IGNORED, make_row

GOLDEN = Path("tests/golden")
ROW = make_row([("What color?", "It is red."), ("And?", "Blue.")], [Image.new("RGB", (30, 20), "red")])
FAMILIES = {
    "mplug_owl": ("mplug_owl/checkpoint", {}),
    "minigpt4": ("minigpt4/checkpoint/pretrained_minigpt4_7b.pth", {"text_model": GOLDEN / "minigpt4/vicuna_tiny"}),
    "open_flamingo": (
        "mmgpt/checkpoint/checkpoint.pt",
        {"text_model": GOLDEN / "mmgpt/llama_tiny", "vision_model": GOLDEN / "mmgpt/checkpoint/clip_hf"},
    ),
}


@pytest.fixture(scope="module")
def encoder():
    made = {}

    def of(family: str) -> RowEncoder:
        if family not in made:
            path, others = FAMILIES[family]
            model, processor = load_model(GOLDEN / path, dtype=torch.float32, **others)
            stop_strings = pipeline_of(model, processor).stop_strings
            assert RowEncoder(processor).stop_strings == stop_strings, "data commands know no pipeline"
            made[family] = RowEncoder(processor, stop_strings=stop_strings)
        return made[family]

    return of


def behind_the_picture(encoder: RowEncoder, row: dict) -> str:
    """The tokens behind the last picture; what is supervised in [], an end by its label as [wanted<-read]."""
    ids, labels, *_ = encoder(row)
    name = encoder.tokenizer.convert_ids_to_tokens
    first = max(at for at, is_image in enumerate(encoder.is_image(ids)) if is_image) + 1
    assert all(label == IGNORED for label in labels[:first])
    words = []
    for token, label in zip(name(ids[first:]), labels[first:], strict=True):
        wanted = None if label == IGNORED else name(label)
        words.append(token if wanted is None else f"[{token}]" if wanted == token else f"[{wanted}<-{token}]")
    return " ".join(words)


EXPECTED = {
    # The prompt's last space is a token of its own when the model answers, so it is one here.
    "mplug_owl": "▁ <0x0A> H uman : ▁What ▁c ol or ? <0x0A> A I : ▁ [▁I] [t] [▁is] [▁re] [d] [.] [</s><-<0x0A>] H uman : ▁A n d ? "
    "<0x0A> A I : ▁ [B] [l] [u] [e] [.] [</s>]",
    # Answers end at the separator, which the original supervises too.
    "minigpt4": "▁ </ Img > ▁What ▁c ol or ? ### A ssistant : [▁I] [t] [▁is] [▁re] [d] [.] [###] H uman : ▁A n d ? ### A ssistant : "
    "[▁] [B] [l] [u] [e] [.] [###]",
}


@pytest.mark.parametrize("family", EXPECTED)
def test_answers_and_their_ends_are_supervised_token_by_token(encoder, family):
    assert behind_the_picture(encoder(family), ROW) == EXPECTED[family]


@pytest.mark.parametrize("family", FAMILIES)
def test_prompt_of_each_turn_is_what_stands_before_its_answer(encoder, family):
    """The ids that the processor makes of a generation prompt are the ids in front of the supervised answer."""
    encode = encoder(family)
    ids, labels, inputs, _ = encode(ROW)
    assert len(inputs["pixel_values"]) == 1
    for turns in (1, 3):
        text = encode.render(ROW["messages"][:turns], add_generation_prompt=True)
        prompt = encode.processor(text=[text], images=ROW["images"], return_tensors="pt")["input_ids"][0].tolist()
        at = max(at for at in range(len(ids)) if ids[: at + 1] == prompt[: at + 1]) + 1
        if turns == 1:
            assert at == len(prompt)
            assert labels[:at] == [IGNORED] * at and labels[at] == ids[at]


def test_mplug_owl_supervises_as_many_tokens_as_the_original(encoder):
    case = json.loads((GOLDEN / "mplug_owl/expected.json").read_text(encoding="utf-8"))["train_mm"]
    row = FORMATS["mplug_owl"](GOLDEN / "mplug_owl/images").row(case["record"], random.Random(0))
    assert encoder("mplug_owl")(row).num_supervised == case["n_supervised"]
