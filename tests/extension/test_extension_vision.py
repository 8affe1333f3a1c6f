"""The eyes belong to the model that is loaded: found, loaded once, noticed when the model changes, gone with it."""

import copy
import gc
import logging
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

import pipelines
from pipelines import legacy

pytest_plugins = ["webui_stub.plugin"]
OLD = Path(__file__).parent.parent / "old_pipelines"


@pytest.fixture
def vision(webui):
    from multimodal_vcla import vision

    return vision


@pytest.fixture
def loads(monkeypatch, vision):
    """The folders that eyes were loaded from."""
    found = []
    original = vision.load_pipeline

    def load_pipeline(folder, family, **kwargs):
        found.append(folder.name)
        return original(folder, family, **kwargs)

    monkeypatch.setattr(vision, "load_pipeline", load_pipeline)
    return found


def test_eyes_are_loaded_with_the_first_picture_and_once(webui, vision, loads):
    assert vision.status()[0] == "waiting" and loads == []
    assert vision.current() is vision.current()
    assert loads == ["vcla"] and vision.status()[0] == "ready"


def test_eyes_go_when_the_model_goes(webui, vision):
    import weakref

    webui.shared.model = copy.deepcopy(webui.shared.model)
    gone = weakref.ref(vision.current().pipeline)
    model = weakref.ref(webui.shared.model)
    webui.shared.model = None
    gc.collect()
    assert model() is None and gone() is None, "neither is kept alive"
    with pytest.raises(Exception, match="No model is loaded"):
        vision.current()


def test_another_wrapper_of_the_same_model_keeps_the_eyes(webui, vision, loads):
    from peft import LoraConfig, get_peft_model

    first = vision.current()
    webui.shared.model = get_peft_model(copy.deepcopy(webui.shared.model), LoraConfig(target_modules=["q_proj"]))
    assert vision.current() is first and loads == ["vcla"]
    last = webui.chat.inputs_of("Text.", webui.chat.new_state())
    assert last.embeds is None


def test_another_model_is_noticed_and_why_it_is_blind_is_remembered(webui, vision, loads, monkeypatch):
    vision.current()
    webui.shared.model, webui.shared.model_name = copy.deepcopy(webui.shared.model), "text"
    looks = []
    original = vision._find_folder
    monkeypatch.setattr(vision, "_find_folder", lambda: looks.append(1) or original())
    for _ in range(3):
        with pytest.raises(Exception, match="'text' has no vision model"):
            vision.current()
    assert len(looks) == 1 and vision.status()[0] == "blind"
    webui.script.params["eyes"] = "vcla"
    assert vision.current().pipeline.name == "vcla"


def test_eyes_of_another_width_are_refused(webui, vision):
    from transformers import LlamaConfig, LlamaForCausalLM

    webui.shared.model = LlamaForCausalLM(
        LlamaConfig(vocab_size=704, hidden_size=32, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2)
    )
    with pytest.raises(Exception, match="width 64, but the width of 'vcla' is 32"):
        vision.current()


def test_eyes_whose_placeholder_is_masked_are_refused(webui, vision):
    webui.shared.model = copy.deepcopy(webui.shared.model)
    webui.shared.model.generation_config.pad_token_id = 703
    with pytest.raises(Exception, match="padding token 703"):
        vision.current()


def test_precision_is_as_set_and_never_below_16_bits(webui, vision):
    assert vision.current().pipeline.eyes.dtype == torch.float32
    webui.script.params.update(vision_bits=16, projector_bits=32)
    parts = vision.current().pipeline.eyes
    assert parts.vision_model.dtype == torch.bfloat16 and parts.image_projection_layer.weight.dtype == torch.float32
    from PIL import Image

    assert vision.current().pipeline.encode_images([Image.new("RGB", (9, 9))])[0].embeds.dtype == torch.float32
    webui.script.params["vision_bits"] = 8
    with pytest.raises(Exception, match="vision_bits is 8; allowed are 16, 32"):
        vision.current()


def test_an_idle_model_is_woken_for_a_picture(webui, vision, tmp_path):
    from PIL import Image

    model, tokenizer = webui.shared.model, webui.shared.tokenizer

    def load():
        webui.shared.model, webui.shared.tokenizer = model, tokenizer

    webui.shared.model = webui.shared.tokenizer = None
    webui.models.loads.append(load)
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    assert webui.chat.one_turn("What?", webui.chat.new_state(), [tmp_path / "a.png"]).embeds is not None


def test_settings_that_make_no_sense_are_said(webui, vision):
    webui.script.params["cache_mb"] = "much"
    with pytest.raises(Exception, match="cache_mb is 'much'"):
        vision.current()


@pytest.fixture
def old_pipelines(webui, monkeypatch):
    """Pipelines of the former extension lie in our `pipelines/`."""
    monkeypatch.setattr(legacy, "HERE", OLD)
    monkeypatch.setattr(pipelines, "__path__", [*pipelines.__path__, str(OLD)])
    monkeypatch.setitem(sys.modules, "modules.logging_colors", ModuleType("modules.logging_colors"))
    sys.modules["modules.logging_colors"].logger = logging.getLogger("webui")
    legacy._module.cache_clear()
    yield
    legacy._module.cache_clear()
    for name in [name for name in sys.modules if name.startswith(("pipelines.tiny-old", "pipelines.broken_old"))]:
        del sys.modules[name]


def test_the_setting_pipeline_names_one_of_the_former_extension(webui, vision, old_pipelines, tmp_path):
    from PIL import Image

    webui.shared.model_name = "text"
    webui.script.params["pipeline"] = "tiny-old-64"
    assert (vision.current().pipeline.name, vision.current().pipeline.num_image_embeds) == ("tiny-old-64", 3)
    Image.new("RGB", (6, 6), "red").save(tmp_path / "red.png")
    assert webui.chat.one_turn("What?", webui.chat.new_state(), [tmp_path / "red.png"]).embeds is not None
    webui.script.params["pipeline"] = "tiny-old-65"
    with pytest.raises(
        Exception, match="Unknown vision pipeline 'tiny-old-65'. Available: 'visualcla', .*'tiny-old-64', 'tiny-old"
    ):
        vision.current()
    webui.script.params["pipeline"] = "tiny-old-48"
    with pytest.raises(Exception, match="it was made for another language model"):
        vision.current().pipeline.encode_images([Image.new("RGB", (6, 6))])
    webui.shared.model_name = "vcla"
    assert vision.current().pipeline.name == "vcla", "a model's own vision model comes first"
