"""`training new`: any language model and a vision encoder become a folder that opens at once, and learns."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from models import TEXT, VISION
from PIL import Image
from safetensors.torch import load_file
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaConfig,
    Qwen3Config,
    Qwen3ForCausalLM,
    SiglipVisionConfig,
    SiglipVisionModel,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from demo import ask
from pipelines import load_model
from pipelines.composite.new import named_as
from pipelines.tokenization import load_tokenizer
from training.__main__ import main

LLAMA = Path("tests/golden/llava/llm_tiny")
WEIGHTS = ("model.safetensors", "vision/model.safetensors")
SIDE = {"height": 32, "width": 32}


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """Two language models and two vision encoders, in folders as they are published."""
    root = tmp_path_factory.mktemp("bases")
    torch.manual_seed(0)
    tokenizer = load_tokenizer(LLAMA)
    tokenizer.save_pretrained(root / "qwen3")
    config = Qwen3Config(**{**TEXT, "pad_token_id": 0}, head_dim=16, vocab_size=len(tokenizer), tie_word_embeddings=True)
    Qwen3ForCausalLM(config).save_pretrained(root / "qwen3")
    CLIPVisionModel(CLIPVisionConfig(**VISION)).save_pretrained(root / "clip")
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=SIDE).save_pretrained(root / "clip")
    SiglipVisionModel(SiglipVisionConfig(**VISION)).save_pretrained(root / "siglip")
    SiglipImageProcessorPil(size=SIDE).save_pretrained(root / "siglip")
    Image.new("RGB", (50, 30), "red").save(root / "red.png")
    return {"llama": LLAMA, **{name: root / name for name in ("qwen3", "clip", "siglip", "red.png")}}


def new(bases, family: str, text: str, vision: str, out: Path, *flags: str) -> int:
    given = ["--family", family, "--text_model", str(bases[text]), "--vision_model", str(bases[vision])]
    return main(["new", *given, "--output_dir", str(out), *flags])


@pytest.mark.parametrize("family", ["visualcla", "llava"])
@pytest.mark.parametrize(("text", "vision"), [("llama", "clip"), ("qwen3", "siglip")])
def test_new_model_opens_at_once_and_learns(bases, family, text, vision, tmp_path, capsys):
    folder = tmp_path / "fresh"
    assert new(bases, family, text, vision, folder) == 0
    assert f"--preset {family}_pretrain --model {folder}" in capsys.readouterr().out
    assert ask.main(["--model", str(folder), "--image", str(bases["red.png"]), "--max_new_tokens", "3", "What is this?"]) == 0
    assert (folder / "tokenizer.model").is_file() == (text == "llama")
    before, _ = load_model(folder, dtype=torch.float32)
    row = [{"type": "image"}, {"type": "text", "text": "What color?"}]
    messages = [{"role": "user", "content": row}, {"role": "assistant", "content": "It is red."}]
    line = json.dumps({"messages": messages, "images": [str(bases["red.png"])]})
    (tmp_path / "rows.jsonl").write_text(line, encoding="utf-8")
    flags = ["--model", str(folder), "--source", str(tmp_path / "rows.jsonl"), "--output_dir", str(tmp_path / "run")]
    flags += [
        "--max_steps",
        "4",
        "--use_cpu",
        "true",
        "--disable_tqdm",
        "true",
        "--logging_steps",
        "1",
        "--learning_rate",
        "1e-2",
    ]
    assert main(["train", *flags]) == 0
    points = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text(encoding="utf-8").splitlines()]
    losses = [point["loss"] for point in points if "loss" in point]
    assert losses[-1] < losses[0]
    after, _ = load_model(tmp_path / "run/model", dtype=torch.float32)
    assert torch.equal(before.get_input_embeddings().weight, after.get_input_embeddings().weight)


def test_language_model_and_vision_encoder_stay_as_they_are(bases, tmp_path):
    assert new(bases, "visualcla", "qwen3", "clip", tmp_path / "fresh", "--num_query_tokens", "7", "--num_layers", "2") == 0
    stored = load_file(bases["qwen3"] / "model.safetensors")
    fresh = load_file(tmp_path / "fresh/model.safetensors")
    assert fresh.keys() == stored.keys()
    rows = {name: len(tensor) for name, tensor in stored.items()}
    assert all(torch.equal(fresh[name][: rows[name]], stored[name]) for name in stored)
    config = json.loads((tmp_path / "fresh/vision/config.json").read_text(encoding="utf-8"))
    assert config["visual_resampler_config"]["num_query_tokens"] == 7
    assert config["visual_resampler_config"]["num_hidden_layers"] == 2
    encoder = load_file(bases["clip"] / "model.safetensors")
    eyes = load_file(tmp_path / "fresh/vision/model.safetensors")
    for name, tensor in encoder.items():
        assert torch.equal(eyes[f"vision_model.{name.removeprefix('vision_model.')}"], tensor)


def test_text_models_own_template_is_kept_and_shows_pictures(bases, tmp_path):
    tokenizer = load_tokenizer(LLAMA)
    tokenizer.chat_template = (
        "{% for message in messages %}{{ '[' + message['role'] + '] ' + message['content'] + '\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '[assistant] ' }}{% endif %}"
    )
    shutil.copytree(bases["qwen3"], tmp_path / "speaks")
    tokenizer.save_pretrained(tmp_path / "speaks")
    talk = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}, {"role": "user", "content": "Oh?"}]
    shown = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Why?"}]}]
    for family, mark in (("visualcla", "<img><img_token></img>\n"), ("llava", "<image>\n")):
        assert new({**bases, "speaks": tmp_path / "speaks"}, family, "speaks", "clip", tmp_path / family) == 0
        _, processor = load_model(tmp_path / family)
        own = tokenizer.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
        assert processor.apply_chat_template(talk, tokenize=False, add_generation_prompt=True) == own
        assert processor.apply_chat_template(shown, tokenize=False) == f"[user] {mark}Why?\n"
        stored = load_tokenizer(tmp_path / family)  # what the web UI renders, whose messages are texts
        assert stored.apply_chat_template(talk, tokenize=False, add_generation_prompt=True) == own


def test_eyes_of_a_visualcla_model_come_with_their_resampler(bases, tmp_path):
    demo = {**bases, "eyes": "demo/model"}
    assert new(demo, "visualcla", "qwen3", "eyes", tmp_path / "fresh") == 0
    given, fresh = load_file("demo/model/vision/model.safetensors"), load_file(tmp_path / "fresh/vision/model.safetensors")
    taken = {name for name in given if not name.startswith("image_projection_layer.")}
    assert fresh.keys() == given.keys() and len(taken) > 50
    assert all(torch.equal(fresh[name], given[name].float()) for name in taken)
    assert new(demo, "visualcla", "qwen3", "eyes", tmp_path / "other", "--num_query_tokens", "7", "--num_layers", "1") == 0
    other = load_file(tmp_path / "other/vision/model.safetensors")
    assert other["visual_resampler.query_embeddding"].shape[1] == 7
    assert not any(name.startswith("visual_resampler.encoder.layer.1.") for name in other)


def test_same_seed_gives_the_same_model(bases, tmp_path):
    for name, seed in (("first", "3"), ("again", "3"), ("other", "4")):
        assert new(bases, "visualcla", "qwen3", "clip", tmp_path / name, "--num_layers", "1", "--seed", seed) == 0
    files = [[load_file(tmp_path / name / file) for name in ("first", "again", "other")] for file in WEIGHTS]
    for first, again, other in files:
        assert all(torch.equal(tensor, again[name]) for name, tensor in first.items())
        assert not all(torch.equal(tensor, other[name]) for name, tensor in first.items())


def test_what_cannot_be_begun_is_refused_in_one_line(bases, tmp_path, capsys):
    def refusal(*given, **changed) -> str:
        capsys.readouterr()
        assert new({**bases, **changed}, *given) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        return error

    out = tmp_path / "fresh"
    assert "allowed: visualcla, llava" in refusal("minigpt4", "llama", "clip", out)
    assert "allowed: visualcla, llava" in refusal("eyes", "llama", "clip", out)
    assert "no causal language model" in refusal("llava", "clip", "clip", out)
    assert "allowed: clip" in refusal("llava", "llama", "llama", out)
    assert "absent" in refusal("llava", "llama", "clip", out, llama=tmp_path / "absent")
    assert "is not a file" in refusal("llava", "llama", "clip", out, llama=tmp_path / "absent.gguf")
    assert "--num_query_tokens is not for llava" in refusal("llava", "llama", "clip", out, "--num_query_tokens", "3")
    assert not out.exists()
    out.mkdir()
    assert "exists" in refusal("llava", "llama", "clip", out)


def test_what_a_gguf_says_ends_a_text_holds_over_its_tokenizer():
    tokenizer = load_tokenizer(LLAMA)
    tokenizer.eos_token = tokenizer.bos_token
    end = tokenizer.convert_tokens_to_ids("</s>")
    named = named_as(LlamaConfig(vocab_size=len(tokenizer), bos_token_id=1, eos_token_id=end, pad_token_id=-1), tokenizer)
    assert (named.eos_token, named.eos_token_id, named.bos_token_id) == ("</s>", end, 1)
    assert named.pad_token_id == tokenizer.pad_token_id
