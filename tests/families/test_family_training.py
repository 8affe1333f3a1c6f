"""Every family's folder trains through the contract: parts alone change, results open, adapters open everywhere alike."""

import itertools
import json
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from contract import CASES, GOLDEN
from native_models import write
from peft import PeftModel
from PIL import Image
from transformers import GenerationConfig

from pipelines import load_model
from pipelines.base import ImagePart
from pipelines.generation import ChatModel
from pipelines.images import load_image
from pipelines.registry import parts_of
from training.__main__ import main
from training.train import Run
from training.train.config import parse

FAMILIES = [case for case in CASES if case.name != "llava-v0"]
NATIVE = ["qwen2_5_vl", "gemma3", "smolvlm"]
LORA = ["vision=q_proj|fc1", "language=q_proj|v_proj"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of a family, made once."""
    made: dict[str, Path] = {}

    def of(case) -> Path:
        name = case if isinstance(case, str) else case.name
        if name not in made:
            place = tmp_path_factory.mktemp(name)
            made[name] = write(case, place) if isinstance(case, str) else case.write(place / name, "webui")
        return made[name]

    return of


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> str:
    asked = [(colour, colour, "What color?", answer) for colour, answer in (("red", "It is red."), ("blue", "Blue."))]
    return written(tmp_path_factory.mktemp("rows"), (60, 40), asked)


def written(place: Path, size: tuple[int, int], asked: Iterable[tuple]) -> str:
    """A file of rows about pictures of one colour: `(name of the picture, its colour, question, answer)` each."""
    lines = []
    for name, colour, question, answer in asked:
        Image.new("RGB", size, colour).save(place / f"{name}.png")
        content = [{"type": "image"}, {"type": "text", "text": question}]
        messages = [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]
        lines.append(json.dumps({"messages": messages, "images": [f"{name}.png"]}))
    (place / "rows.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return str(place / "rows.jsonl")


def trained(model: Path, rows: str, out: Path, *flags: str) -> Run:
    common = ["--model", str(model), "--source", rows, "--output_dir", str(out), "--max_steps", "3", "--learning_rate", "1e-2"]
    common += ["--use_cpu", "true", "--disable_tqdm", "true", "--per_device_train_batch_size", "2", "--logging_steps", "1"]
    run = Run(*parse([*common, "--save_strategy", "no", *flags]))
    assert run.plan()
    run.train()
    return run


def changed_parts(before: Path, after: Path) -> set[str]:
    (model, _), (new, _) = (load_model(folder, dtype=torch.float32) for folder in (before, after))
    old, changed = dict(model.named_parameters()), dict(new.named_parameters())
    assert old.keys() == changed.keys()
    parts = parts_of(model)
    names = [name for name in old if not torch.equal(old[name], changed[name])]
    return {part for part, prefixes in parts.items() if any(name.startswith(tuple(prefixes)) for name in names)}


@pytest.mark.parametrize("case", [*FAMILIES, *NATIVE], ids=lambda case: getattr(case, "name", case))
def test_named_parts_change_and_the_result_opens(case, folder, rows, tmp_path):
    run = trained(folder(case), rows, tmp_path / "run", "--train_parts", "connector=1e-2", "language=1e-3")
    assert changed_parts(folder(case), run.result) == {"connector", "language"}
    points = map(json.loads, (tmp_path / "run/log.jsonl").read_text(encoding="utf-8").splitlines())
    losses = [point["loss"] for point in points if "loss" in point]
    assert len(losses) == 3 and losses[-1] < losses[0]
    assert "training train --config training.yaml" in (run.result / "README.md").read_text(encoding="utf-8")


def said(model, run, rows):
    """The model's output for rows of a run, in evaluation."""
    with torch.no_grad():
        return model.eval()(**{key: value for key, value in run.collator(rows).items() if key != "places"})


def logits(model, run) -> torch.Tensor:
    return said(model, run, [run.rows[0]]).logits


@pytest.mark.parametrize("case", [*FAMILIES, "smolvlm"], ids=lambda case: getattr(case, "name", case))
def test_adapter_opens_with_the_loader_with_peft_and_merged(case, folder, rows, tmp_path):
    lora = ["vision=fc1", LORA[1]] if getattr(case, "name", "") == "minigpt4" else LORA
    parts = ["llama_proj"] if getattr(case, "name", "") == "minigpt4" else ["connector"]
    flags = ["--train_parts", *parts, "--lora_target_modules", *lora, "--result", "adapter"]
    run = trained(folder(case), rows, tmp_path / "run", *flags)
    expected = logits(run.model, run)
    base, _ = load_model(folder(case), dtype=torch.float32)
    assert (logits(base, run) - expected).abs().max() > 1e-3
    plain = PeftModel.from_pretrained(base, run.result)
    torch.testing.assert_close(logits(plain, run), expected, rtol=1e-4, atol=1e-4)
    loaded, _ = load_model(folder(case), lora_model=run.result, dtype=torch.float32)
    torch.testing.assert_close(logits(loaded, run), expected, rtol=1e-4, atol=1e-4)
    merge = ["merge", "--text_model", folder(case), "--lora_model", run.result, "--output_dir", tmp_path / "merged"]
    assert main(list(map(str, merge))) == 0
    merged, _ = load_model(tmp_path / "merged", dtype=torch.float32)
    torch.testing.assert_close(logits(merged, run), expected, rtol=1e-4, atol=1e-4)


COLOURS = dict(zip("KBGCRMYW", itertools.product((0, 255), repeat=3), strict=True))
"""The corners of the cube, by their letters."""


@pytest.fixture(scope="module")
def rows64(tmp_path_factory) -> str:
    """Eight pictures under eight questions: an answer is right only by its picture and its question."""
    pairs = itertools.product(COLOURS.items(), range(1, 9))
    asked = [(letter, colour, f"Color {number}?", f"{letter}{number}.") for (letter, colour), number in pairs]
    return written(tmp_path_factory.mktemp("rows64"), (56, 56), asked)


@pytest.fixture(scope="module")
def small_llava(tmp_path_factory) -> Path:
    """The golden model has 576 tokens for a picture; this one has 16."""
    out = tmp_path_factory.mktemp("llava") / "small"
    bases = ["--text_model", str(GOLDEN / "llava/llm_tiny"), "--vision_model", str(GOLDEN / "visualcla/base/clip_full")]
    assert main(["new", "--family", "llava", *bases, "--output_dir", str(out)]) == 0
    return out


HEART = [*FAMILIES, "smolvlm"]


def by_heart(model: Path, rows: str, out: Path, *flags: str) -> Run:
    """LoRA on the head as well: the logits of a random head of so few channels cannot become a certain answer."""
    given = ["--lora_target_modules", "language=all-linear", r".*lm_head", "--lora_r", "32", "--lora_alpha", "64"]
    given += ["--result", "adapter", "--learning_rate", "7e-3", "--warmup_steps", "5", "--logging_steps", "10"]
    run = trained(model, rows, out, *given, *flags)
    if run.model.config.model_type == "smolvlm":
        # Its template ends a turn with a token that is not the tokenizer's EOS, as Gemma's does.
        ends = ["<|eos|>", "<|/turn|>"]
        run.model.generation_config.eos_token_id = run.processor.tokenizer.convert_tokens_to_ids(ends)
    return run


def assert_known(run: Run) -> None:
    """Nothing is left to learn, and every row is answered with its own answer."""
    rows = [run.rows[index] for index in range(len(run.rows))]
    assert said(run.model, run, rows)["loss"] < 0.01
    chat = ChatModel(run.model, run.processor)
    config = GenerationConfig(do_sample=False, max_new_tokens=16)
    for row in rows:
        *question, answer = row["messages"]
        images = [ImagePart.of(load_image(image)) for image in row["images"]]
        assert chat.answer(question, images, config).strip() == answer["content"]


def connector_of(case) -> str:
    return "llama_proj" if getattr(case, "name", case) == "minigpt4" else "connector"


@pytest.mark.slow
@pytest.mark.parametrize("case", HEART, ids=lambda case: getattr(case, "name", case))
def test_lora_learns_two_rows_by_heart_and_answers_them(case, folder, rows, tmp_path):
    flags = ["--train_parts", connector_of(case), "--max_steps", "60"]
    assert_known(by_heart(folder(case), rows, tmp_path / "run", *flags))


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("case", HEART, ids=lambda case: getattr(case, "name", case))
def test_lora_learns_64_rows_by_heart_and_answers_them(case, folder, small_llava, rows64, tmp_path):
    model = small_llava if getattr(case, "name", case) == "llava-v1.5" else folder(case)
    flags = ["--train_parts", connector_of(case), "--max_steps", "150", "--per_device_train_batch_size", "64"]
    assert_known(by_heart(model, rows64, tmp_path / "run", *flags))


def test_bare_parameter_is_refused_in_an_adapter(folder, rows, tmp_path, capsys):
    case = next(case for case in FAMILIES if case.name == "minigpt4")
    flags = ["--model", str(folder(case)), "--source", rows, "--output_dir", str(tmp_path / "run"), "--use_cpu", "true"]
    flags += ["--lora_target_modules", LORA[1], "--result", "adapter"]
    assert main(["train", *flags]) == 2
    assert "query_tokens' is a bare parameter" in capsys.readouterr().err


def test_a_step_is_the_mean_over_its_tokens_however_it_is_divided(folder, rows, tmp_path):
    """Accumulated batches weigh by their supervised tokens; a family's forward need not know."""
    case = next(case for case in FAMILIES if case.name == "llava-v1.5")
    flags = ["--optim", "sgd", "--per_device_train_batch_size", "1", "--gradient_accumulation_steps", "2"]
    divided = trained(folder(case), rows, tmp_path / "divided", *flags)
    whole = trained(folder(case), rows, tmp_path / "whole", "--optim", "sgd")
    states = [dict(run.model.named_parameters()) for run in (divided, whole)]
    for name, value in states[0].items():
        torch.testing.assert_close(value, states[1][name], rtol=1e-3, atol=1e-4)
