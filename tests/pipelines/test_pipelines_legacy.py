"""Pipelines of the web UI's old extension, dropped in: found, loaded and used as families, unchanged."""

import json
import logging
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from models import make_model
from PIL import Image

import pipelines
from pipelines import legacy
from pipelines.embedder import Embedder
from pipelines.prompt import ImagePart, Prompt, PromptEncoder
from pipelines.registry import FAMILIES, available_pipelines, load_pipeline

OLD = Path(__file__).parent.parent / "old_pipelines"
RED, BLUE = Image.new("RGB", (6, 6), (255, 0, 0)), Image.new("RGBA", (6, 6), (0, 0, 255, 128))


@pytest.fixture
def language_model():
    return make_model().text_model


@pytest.fixture
def dropped_in(monkeypatch, language_model):
    """The old pipelines lie in our `pipelines/`, and this process is the web UI."""
    monkeypatch.setattr(legacy, "HERE", OLD)
    monkeypatch.setattr(pipelines, "__path__", [*pipelines.__path__, str(OLD)])
    webui = {name: ModuleType(name) for name in ("modules", "modules.logging_colors", "modules.text_generation")}
    webui["modules"].shared = SimpleNamespace(model=language_model)
    webui["modules.logging_colors"].logger = logging.getLogger("webui")
    webui["modules.text_generation"].encode = lambda text, **_: torch.tensor([[7]])
    for name, module in webui.items():
        monkeypatch.setitem(sys.modules, name, module)
    legacy._module.cache_clear()
    yield
    legacy._module.cache_clear()
    for name in [name for name in sys.modules if name.startswith(("pipelines.tiny-old", "pipelines.broken_old"))]:
        del sys.modules[name]


@pytest.fixture
def folder(tmp_path):
    """A language model's folder, as far as a pipeline looks at it."""
    (tmp_path / "tinyllama-OLD-chat").mkdir()
    return write_config(tmp_path / "tinyllama-OLD-chat")


def write_config(folder, **values):
    config = {"model_type": "llama", "hidden_size": 64, "bos_token_id": 1, **values}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_old_pipelines_stand_beside_the_families(dropped_in):
    assert available_pipelines() == [*FAMILIES, "tiny-old-64", "tiny-old-48"]


def test_nothing_is_dropped_in_here(folder):
    assert available_pipelines() == [*FAMILIES]
    with pytest.raises(ValueError, match=rf"Available: {', '.join(map(repr, FAMILIES))}\.$"):
        load_pipeline(folder, "tiny-old-64")


def test_a_broken_one_is_named_and_stops_nobody(dropped_in, folder, caplog):
    assert load_pipeline(folder, "tiny-old-64").name == "tiny-old-64"
    assert [record.message for record in caplog.records if record.levelno == logging.WARNING] == [
        f"{OLD / 'broken_old' / 'pipelines.py'} cannot be used: ModuleNotFoundError: No module named "
        "'a_package_that_is_not_installed'"
    ]
    with pytest.raises(
        ValueError,
        match=rf"Unknown vision pipeline 'never'. Available: {', '.join(map(repr, FAMILIES))}, 'tiny-old-64', 'tiny-old-48'. "
        r"'broken_old' cannot be used \(ModuleNotFoundError: No module named 'a_package_that_is_not_installed'\).",
    ):
        load_pipeline(folder, "never")


def test_without_a_name_the_model_folders_name_decides(dropped_in, folder, tmp_path):
    assert load_pipeline(folder).name == "tiny-as-it-calls-itself"
    with pytest.raises(ValueError, match="holds no vision model.*'tiny-old-64'"):
        load_pipeline(write_config(tmp_path))


def test_the_listed_name_is_the_name(dropped_in, folder):
    """And not what the object calls itself."""
    assert load_pipeline(folder, "tiny-old-64").name == "tiny-old-64"


def test_device_and_dtype_become_the_old_settings(dropped_in, folder):
    bits = {"vision_bits": 32, "projector_bits": 32}
    common = {"vision_device": "cpu", "projector_device": "cpu", "add_all_images_to_prompt": True}
    assert load_pipeline(folder, "tiny-old-64")._old.params == {**common, **bits}
    old = load_pipeline(folder, "tiny-old-64", device=torch.device("cpu"), dtype=torch.bfloat16)._old
    assert old.params == {**common, "vision_bits": 16, "projector_bits": 16}
    assert old.projector_dtype == torch.float16
    assert old._get_device("vision_device", {"vision_device": "meta"}) == torch.device("meta")
    assert old._get_device("vision_device", {"vision_device": None}).type in ("cpu", "cuda", "xpu")


def test_contract_is_gone_after_loading(dropped_in, folder):
    load_pipeline(folder, "tiny-old-64")
    assert legacy.CONTRACT not in sys.modules


def test_real_contract_is_not_shadowed(dropped_in, folder, monkeypatch):
    real = ModuleType(legacy.CONTRACT)
    real.AbstractMultimodalPipeline = type("Real", (legacy.AbstractMultimodalPipeline,), {})
    monkeypatch.setitem(sys.modules, legacy.CONTRACT, real)
    assert isinstance(load_pipeline(folder, "tiny-old-64")._old, real.AbstractMultimodalPipeline)
    assert sys.modules[legacy.CONTRACT] is real


def test_padding_token_is_replaced_as_placeholder(dropped_in, folder):
    assert load_pipeline(folder, "tiny-old-64").placeholder_token_id == 0
    write_config(folder, pad_token_id=0)
    assert load_pipeline(folder, "tiny-old-64").placeholder_token_id == 1
    (folder / "generation_config.json").write_text('{"pad_token_id": 2}')
    assert load_pipeline(folder, "tiny-old-64").placeholder_token_id == 0


def embed(pipeline, prompt, language_model):
    words = {"<Img>": 10, "</Img>": 11, "a": 20, "b": 21}
    tokenize = lambda text: [words[word] for word in text.replace("<", " <").replace(">", "> ").split()]  # noqa: E731
    tokenizer = SimpleNamespace(bos_token_id=1)
    embedder = Embedder(PromptEncoder(tokenizer, pipeline, tokenize=tokenize))
    assert embedder.encoder.length(prompt) == len(embedder.encoder.encode(prompt).input_ids)
    return embedder.prepare(prompt, language_model)


def test_pictures_stand_between_their_marks(dropped_in, folder, language_model):
    """After every picture stands its closing mark: the old extension wrote it after the last one only."""
    pipeline = load_pipeline(folder, "tiny-old-64")
    parts = ("a", ImagePart.of(RED), "b", ImagePart.of(BLUE), "a")
    embedded = embed(pipeline, Prompt(parts), language_model)
    assert embedded.input_ids.tolist() == [[20, 10, 0, 0, 0, 11, 21, 10, 0, 0, 0, 11, 20]]
    projector = pipeline._old.projector
    expected = language_model.get_input_embeddings()(embedded.input_ids).detach()
    expected[0, 2:5], expected[0, 8:11] = projector[0], projector[2]
    assert torch.equal(embedded.inputs["inputs_embeds"], expected)
    assert pipeline._old.calls == [["RGB", "RGB"]]


def test_no_call_without_pictures(dropped_in, folder, language_model):
    pipeline = load_pipeline(folder, "tiny-old-64")
    embed(pipeline, Prompt(("a",)), language_model)
    with pytest.raises(ValueError, match="tiny-old-64: there are no pictures"):
        pipeline.encode_images([])
    assert pipeline._old.calls == []


def test_absent_marks_are_empty(dropped_in, folder, language_model):
    pipeline = load_pipeline(folder, "tiny-old-48")
    assert (pipeline.image_start, pipeline.image_end) == ("", "</Img>")


def test_eyes_of_another_language_model_are_told(dropped_in, folder):
    with pytest.raises(ValueError, match=r"tiny-old-48 gave embeddings of shape \(1, 3, 48\), expected \(1, 3, 64\)"):
        load_pipeline(folder, "tiny-old-48").encode_images([RED])


def test_errors_name_the_pipeline(dropped_in, folder, monkeypatch, tmp_path):
    with pytest.raises(RuntimeError, match="The old pipeline 'tiny-old-48' failed: KeyError: 'too small'"):
        load_pipeline(folder, "tiny-old-48").encode_images([RED.resize((1, 1))])
    with pytest.raises(RuntimeError, match="The old pipeline 'tiny-old-64' failed: .*'meta-and-more'"):
        load_pipeline(folder, "tiny-old-64", device="meta-and-more")
    (folder / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="has no hidden_size, which 'tiny-old-64' needs"):
        load_pipeline(folder, "tiny-old-64")


def test_loaded_twice_is_not_the_same_in_a_cache(dropped_in, folder):
    assert load_pipeline(folder, "tiny-old-64").fingerprint != load_pipeline(folder, "tiny-old-64").fingerprint


def test_repaired_file_is_tried_again(dropped_in, monkeypatch, tmp_path):
    (tmp_path / "mended").mkdir()
    file = tmp_path / "mended" / "pipelines.py"
    file.write_text("available_pipelines = [")
    monkeypatch.setattr(legacy, "HERE", tmp_path)
    monkeypatch.setattr(pipelines, "__path__", [*pipelines.__path__, str(tmp_path)])
    assert "SyntaxError" in legacy.broken_pipelines()["mended"]
    file.write_text("available_pipelines = ['mended']")
    assert legacy.available_pipelines() == {"mended": "mended"}
