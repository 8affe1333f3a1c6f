"""A stage from folder to folder, on the tiny golden model: it learns, only what should learn changes, the result loads."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from pipelines import visualcla
from pipelines.visualcla.saving import save_model_folder
from pipelines.weights import load_tensors
from training.__main__ import main
from training.train import Run
from training.train.adapter import merge_lora
from training.train.config import parse

GOLDEN = Path("tests/golden/visualcla")
TINY = GOLDEN / "merged/visualcla-tiny-merged"
VISION_LORA = "vision=q_proj|v_proj|fc1"
BOTH_LORA = [VISION_LORA, "language=q_proj|v_proj|gate_proj"]


def user(text: str) -> dict:
    return {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}


@pytest.fixture
def rows(tmp_path) -> str:
    """A file of two pictures and what they are called."""
    lines = []
    for colour, answer in (("red", "This is a picture."), ("blue", "Where?")):
        Image.new("RGB", (20, 20), colour).save(tmp_path / f"{colour}.png")
        messages = [user("What is it?"), {"role": "assistant", "content": answer}]
        lines.append(json.dumps({"messages": messages, "images": [f"{colour}.png"]}))
    (tmp_path / "rows.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return str(tmp_path / "rows.jsonl")


@pytest.fixture
def train(tmp_path, rows):
    def run(name: str = "out", **values) -> Path:
        values = {
            "model": str(TINY),
            "source": rows,
            "output_dir": str(tmp_path / name),
            "max_steps": 20,
            "learning_rate": 5e-3,
            "per_device_train_batch_size": 2,
            "logging_steps": 1,
            "use_cpu": True,
            "disable_tqdm": True,
            **values,
        }
        config = tmp_path / f"{name}.yaml"
        config.write_text(yaml.safe_dump(values), encoding="utf-8")
        status = main(["train", "--config", str(config)])
        return Path(values["output_dir"]) if status == 0 else status

    return run


def losses(folder: Path) -> list[float]:
    points = map(json.loads, (folder / "log.jsonl").read_text(encoding="utf-8").splitlines())
    return [point["loss"] for point in points if "loss" in point]


def changed_parts(before: Path, after: Path) -> set[str]:
    model, trained = (visualcla.load_pretrained(folder, dtype=torch.float32) for folder in (before, after))
    old, new = model.state_dict(), trained.state_dict()
    assert old.keys() == new.keys()
    return {model.stored_name(name).split(".")[0] for name in old if not torch.equal(old[name], new[name])}


def test_training_reduces_the_loss_and_leaves_a_model_a_curve_and_its_configuration(train):
    folder = train(train_parts=["connector", "language"])
    points = losses(folder)
    assert len(points) == 20
    assert points[-1] < points[0] / 2
    assert yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))["max_steps"] == 20
    assert Image.open(folder / "loss.png").width > 300
    assert not [path.name for path in folder.iterdir() if path.name.startswith(".")]
    model = visualcla.load_pretrained(folder / "model")
    answer, _ = visualcla.chat(model, Image.new("RGB", (20, 20), "red"), "What is it?")
    assert isinstance(answer, str)


@pytest.mark.parametrize(
    ("values", "changed"),
    [
        ({"train_parts": ["image_projection_layer"]}, {"image_projection_layer"}),
        ({"train_parts": ["visual_resampler"], "lora_target_modules": VISION_LORA}, {"visual_resampler", "vision_model"}),
        ({"train_parts": ["language"]}, {"text_model"}),
    ],
)
def test_only_the_named_parts_change(train, tmp_path, values, changed):
    before = tmp_path / "before"
    model = visualcla.load_pretrained(TINY, dtype=torch.float32)
    save_model_folder(model, model.processor, before)
    folder = train(model=str(before), max_steps=3, **values)
    assert changed_parts(before, folder / "model") == changed


@pytest.mark.skipif(not shutil.which("g++"), reason="compiling for a CPU needs a C++ compiler")
def test_compiled_layers_learn_the_same(train):
    plain, compiled = (
        train(f"compiled_{choice}", train_parts=["language"], max_steps=4, compile_layers=choice) for choice in (False, True)
    )
    assert losses(compiled) == pytest.approx(losses(plain), rel=1e-3)
    assert changed_parts(plain / "model", compiled / "model") <= {"text_model"}, "names are those of a plain model"


def adapter_run(tmp_path: Path, rows: str) -> Run:
    """A run that was trained and has saved an adapter, its LoRA layers still on."""
    flags = ["--model", str(TINY), "--source", rows, "--output_dir", str(tmp_path / "run"), "--max_steps", "5"]
    flags += ["--learning_rate", "1e-2", "--use_cpu", "true", "--disable_tqdm", "true"]
    flags += ["--lora_target_modules", *BOTH_LORA, "--result", "adapter"]
    recipe, arguments = parse(flags)
    run = Run(recipe, arguments)
    run.train()
    return run


def logits(model, run: Run) -> torch.Tensor:
    with torch.no_grad():
        return model(**run.collator([run.rows[0]])).logits


def test_merged_lora_answers_as_the_trained_model_did(tmp_path, rows):
    run = adapter_run(tmp_path, rows)
    expected = logits(run.model, run)
    merge_lora(run.lora)
    torch.testing.assert_close(logits(run.model, run), expected, rtol=1e-4, atol=1e-4)
    assert not [name for name, _ in run.model.named_parameters() if "lora" in name]


def test_adapter_opens_over_its_bases_with_the_same_logits(tmp_path, rows):
    run = adapter_run(tmp_path, rows)
    bases = {"text_model": TINY / "text_encoder", "vision_model": TINY / "vision_encoder"}
    loaded = visualcla.load_pretrained(run.result, **bases, dtype=torch.float32)
    torch.testing.assert_close(logits(loaded, run), logits(run.model, run), rtol=1e-5, atol=1e-5)
    bare = visualcla.load_pretrained(TINY, dtype=torch.float32)
    assert (logits(bare, run) - logits(run.model, run)).abs().max() > 0.1


def test_adapter_converts_to_the_release_that_the_original_code_opens(tmp_path, rows):
    ours = adapter_run(tmp_path, rows).result
    assert (ours / "tokenizer.model").read_bytes() == (TINY / "tokenizer.model").read_bytes()
    assert main(["convert", str(ours), str(tmp_path / "release"), "--layout", "release"]) == 0
    release = GOLDEN / "release/visualcla-tiny"
    names = set(load_tensors(tmp_path / "release"))
    assert names < set(load_tensors(release)) | {name.replace(".weight", ".bias") for name in names}


def test_endless_rows_of_several_pictures_train(train):
    """A batch holds more pictures than rows, and some rows hold none."""
    folder = train(source="demo.world:instruction_rows", max_steps=4, per_device_train_batch_size=12)
    assert len(losses(folder)) == 4


def test_batches_without_pictures_and_bad_pictures_do_not_end_a_run(train, tmp_path):
    """Only the eyes learn, a batch is one row, and one picture of three is broken."""
    (tmp_path / "broken.png").write_bytes(b"no picture")
    Image.new("RGB", (20, 20), "red").save(tmp_path / "good.png")
    answer = {"role": "assistant", "content": "This is a picture."}
    rows = [{"messages": [{"role": "user", "content": "Where?"}, answer]}]
    rows += [{"messages": [user("What is it?"), answer], "images": [name]} for name in ("broken.png", "good.png")]
    (tmp_path / "mixed.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    folder = train(source=str(tmp_path / "mixed.jsonl"), max_steps=6, per_device_train_batch_size=1)
    points = losses(folder)
    assert len(points) == 6
    assert sum(point == 0 for point in points) == 2
    assert changed_parts(TINY, folder / "model") == {"visual_resampler", "image_projection_layer"}


def test_attributes_train_the_vision_encoder_alone(train, tmp_path, monkeypatch):
    (tmp_path / "colours_of_a_test.py").write_text(
        "from PIL import Image\n"
        "def rows(seed):\n"
        "    while True:\n"
        "        for value, colour in enumerate(('red', 'blue')):\n"
        "            yield {'images': [Image.new('RGB', (20, 20), colour)], 'targets': [[value, 0], [1 - value, 0]]}\n",
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(tmp_path)
    folder = train(source="colours_of_a_test:rows", objective="attributes", num_attribute_values=2, train_parts=["vision"])
    points = losses(folder)
    assert points[-1] < points[0] / 2
    assert changed_parts(TINY, folder / "model") == {"vision_model"}


def test_refusals_are_one_line_and_status_2(train, tmp_path, capsys):
    def refusal(**values) -> str:
        capsys.readouterr()
        assert train(**values) == 2
        error = capsys.readouterr().err
        assert error.strip().count("\n") == 0
        return error

    (tmp_path / "taken" / "model").mkdir(parents=True)
    assert "--overwrite" in refusal(output_dir=str(tmp_path / "taken"))
    assert "--max_steps" in refusal(source="demo.world:text_rows", max_steps=-1)
    assert "absent" in refusal(model="absent/")
    assert "eval_strategy" in refusal(eval_strategy="epoch")
    assert "share" in refusal(eval_strategy="epoch", held_out=0.0001)
    assert "Nothing would learn" in refusal(train_parts=[])
    assert "'vision', 'connector', 'language'" in refusal(train_parts=["eyes"])
    assert "merge" in refusal(model=str(GOLDEN / "release/visualcla-tiny"))
    assert "no_such_module" in refusal(lora_target_modules="no_such_module")
    assert not (tmp_path / "out").exists()
