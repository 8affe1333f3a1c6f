"""Deltas added to their base, and Meta's own files of LLaMA, become what transformers opens."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from pipelines.checkpoints.meta_llama import _IN_LAYER, _OUTER, tensor_of
from pipelines.composite.tensors import stored_tensors
from pipelines.doctor import examine
from pipelines.minigpt4 import FAMILY
from training.__main__ import main

MINI = Path(__file__).parent.parent / "golden" / "minigpt4"
VICUNA = MINI / "vicuna_tiny"
PROJECTION = MINI / "checkpoint" / "pretrained_minigpt4_7b.pth"


def run(*arguments) -> int:
    return main([str(argument) for argument in arguments])


@pytest.fixture
def delta(tmp_path):
    """(base, delta, what both are together): the delta has one token more, as Vicuna v0 has."""
    whole = {name: tensor.float() for name, tensor in stored_tensors(VICUNA).items()}
    torch.manual_seed(0)
    weights = {name: tensor + 0.01 * torch.randn_like(tensor) for name, tensor in whole.items()}
    changes = {name: whole[name] - weights[name] for name in whole}
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        new = torch.randn(1, whole[name].shape[1])
        whole[name] = torch.cat([whole[name], new])
        changes[name] = torch.cat([changes[name], new - weights[name].mean(0)])
    for folder, tensors, rows in (("llama", weights, 480), ("vicuna-delta", changes, 481)):
        shutil.copytree(VICUNA, tmp_path / folder, ignore=shutil.ignore_patterns("*.bin*"))
        config = json.loads((VICUNA / "config.json").read_text()) | {"vocab_size": rows}
        (tmp_path / folder / "config.json").write_text(json.dumps(config))
        torch.save(tensors, tmp_path / folder / "pytorch_model.bin")
    return tmp_path / "llama", tmp_path / "vicuna-delta", whole


def test_delta_over_its_base_is_the_model(delta, tmp_path):
    base, change, whole = delta
    assert run("merge", "--text_model", base, "--delta", change, "--output_dir", tmp_path / "vicuna") == 0
    merged = load_file(tmp_path / "vicuna" / "model.safetensors")
    assert merged.keys() == whole.keys()
    for name, tensor in whole.items():
        torch.testing.assert_close(merged[name], tensor, atol=1e-6, rtol=0)
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "vicuna").config.vocab_size == 481
    assert (tmp_path / "vicuna" / "tokenizer.model").is_file()


def test_delta_with_a_projector_keeps_it_and_its_new_rows_as_they_are(delta, tmp_path):
    base, change, whole = delta
    tensors = torch.load(change / "pytorch_model.bin", weights_only=True)
    tensors["model.mm_projector.weight"] = torch.randn(48, 8)
    torch.save(tensors, change / "pytorch_model.bin")
    assert run("merge", "--text_model", base, "--delta", change, "--output_dir", tmp_path / "llava") == 0
    merged = load_file(tmp_path / "llava" / "model.safetensors")
    assert torch.equal(merged["model.mm_projector.weight"], tensors["model.mm_projector.weight"])
    assert torch.equal(merged["lm_head.weight"][-1], tensors["lm_head.weight"][-1])
    torch.testing.assert_close(merged["lm_head.weight"][:480], whole["lm_head.weight"][:480], atol=1e-6, rtol=0)


@pytest.mark.parametrize("change", ["a tensor too few", "another width", "a layer more"])
def test_a_delta_of_another_model_is_refused(change, delta, tmp_path, capsys):
    base, folder, _ = delta
    tensors = torch.load(folder / "pytorch_model.bin", weights_only=True)
    name = "model.layers.1.mlp.up_proj.weight"
    if change == "a tensor too few":
        del tensors[name]
    elif change == "another width":
        tensors[name] = tensors[name][:, :-1].contiguous()
    else:
        name = "model.layers.2.mlp.up_proj.weight"
        tensors[name] = torch.zeros(96, 48)
    torch.save(tensors, folder / "pytorch_model.bin")
    assert run("merge", "--text_model", base, "--delta", folder, "--output_dir", tmp_path / "out") == 2
    told = capsys.readouterr().err
    assert name in told and told.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_delta_is_not_taken_for_a_language_model(delta):
    with pytest.raises(ValueError, match="--delta"):
        FAMILY.read(PROJECTION, text_model=delta[1])


@pytest.fixture(params=[1, 2], ids=["one file", "two files"])
def meta(request, tmp_path):
    """The tiny Vicuna in Meta's form."""
    folder = tmp_path / "meta" / "7B"
    folder.mkdir(parents=True)
    whole = stored_tensors(VICUNA)
    names = {ours: published for published, ours in _OUTER.items()}
    names |= {f"model.layers.{i}.{ours}": f"layers.{i}.{published}" for i in (0, 1) for published, ours in _IN_LAYER.items()}
    shards = [{"rope.freqs": torch.ones(6)} for _ in range(request.param)]
    for ours, tensor in whole.items():
        published = names[ours]
        if published.endswith(("wq.weight", "wk.weight")):  # halves of each head to pairs
            tensor = tensor.unflatten(0, (4, 2, 6)).transpose(1, 2).flatten(0, 2)
        split = 1 if published.endswith(("tok_embeddings.weight", "wo.weight", "w2.weight")) else 0
        parts = [tensor] * request.param if tensor.ndim == 1 else tensor.chunk(request.param, dim=split)
        for shard, part in zip(shards, parts, strict=True):
            shard[published] = part.clone()
    for index, shard in enumerate(shards):
        torch.save(shard, folder / f"consolidated.{index:02d}.pth")
    params = {"dim": 48, "n_heads": 4, "n_layers": 2, "norm_eps": 1e-6, "vocab_size": -1, "multiple_of": 32}
    (folder / "params.json").write_text(json.dumps(params))
    shutil.copy(VICUNA / "tokenizer.model", folder.parent)
    return folder


def test_metas_files_become_what_transformers_opens(meta, tmp_path):
    assert run("convert", meta, tmp_path / "llama", "--layout", "webui") == 0
    merged, whole = load_file(tmp_path / "llama" / "model.safetensors"), stored_tensors(VICUNA)
    assert merged.keys() == whole.keys()
    assert all(torch.equal(merged[name], whole[name]) for name in whole)
    config = AutoModelForCausalLM.from_pretrained(tmp_path / "llama").config
    assert (config.intermediate_size, config.vocab_size, config.rms_norm_eps) == (96, 480, 1e-6)
    _, processor = FAMILY.load_model(PROJECTION, text_model=tmp_path / "llama")
    assert processor.ids("###Human: What?") == FAMILY.processor_of(FAMILY.read(PROJECTION, text_model=VICUNA)).ids(
        "###Human: What?"
    )


def test_metas_order_of_rotary_pairs_gives_the_same_attention():
    """Rotating pairs that lie side by side, as Meta does, or the halves of a head, as transformers does: the same scores."""
    torch.manual_seed(0)
    num_heads, width, length = 2, 16, 5
    published = [torch.randn(width, width) for _ in range(2)]
    x = torch.randn(length, width)
    angles = torch.outer(torch.arange(length), 10000 ** -(torch.arange(0, 8, 2) / 8))  # (T, half a head)

    def metas(weight):
        pairs = torch.view_as_complex((x @ weight.T).unflatten(1, (num_heads, 4, 2)).contiguous())
        return torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles)[:, None]).flatten(2)

    def ours(name, weight):
        heads = (x @ tensor_of(f"layers.0.attention.{name}.weight", [weight], {"n_heads": num_heads}).T).unflatten(
            1, (num_heads, -1)
        )
        cos, sin = (torch.cat([f(angles)] * 2, dim=1)[:, None] for f in (torch.cos, torch.sin))
        return heads * cos + torch.cat([-heads[..., 4:], heads[..., :4]], dim=-1) * sin

    expected = torch.einsum("qhd,khd->hqk", *(metas(weight) for weight in published))
    scores = torch.einsum("qhd,khd->hqk", *(ours(name, weight) for name, weight in zip(("wq", "wk"), published, strict=True)))
    torch.testing.assert_close(scores, expected)


def test_metas_files_are_named_where_something_else_is_wanted(meta, tmp_path, capsys):
    with pytest.raises(ValueError, match="Meta"):
        FAMILY.read(PROJECTION, text_model=meta)
    assert "training convert" in examine(meta).next[0]
    assert run("merge", "--text_model", meta, "--delta", VICUNA, "--output_dir", tmp_path / "out") == 2
    assert "training convert" in capsys.readouterr().err


def test_a_missing_file_of_metas_is_noticed(meta, tmp_path, capsys):
    files = sorted(meta.glob("consolidated.*.pth"))
    if len(files) == 1:
        shard = torch.load(files[0], weights_only=True)
        torch.save({name: tensor for name, tensor in shard.items() if not name.startswith("layers.1.")}, files[0])
    else:
        files[1].unlink()
    assert run("convert", meta, tmp_path / "out", "--layout", "webui") == 2
    assert "Is a file missing?" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
