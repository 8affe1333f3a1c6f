"""Which family a folder belongs to, found without importing any family."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import GOLDEN
from models import make_model

from pipelines.registry import find_family, load_model, load_pipeline, save_model

MERGED = GOLDEN / "merged/visualcla-tiny-merged"


def test_families_are_found_by_their_configuration(tmp_path):
    assert find_family(MERGED) == "visualcla"
    assert find_family(MERGED / "text_encoder") is None
    assert find_family(tmp_path) is None
    (tmp_path / "config.json").write_text("[")
    with pytest.raises(ValueError, match="is not valid JSON"):
        find_family(tmp_path)


def test_looking_for_a_family_imports_none():
    code = (
        f"import sys; from pipelines.registry import find_family; print(find_family({str(MERGED)!r}), 'torch' in sys.modules)"
    )
    root = Path(__file__).parent.parent.parent
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    assert run.stdout.split() == ["visualcla", "False"], run.stderr


def test_pipeline_of_a_folder_has_the_contract():
    pipeline = load_pipeline(MERGED)
    assert (pipeline.name, pipeline.embedding_width) == ("visualcla-tiny-merged", 64)
    assert pipeline.image_ids([(9, 9)], None) == [[703] * 5]
    assert pipeline.placeholder_token_id == 703


def test_errors_list_what_exists(tmp_path):
    with pytest.raises(ValueError, match="Unknown vision pipeline 'no-such'. Available: 'visualcla'"):
        load_pipeline(MERGED, name="no-such")
    with pytest.raises(ValueError, match="holds no vision model: no 'vision/config.json' of a known family"):
        load_pipeline(tmp_path)
    with pytest.raises(FileNotFoundError, match="'/no/such' is not a folder"):
        load_pipeline("/no/such")


def test_a_whole_model_lends_its_eyes():
    from pipelines.visualcla.pipeline import VisualCLAPipeline

    model = make_model()
    assert VisualCLAPipeline(model, model.processor.image_processor).embedding_width == 64


@pytest.mark.parametrize("place", ["config.json", "vision/config.json"])
def test_more_layers_than_any_model_has_are_refused_before_they_are_made(tmp_path, place):
    file = tmp_path / place
    file.parent.mkdir(exist_ok=True)
    file.write_text('{"model_type": "visualcla", "text_config": {"num_hidden_layers": 1000000}}')
    for load in (load_model, load_pipeline):
        with pytest.raises(ValueError, match=f"{place}' says 1000000 layers; no model has more than 1000"):
            load(tmp_path)


@pytest.mark.parametrize(("key", "value"), [("layer_norm_eps", 10**400), ("num_attention_heads", 12), ("hidden_act", 5)])
def test_whatever_odd_values_lead_to_is_one_error_that_names_the_folder(tmp_path, key, value):
    model = make_model()
    save_model(model, model.processor, tmp_path / "model")
    file = tmp_path / "model/vision/config.json"
    config = json.loads(file.read_text())
    config["vision_config"][key] = value
    file.write_text(json.dumps(config))
    for load in (load_model, load_pipeline):
        with pytest.raises(ValueError, match="model' cannot be loaded|model/vision' "):
            load(tmp_path / "model")


@pytest.mark.parametrize("name", ["max_length", "pad_token_id", "top_k", "repetition_penalty"])
def test_generation_settings_that_are_no_numbers_are_told_before_the_first_answer(tmp_path, name):
    model = make_model()
    save_model(model, model.processor, tmp_path / "model")
    file = tmp_path / "model/generation_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), name: [1]}))
    with pytest.raises(ValueError, match=f"say {name} .1., which is no number|model' cannot be loaded"):
        load_model(tmp_path / "model")
