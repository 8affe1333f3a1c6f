"""What the page says the model looks at is what the model's own attention says."""

import dataclasses

import pytest
import torch
from conftest import GREEDY, load_golden
from PIL import Image

from demo.attention import Look, Looks, looks
from demo.maps import maps_html, mask
from demo.session import Picture, Session, answer
from pipelines.base import ImagePart
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
    found = looks(chat_model, answered).pictures
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
    torch.testing.assert_close(torch.tensor([look.share for look in looks(chat_model, answered).pictures]), expected)


def test_attention_implementation_is_put_back(model, chat_model, answered):
    before = model.text_model.config._attn_implementation
    looks(chat_model, answered)
    assert model.text_model.config._attn_implementation == before != "eager"


def test_answer_without_pictures_looks_at_nothing(chat_model):
    session = Session()
    session.ask("What?", [])
    for _ in answer(chat_model, session, GREEDY):
        pass
    assert looks(chat_model, session.turns[-1].seen) == Looks([], [])


@pytest.mark.parametrize(
    ("size", "box"),
    [((100, 100), (0, 0, 1, 1)), ((200, 100), (0.25, 0, 0.75, 1)), ((100, 400), (0, 0.375, 1, 0.625))],
)
def test_part_that_the_centre_crop_leaves(chat_model, size, box):
    (reading,) = chat_model.pipeline.readings([Image.new("RGB", size)])
    assert reading.box == pytest.approx(box)


def test_words_are_those_of_the_answer_and_their_maps_add_up(chat_model, answered):
    """A word's attention to all pictures is 1; the answer's is the mean over its tokens."""
    found = looks(chat_model, answered)
    answer = chat_model.decode(answered.answer_ids)
    assert "".join(found.words) == answer and len(found.words) >= len(answer.split()) > 1
    total = sum(look.by_word.sum((1, 2)) for look in found.pictures)
    torch.testing.assert_close(total, torch.ones(len(found.words)))


def test_a_single_words_map_is_that_of_the_answer(chat_model, answered):
    """Cut after its first token, the answer is one word."""
    alone = looks(chat_model, dataclasses.replace(answered, answer_ids=answered.answer_ids[:1]))
    assert len(alone.words) == 1
    for look in alone.pictures:
        torch.testing.assert_close(look.by_word[0], look.heat * look.share)


def look(heat: torch.Tensor, **changes) -> Look:
    part = ImagePart.of(Image.new("RGB", (80, 40), "white"))
    return dataclasses.replace(Look(1, 1.0, heat, heat[None], (0.25, 0.0, 0.75, 1.0), part), **changes)


def test_mask_is_bright_where_it_was_looked_at():
    heat = torch.zeros(4, 4)
    heat[:, :2] = 0.125
    alpha = mask(heat, heat.max()).getchannel("A")
    assert alpha.getpixel((0, 0)) == 255 and alpha.getpixel((3, 3)) < 60


def test_mask_lies_where_the_model_sees_the_picture():
    shown = maps_html(Looks([look(torch.full((4, 4), 1 / 16))], ["One"]), "Picture {}", "Words")
    assert "mask:var(--map0) 50.00% 0.00%/50.00% 100.00% no-repeat" in shown and "Picture 1 · 100%" in shown


def test_words_of_an_answer_are_only_text():
    words = ["<script>alert(1)</script>", " ${alert(1)}", " {{value}}"]
    heat = torch.full((4, 4), 1 / 16)
    shown = maps_html(Looks([look(heat, by_word=heat.expand(3, 4, 4))], words), "{}", "Words", rest="<b>")
    assert "<script" not in shown and "${" not in shown and "{{" not in shown and "<b>" not in shown


def test_maps_of_a_very_long_picture_can_be_made():
    part = ImagePart.of(Image.new("RGB", (2000, 1), "white"))
    long = look(torch.full((4, 4), 1 / 16), box=(0.4998, 0.0, 0.5002, 1.0), image=part)
    assert "<img" in maps_html(Looks([long], ["One"]), "{}", "Words")
