"""The composite folder in other people's trainers: PEFT saves and opens its adapter, merge takes it; TRL trains it."""

import warnings

import pytest
import torch
from models import make_model
from peft import LoraConfig, PeftModel, get_peft_model
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from pipelines.visualcla import load_pretrained
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
