"""What the page says the model looks at is what the model's own attention says."""

import pytest
import torch
from conftest import GREEDY, load_golden
from PIL import Image

from demo.attention import Look, looks, overlay
from demo.session import Picture, Session, answer
from pipelines.generation import ChatModel
from pipelines.visualcla.pipeline import VisualCLAPipeline


@pytest.fixture(scope="module")
def model():
    return load_golden("merged")


@pytest.fixture(scope="module")
def chat_model(model):
    return ChatModel(model, model.processor)


@pytest.fixture
def answered(chat_model, tmp_path):
    """A session about two pictures, answered."""
    session = Session()
    for name, size in (("one", (64, 64)), ("other", (96, 48))):
        Image.effect_noise(size, 80).convert("RGB").save(tmp_path / f"{name}.png")
    session.ask("What?", [Picture.open(tmp_path / f"{name}.png", tmp_path) for name in ("one", "other")])
    for _ in answer(chat_model, session, GREEDY):
        pass
    return session.turns[-1].seen


def test_shares_and_heats_sum_to_one(chat_model, answered):
    found = looks(chat_model, answered)
    assert [look.number for look in found] == [1, 2]
    assert sum(look.share for look in found) == pytest.approx(1)
    for look in found:
        assert look.heat.shape == (4, 4) and (look.heat >= 0).all()
        assert float(look.heat.sum()) == pytest.approx(1, abs=1e-5)


def test_attention_is_that_of_one_eager_pass_over_prompt_and_answer(model, chat_model, answered):
    """The whole conversation at once, no cache, gives the same numbers."""
    eyes = VisualCLAPipeline(model, model.processor.image_processor).look(
        [span.image.open() for span in answered.prepared.image_spans], output_attentions=True
    )
    ids = torch.cat([answered.prepared.input_ids, torch.tensor([answered.answer_ids])], dim=1)
    embeds = model.get_input_embeddings()(ids).detach()
    for span, features in zip(answered.prepared.image_spans, eyes.image_features, strict=True):
        embeds[0, span.start : span.end] = features
    model.text_model.set_attn_implementation("eager")
    with torch.no_grad():
        layers = model.text_model(inputs_embeds=embeds, output_attentions=True).attentions
    model.text_model.set_attn_implementation("sdpa")
    length = answered.prepared.input_ids.shape[1]
    rows = torch.stack(layers).mean((0, 1, 2))[length - 1 : -1].mean(0)  # where the answer's tokens were chosen
    per_picture = torch.stack([rows[span.start : span.end].sum() for span in answered.prepared.image_spans])
    expected = per_picture / per_picture.sum()
    torch.testing.assert_close(torch.tensor([look.share for look in looks(chat_model, answered)]), expected)


def test_attention_implementation_is_put_back(model, chat_model, answered):
    before = model.text_model.config._attn_implementation
    looks(chat_model, answered)
    assert model.text_model.config._attn_implementation == before != "eager"


def test_answer_without_pictures_looks_at_nothing(chat_model):
    session = Session()
    session.ask("What?", [])
    for _ in answer(chat_model, session, GREEDY):
        pass
    assert looks(chat_model, session.turns[-1].seen) == []


@pytest.mark.parametrize(
    ("size", "box"),
    [((100, 100), (0, 0, 1, 1)), ((200, 100), (0.25, 0, 0.75, 1)), ((100, 400), (0, 0.375, 1, 0.625))],
)
def test_part_that_the_centre_crop_leaves(chat_model, size, box):
    (reading,) = chat_model.pipeline.readings([Image.new("RGB", size)])
    assert reading.box == pytest.approx(box)


def test_overlay_is_bright_where_it_was_looked_at_and_black_where_the_model_sees_nothing():
    heat = torch.zeros(4, 4)
    heat[:, :2] = 0.125
    look = Look(1, 1.0, heat, (0.25, 0.0, 0.75, 1.0), Image.new("RGB", (80, 40), "white"))
    shown = overlay(look, max_side_px=80)
    assert shown.size == (80, 40)
    assert shown.getpixel((5, 20)) == (0, 0, 0) and shown.getpixel((75, 20)) == (0, 0, 0)
    assert shown.getpixel((23, 20)) == (255, 255, 255)
    assert max(shown.getpixel((57, 20))) < 60


def test_overlay_of_a_very_long_picture_can_be_made():
    look = Look(1, 1.0, torch.full((4, 4), 1 / 16), (0.4998, 0.0, 0.5002, 1.0), Image.new("RGB", (2000, 1), "white"))
    assert overlay(look).size == (512, 1)
