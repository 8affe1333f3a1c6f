"""The demo model and its adapter, which makes it answer in lower case without a full stop, become one model that does."""

import json
import shutil
from pathlib import Path

import pytest
import sentencepiece
import torch
from merging import RELEASE, assert_same_tensors, composite_tensors, contents, copy, error_of, run_convert, run_merge
from safetensors.torch import save_file

from demo import ask, score, world
from demo.cli import DEFAULT_MODEL
from demo.recipes.rows import terse
from pipelines.generation import ChatModel
from pipelines.visualcla import detect_layout, load_pretrained, load_tokenizer
from pipelines.weights import load_tensors

pytestmark = pytest.mark.slow

ADAPTER = Path(__file__).parents[1] / "golden/demo_adapter"
EXAMPLE = DEFAULT_MODEL.parent / "examples/four-shapes.png"
MODEL = {"text": DEFAULT_MODEL, "vision": None, "lora": [ADAPTER]}


def answers(rows, folder, **adapter):
    model = load_pretrained(folder, dtype=torch.float32, **adapter)
    return score.answers(ChatModel(model, model.processor), rows)


@pytest.fixture(scope="module")
def rows():
    """Held-out questions about pictures and other things."""
    return list(world.exam(64, seed=7))


@pytest.fixture(scope="module")
def expected(rows):
    """What base and adapter answer."""
    return answers(rows, DEFAULT_MODEL, lora_model=ADAPTER)


@pytest.fixture(scope="module", params=["webui", "transformers"])
def merged(request, tmp_path_factory):
    """(layout, folder) of the merged model, verified."""
    folder = tmp_path_factory.mktemp("demo") / request.param
    assert run_merge(folder, "--layout", request.param, "--verify", **MODEL) == 0
    return request.param, folder


def test_adapter_makes_answers_terse(rows, expected):
    plain = answers(rows, DEFAULT_MODEL)
    assert sum(answer == terse(answer) for answer in plain) < len(rows) / 10
    assert sum(answer == terse(answer) for answer in expected) > 0.9 * len(rows), expected
    assert sum(said == terse(told) for said, told in zip(expected, plain, strict=True)) > 0.5 * len(rows)


def test_merged_folder_answers_as_base_and_adapter_do(merged, rows, expected):
    layout, folder = merged
    assert detect_layout(folder) == layout
    different = [pair for pair in zip(answers(rows, folder), expected, strict=True) if pair[0] != pair[1]]
    assert len(different) <= 1, different  # the folder's weights are rounded to fp16, which can tip one


def test_merged_folder_answers_on_the_terminal(merged, capsys):
    question = ["--image", str(EXAMPLE), "Describe the picture.", "--temperature", "0"]
    assert ask.main(["--model", str(DEFAULT_MODEL), "--lora_model", str(ADAPTER), *question]) == 0
    said = capsys.readouterr().out
    assert ask.main(["--model", str(merged[1]), *question]) == 0
    assert capsys.readouterr().out == said != ""


def test_other_layout_and_back_changes_no_byte(merged, tmp_path):
    layout, folder = merged
    other = {"webui": "transformers", "transformers": "webui"}[layout]
    assert run_convert(folder, tmp_path / "other", other) == 0
    assert run_convert(tmp_path / "other", tmp_path / "back", layout) == 0
    found, before = contents(tmp_path / "back"), contents(folder)
    assert found.pop("README.md") != before.pop("README.md")  # it names what the folder was made of
    assert found == before


def test_parts_given_one_by_one_give_the_same(merged, tmp_path):
    """A language model without eyes and a CLIP vision encoder: what the release's adapter lies over."""
    layout, folder = merged
    text = shutil.copytree(DEFAULT_MODEL, tmp_path / "text", ignore=shutil.ignore_patterns("vision"))
    vision = tmp_path / "clip"
    vision.mkdir()
    config = json.loads((DEFAULT_MODEL / "vision/config.json").read_text(encoding="utf-8"))
    (vision / "config.json").write_text(json.dumps(config["vision_config"]), encoding="utf-8")
    eyes = load_tensors(DEFAULT_MODEL / "vision")
    save_file({name: eyes[name] for name in eyes if name.startswith("vision_model.")}, vision / "model.safetensors")
    assert run_merge(tmp_path / "out", "--layout", layout, "--verify", text=text, vision=vision, lora=[ADAPTER]) == 0
    assert_same_tensors(composite_tensors(tmp_path / "out"), composite_tensors(folder))


def test_original_layout_is_for_sentencepiece_tokenizers(tmp_path, capsys):
    """The demo's tokenizer is none, and somebody else's does not pass for it."""
    adapter = copy(ADAPTER, tmp_path / "adapter")
    for told in ("has no tokenizer.model", "they belong to different tokenizers"):
        assert run_merge(tmp_path / "out", "--layout", "original", **(MODEL | {"lora": [adapter]})) == 2
        assert told in error_of(capsys) and [path.name for path in tmp_path.iterdir()] == ["adapter"]
        shutil.copy(RELEASE / "tokenizer.model", adapter)


def test_original_layout_and_back_keeps_the_weights(merged, tmp_path):
    """Beside a sentencepiece tokenizer of the right size."""
    layout, folder = merged
    text, adapter = (
        shutil.copytree(source, tmp_path / name, ignore=shutil.ignore_patterns("tokenizer*"))
        for name, source in (("text", DEFAULT_MODEL), ("adapter", ADAPTER))
    )
    num_pieces = len(load_tokenizer(ADAPTER)) - 3  # the image tokens are added
    with (adapter / "tokenizer.model").open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(["a b"]),
            model_writer=file,
            model_type="char",
            vocab_size=num_pieces,
            user_defined_symbols=[f"<{number}>" for number in range(num_pieces - 6)],  # 3 control tokens, 3 characters
            minloglevel=2,
        )
    assert run_merge(tmp_path / "out", "--layout", "original", **(MODEL | {"text": text, "lora": [adapter]})) == 0
    assert run_convert(tmp_path / "out", tmp_path / "back", layout) == 0
    for made in (tmp_path / "out", tmp_path / "back"):
        assert_same_tensors(composite_tensors(made), composite_tensors(folder))
