"""The example family of pipelines/README.md, taken from that page, added to a copy of the project, and led through all of it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PIPELINES = ROOT / "pipelines"

ALL_ROOMS = """
import runpy

runpy.run_path("make.py")
runpy.run_path("look.py")
print("doctor:")

import torch
from peft import LoraConfig, get_peft_model
from PIL import Image
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor, GenerationConfig

from demo import ask
from pipelines import doctor, load_model
from pipelines.base import ImagePart
from pipelines.generation import ChatModel, message
from pipelines.registry import load_pipeline
from training.data.collator import ConversationCollator
from training.merge import command, convert

for source, target, layout in (("rainbow", "webui", "webui"), ("webui", "there", "transformers"), ("there", "back", "webui")):
    assert convert.main([source, target, "--layout", layout]) == 0
adapter = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
get_peft_model(AutoModelForCausalLM.from_pretrained("webui"), adapter).save_pretrained("adapter")
assert command.main(["--text_model", "webui", "--lora_model", "adapter", "--output_dir", "merged"]) == 0
assert doctor.main(["webui"]) == 0
Image.new("RGB", (40, 30), "red").save("red.png")
assert ask.main(["--model", "webui", "--image", "red.png", "what colour"]) == 0
red, config = Image.new("RGB", (40, 30), "red"), GenerationConfig(do_sample=False, max_new_tokens=4)
question = [message("user", "what colour", 1)], [ImagePart.of(red)]
model, processor = load_model("rainbow", dtype=torch.float32)
answer = ChatModel(model, processor).answer(*question, config)
for folder in ("webui", "back"):  # the language model as the web UI loads it, the vision model beside it
    bare = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert ChatModel(bare, processor, load_pipeline(folder)).answer(*question, config) == answer, folder
rows = [{"messages": [*question[0], {"role": "assistant", "content": "red"}], "images": [red]}] * 2
batch = ConversationCollator(processor)(rows)
theirs = AutoModelForImageTextToText.from_pretrained("rainbow")
assert type(AutoProcessor.from_pretrained("rainbow")) is type(processor)
loss = theirs(**batch).loss
loss.backward()
assert all(p.grad is not None for name, p in theirs.named_parameters() if "vision_model" in name)
inputs = processor(images=[red], text=processor.apply_chat_template(question[0], add_generation_prompt=True))
import json
from pathlib import Path

row = {"messages": rows[0]["messages"], "images": ["red.png"]}
Path("rows.jsonl").write_text(json.dumps(row), encoding="utf-8")
from training.train import main as train

flags = ["--source", "rows.jsonl", "--max_steps", "2", "--use_cpu", "true", "--disable_tqdm", "true", "--logging_steps", "1"]
assert train(["--model", "webui", "--output_dir", "full", "--train_parts", "connector=1e-2", *flags]) == 0
lora = ["--lora_target_modules", "language=q_proj", "--result", "adapter", "--learning_rate", "1e-2"]
assert train(["--model", "webui", "--output_dir", "lora", *lora, *flags]) == 0
trained, adapted = (
    load_model(folder, lora_model=adapter, dtype=torch.float32)[0](**inputs).logits
    for folder, adapter in (("full/model", None), ("webui", "lora/adapter"))
)
plain, merged = (load_model(folder, dtype=torch.float32)[0](**inputs).logits for folder in ("webui", "merged"))
assert not torch.allclose(plain, merged) and not torch.allclose(plain, trained) and not torch.allclose(plain, adapted)
"""


def blocks() -> dict[str, str]:
    """First line of each block of the page to the rest of it; blocks of output by their language."""
    text = (PIPELINES / "README.md").read_text(encoding="utf-8")
    found = {}
    for language, block in re.findall(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        first, _, rest = block.partition("\n")
        found.update({first: rest} if language == "python" else {language: block})
    return found


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of the project with the page's family in it."""
    folder = tmp_path_factory.mktemp("six_steps")
    for room in ("pipelines", "training", "demo"):
        shutil.copytree(ROOT / room, folder / room, ignore=shutil.ignore_patterns("__pycache__", "model", "recipes"))
    page = blocks()
    files = {name[2:]: code for name, code in page.items() if name.startswith("# ") and name.endswith(".py")}
    own = ["__init__", "configuration_palette", "modeling_palette", "pipeline", "processing_palette"]
    assert sorted(files) == ["look.py", "make.py", *(f"pipelines/palette/{name}.py" for name in own)]
    for name, code in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(code, encoding="utf-8")
    registry = folder / "pipelines" / "registry.py"
    for table in ("FAMILIES", "MODEL_TYPES"):
        head, opening, tail = registry.read_text(encoding="utf-8").partition(f"{table}: dict[str, str] = {{")
        registry.write_text(f"{head}{opening}\n{page[f'# pipelines/registry.py: {table}']}{tail}", encoding="utf-8")
    return folder


@pytest.mark.slow
def test_six_steps_make_a_family_that_every_room_takes(project):
    done = subprocess.run(
        [sys.executable, "-c", ALL_ROOMS],
        cwd=project,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(project)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    look, _, report = done.stdout.partition("doctor:\n")
    assert look == blocks()["text"]
    assert "Palette: the colour of each cell of a grid; layout webui" in report and "missing" not in report


def test_every_file_is_named_on_the_page():
    text = (PIPELINES / "README.md").read_text(encoding="utf-8")
    table = {
        name for line in text.splitlines() if line.startswith("| `") for name in re.findall(r"`([\w/.]+)`", line.split("|")[1])
    }
    files = {path.name for path in PIPELINES.glob("*.py")} - {"__init__.py"}
    families = {f"{path.parent.name}/" for path in PIPELINES.glob("*/pipeline.py")}
    assert table == files | families
