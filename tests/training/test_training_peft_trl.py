"""The composite folder in other people's trainers: PEFT saves and opens its adapter, merge takes it; TRL trains it."""

import json
import os
import shutil
import subprocess
import warnings

import pytest
import torch
from models import VISION, make_model
from peft import LoraConfig, PeftModel, get_peft_model
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, CLIPVisionConfig, CLIPVisionModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from pipelines import load_model
from pipelines.visualcla import load_pretrained
from training.__main__ import main
from training.merge import command

PICTURES = [Image.new("RGB", (40, 30), colour) for colour in ("red", "green", "blue", "red")]
LORA = {"r": 4, "target_modules": ["q_proj", "v_proj", "fc1"], "modules_to_save": ["image_projection_layer"]}


@pytest.fixture
def base(tmp_path):
    model = make_model()
    model.save_pretrained(tmp_path / "base")
    model.processor.save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def opened(folder):
    return AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)


def logits_of(model, processor):
    inputs = processor(images=PICTURES[:1], text="<img><img_token></img>\nwhat", return_tensors="pt")
    with torch.no_grad():
        return model.eval()(**inputs).logits


@pytest.mark.skipif("TRL_PYTHON" not in os.environ, reason="TRL_PYTHON names no Python with TRL")
def test_stock_trl_trains_a_composite_folder_without_any_code_of_this_project(tmp_path):
    CLIPVisionModel(CLIPVisionConfig(**VISION)).save_pretrained(tmp_path / "clip")
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(tmp_path / "clip")
    bases = ["--text_model", "tests/golden/llava/llm_tiny", "--vision_model", str(tmp_path / "clip")]
    assert main(["new", "--family", "llava", *bases, "--output_dir", str(tmp_path / "fresh")]) == 0
    assert main(["convert", str(tmp_path / "fresh"), str(tmp_path / "composite"), "--layout", "transformers"]) == 0
    shutil.copyfile("tests/training/trl_alone.py", tmp_path / "trl_alone.py")
    command = [os.environ["TRL_PYTHON"], "trl_alone.py", "composite", "out"]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    seen = json.loads((tmp_path / "out/seen.json").read_text(encoding="utf-8"))
    assert seen["ours"] == [] and len(seen["losses"]) == 2
    assert seen["taught"].split() == ["It", "is", "seen</s>"]
    base, _ = load_model(tmp_path / "composite", dtype=torch.float32)
    tuned, _ = load_model(tmp_path / "composite", lora_model=tmp_path / "out/adapter", dtype=torch.float32)
    ids = torch.tensor([[1, 5, 6]])
    with torch.no_grad():
        assert (base(input_ids=ids).logits - tuned(input_ids=ids).logits).abs().max() > 1e-4


def assert_opens_and_merges(base, adapter, expected, tmp_path):
    processor = AutoProcessor.from_pretrained(base)
    assert (logits_of(opened(base), processor) - expected).abs().max() > 1e-3
    torch.testing.assert_close(logits_of(PeftModel.from_pretrained(opened(base), adapter), processor), expected)
    torch.testing.assert_close(logits_of(load_pretrained(base, dtype=torch.float32, lora_model=adapter), processor), expected)
    for layout in ("webui", "transformers"):
        arguments = ["--text_model", base, "--lora_model", adapter, "--output_dir", tmp_path / layout, "--layout", layout]
        assert command.main(list(map(str, arguments))) == 0
        merged = load_pretrained(tmp_path / layout, dtype=torch.float32)
        torch.testing.assert_close(logits_of(merged, merged.processor), expected, atol=1e-4, rtol=1e-4)


def test_pefts_own_adapter_opens_again_and_is_merged(base, tmp_path):
    model = get_peft_model(opened(base), LoraConfig(**LORA, init_lora_weights=False))
    with torch.no_grad():
        model.base_model.model.model.image_projection_layer.modules_to_save["default"].bias.add_(1)
    expected = logits_of(model, AutoProcessor.from_pretrained(base))
    model.save_pretrained(tmp_path / "adapter")
    assert_opens_and_merges(base, tmp_path / "adapter", expected, tmp_path)


@pytest.mark.parametrize("assistant_only_loss", [False, True])
def test_trl_trains_a_lora_step_on_the_composite_folder(base, tmp_path, assistant_only_loss):
    trl = pytest.importorskip("trl", reason="TRL is not installed; it is in no set of requirements of the project")
    from datasets import Dataset

    rows = [
        {
            "images": [image],
            "messages": [
                {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what is"}]},
                {"role": "assistant", "content": [{"type": "text", "text": "a red circle"}]},
            ],
        }
        for image in PICTURES
    ]
    arguments = trl.SFTConfig(
        str(tmp_path / "run"), max_steps=1, per_device_train_batch_size=2, learning_rate=1e-2, max_length=None, bf16=False,
        assistant_only_loss=assistant_only_loss, report_to=[], use_cpu=True, save_strategy="no",
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        trainer = trl.SFTTrainer(
            opened(base), arguments, train_dataset=Dataset.from_list(rows), processing_class=AutoProcessor.from_pretrained(base),
            peft_config=LoraConfig(**LORA),
        )  # fmt: skip
        if assistant_only_loss:
            batch = next(iter(trainer.get_train_dataloader()))
            words = trainer.processing_class.tokenizer.decode(batch["labels"][0][batch["labels"][0] != -100])
            assert words.split()[:3] == ["a", "red", "circle"], words
        before = trainer.model.base_model.model.model.image_projection_layer.modules_to_save["default"].weight.clone()
        trainer.train()
    after = trainer.model.base_model.model.model.image_projection_layer.modules_to_save["default"].weight
    assert not torch.equal(before, after)
    trainer.save_model(str(tmp_path / "adapter"))
    expected = logits_of(trainer.model, AutoProcessor.from_pretrained(base))
    assert_opens_and_merges(base, tmp_path / "adapter", expected, tmp_path)
