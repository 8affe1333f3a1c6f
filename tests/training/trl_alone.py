"""Run by a Python with TRL, outside of this project: `trl_alone.py MODEL OUT` fine-tunes a folder with TRL's own SFTTrainer."""

import json
import sys
from pathlib import Path

import torch
from datasets import Dataset
from peft import LoraConfig
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor
from trl import SFTConfig, SFTTrainer

folder, out = sys.argv[1:]
rows = [
    {
        "images": [Image.new("RGB", (40, 30), colour)],
        "messages": [
            {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what is"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "It is seen"}]},
        ],
    }
    for colour in ("red", "green", "blue", "red")
]
processor = AutoProcessor.from_pretrained(folder)
arguments = SFTConfig(
    out, max_steps=2, per_device_train_batch_size=2, learning_rate=1e-2, max_length=None, bf16=False, assistant_only_loss=True,
    report_to=[], use_cpu=True, save_strategy="no", logging_steps=1,
)  # fmt: skip
trainer = SFTTrainer(
    AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32), arguments, train_dataset=Dataset.from_list(rows),
    processing_class=processor, peft_config=LoraConfig(r=4, target_modules=["q_proj", "v_proj"]),
)  # fmt: skip
labels = next(iter(trainer.get_train_dataloader()))["labels"][0]
trainer.train()
trainer.save_model(f"{out}/adapter")
seen = {
    "taught": processor.tokenizer.decode(labels[labels != -100]),
    "losses": [point["loss"] for point in trainer.state.log_history if "loss" in point],
    "ours": sorted(name for name in sys.modules if name.partition(".")[0] in ("pipelines", "training", "demo")),
}
Path(out, "seen.json").write_text(json.dumps(seen), encoding="utf-8")
