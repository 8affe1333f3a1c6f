"""A saved model folder is the model: same logits, same ids, complete or not there at all."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from pipelines import visualcla
from pipelines.visualcla import saving

TINY = Path("tests/golden/visualcla/merged/visualcla-tiny-merged")
MESSAGES = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it? 是什么？"}]}]


@pytest.fixture
def model():
    return visualcla.load_pretrained(TINY, dtype=torch.float32)


def inputs(model):
    text = model.processor.apply_chat_template(MESSAGES, add_generation_prompt=True)
    return model.processor(text=text, images=Image.new("RGB", (30, 20), "red"), return_tensors="pt")


@torch.no_grad()
def test_saved_folder_gives_the_same_ids_and_logits(model, tmp_path):
    folder = saving.save_model_folder(model, model.processor, tmp_path / "model")
    assert visualcla.detect_layout(folder) == "webui"
    again = visualcla.load_pretrained(folder, dtype=torch.float32)
    before, after = inputs(model), inputs(again)
    assert torch.equal(before["input_ids"], after["input_ids"])
    assert torch.equal(before["pixel_values"], after["pixel_values"])
    torch.testing.assert_close(again(**after).logits, model(**before).logits)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_dtype_of_the_weights_is_kept_and_told(model, tmp_path):
    folder = saving.save_model_folder(model.half(), model.processor, tmp_path / "model")
    configs = [json.loads((folder / name).read_text(encoding="utf-8")) for name in ("config.json", "vision/config.json")]
    assert [config["dtype"] for config in configs] == ["float16", "float16"]
    assert visualcla.load_pretrained(folder).dtype == torch.float16


def test_failure_leaves_the_old_folder_as_it_was(model, tmp_path, monkeypatch):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "kept").write_text("old", encoding="utf-8")

    def full_disk(*args, **kwargs):
        raise OSError("No space left on device")

    monkeypatch.setattr(saving, "save_file", full_disk)
    with pytest.raises(OSError, match="No space"):
        saving.save_model_folder(model, model.processor, folder)
    assert [path.name for path in folder.iterdir()] == ["kept"]


def test_model_with_lora_is_refused(model, tmp_path):
    from peft import LoraConfig, inject_adapter_in_model

    inject_adapter_in_model(LoraConfig(target_modules=["q_proj"]), model)
    with pytest.raises(ValueError, match="Merge"):
        saving.save_model_folder(model, model.processor, tmp_path / "model")
    assert not (tmp_path / "model").exists()
