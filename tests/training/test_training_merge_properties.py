"""Pico language models and adapters of every kind: merged here, they compute what PEFT computes with base and adapter."""

import json
import shutil
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from merging import run_merge
from models import make_tokenizer
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

from pipelines.weights import load_tensors

IDS = torch.arange(4, 20).unsqueeze(0)
LLAMA = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
PROPERTY = settings(
    max_examples=12, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def make_base(folder: Path, config=None, shard_size="5GB", safe=True, extra_rows=0, **changes) -> Path:
    """A random language model with a tokenizer; the weights as safetensors or pickle, in one file or several."""
    tokenizer = make_tokenizer()
    vocab_size = len(tokenizer) + extra_rows
    config = config or LlamaConfig(**{**LLAMA, "vocab_size": vocab_size, "initializer_range": 0.3, **changes})
    config.vocab_size = vocab_size
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(folder, max_shard_size=shard_size)
    if not safe:
        for file in folder.glob("*.safetensors"):
            torch.save(load_file(file), folder / "pytorch_model.bin")
            file.unlink()
    tokenizer.save_pretrained(folder)
    return folder


def train_adapter(base: Path, folder: Path, grown_rows: int = 0, **options) -> Path:
    """A PEFT adapter whose every tensor is random."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    tokenizer = make_tokenizer()
    if grown_rows:
        tokenizer.add_tokens([f"<new{index}>" for index in range(grown_rows)])
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    model = get_peft_model(model, LoraConfig(**{"r": 2, "lora_alpha": 3, "task_type": "CAUSAL_LM", **options}))
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                values = torch.randn_like(parameter) * 0.3
                parameter.copy_(values.abs() + 0.5 if "magnitude" in name else values)
    model.save_pretrained(folder)
    if grown_rows:
        tokenizer.save_pretrained(folder)
    return folder


@torch.no_grad()
def peft_logits(base: Path, adapter: Path, grown_rows: int = 0) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if grown_rows:
        model.resize_token_embeddings(len(make_tokenizer()) + grown_rows, mean_resizing=False)
    return PeftModel.from_pretrained(model, adapter).eval()(input_ids=IDS).logits


@torch.no_grad()
def assert_merges(base: Path, adapter: Path, output: Path, *flags, grown_rows: int = 0) -> None:
    assert run_merge(output, *flags, text=base, vision=None, lora=[adapter]) == 0
    merged = AutoModelForCausalLM.from_pretrained(output, dtype=torch.float32).eval()
    expected = peft_logits(base, adapter, grown_rows)
    assert torch.allclose(merged(input_ids=IDS).logits, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


@pytest.fixture
def scratch():
    folder = Path(tempfile.mkdtemp())
    yield folder
    shutil.rmtree(folder)


@PROPERTY
@given(
    rank=st.integers(1, 6),
    alpha=st.sampled_from([1, 3, 16]),
    rslora=st.booleans(),
    dora=st.booleans(),
    bias=st.sampled_from(["none", "lora_only", "all"]),
    extra_rows=st.sampled_from([0, 1, 13]),
    shard_size=st.sampled_from(["5GB", "8KB"]),
    max_shard_size=st.sampled_from(["2GB", "5KB"]),
    patterns=st.booleans(),
)
def test_any_lora_merges_to_what_peft_computes(
    rank, alpha, rslora, dora, bias, extra_rows, shard_size, max_shard_size, patterns
):
    scratch = Path(tempfile.mkdtemp())
    try:
        base = make_base(scratch / "base", shard_size=shard_size, extra_rows=extra_rows, attention_bias=True)
        options = {"r": rank, "lora_alpha": alpha, "use_rslora": rslora, "use_dora": dora, "bias": bias}
        if patterns:
            options |= {
                "rank_pattern": {"layers.1.mlp.up_proj": 5, "q_proj": 1},
                "alpha_pattern": {r"layers\.\d+\.self_attn\.q_proj": 7},
            }
        adapter = train_adapter(base, scratch / "adapter", target_modules="all-linear", **options)
        assert_merges(base, adapter, scratch / "out", "--max_shard_size", max_shard_size)
    finally:
        shutil.rmtree(scratch)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("saved", [["embed_tokens", "lm_head"], ["embed_tokens"], ["lm_head"]])
def test_tied_and_untied_embeddings_come_back_as_trained(scratch, tied, saved):
    base = make_base(scratch / "base", tie_word_embeddings=tied)
    adapter = train_adapter(base, scratch / "adapter", target_modules=["q_proj"], modules_to_save=saved)
    assert_merges(base, adapter, scratch / "out", "--verify")
    config = json.loads((scratch / "out/config.json").read_text())
    assert config["tie_word_embeddings"] is False


def test_weights_kept_tied_by_peft_stay_tied(scratch):
    base = make_base(scratch / "base", tie_word_embeddings=True)
    options = {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"], "ensure_weight_tying": True}
    adapter = train_adapter(base, scratch / "adapter", **options)
    assert_merges(base, adapter, scratch / "out", "--verify")
    assert "lm_head.weight" not in load_tensors(scratch / "out")


def test_tied_embeddings_without_adapter_on_them_stay_tied(scratch):
    base = make_base(scratch / "base", tie_word_embeddings=True)
    assert_merges(base, train_adapter(base, scratch / "adapter", target_modules=["v_proj"]), scratch / "out")
    assert "lm_head.weight" not in load_tensors(scratch / "out")


@pytest.mark.parametrize("tied", [True, False])
def test_vocabulary_grows_with_the_adapters_tokenizer(scratch, tied):
    base = make_base(scratch / "base", tie_word_embeddings=tied)
    saved = {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]}
    adapter = train_adapter(base, scratch / "adapter", grown_rows=3, **saved)
    assert_merges(base, adapter, scratch / "out", grown_rows=3)
    rows = len(make_tokenizer()) + 3
    assert json.loads((scratch / "out/config.json").read_text())["vocab_size"] == rows
    assert load_tensors(scratch / "out")["model.embed_tokens.weight"].shape[0] == rows


def test_tied_growth_without_a_head_is_refused(scratch, capsys):
    """PEFT saves the head beside the grown embeddings; without it the new tokens' rows are nowhere."""
    base = make_base(scratch / "base", tie_word_embeddings=True)
    options = {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]}
    adapter = train_adapter(base, scratch / "adapter", grown_rows=3, **options)
    tensors = {key: tensor for key, tensor in load_tensors(adapter).items() if "lm_head" not in key}
    (adapter / "adapter_model.safetensors").unlink()
    save_file(tensors, adapter / "adapter_model.safetensors")
    assert run_merge(scratch / "out", text=base, vision=None, lora=[adapter]) == 2
    assert "the new tokens' rows are lost" in capsys.readouterr().err


def test_lora_on_embeddings(scratch):
    base = make_base(scratch / "base")
    assert_merges(base, train_adapter(base, scratch / "adapter", target_modules=["embed_tokens", "lm_head"]), scratch / "out")


@pytest.mark.parametrize("fan_in_fan_out", [True, False])
def test_weights_stored_transposed(scratch, fan_in_fan_out):
    """GPT-2's Conv1D, square matrices among them; PEFT goes by the module, whatever the flag says."""
    config = GPT2Config(n_embd=16, n_layer=2, n_head=2, n_positions=32, initializer_range=0.3)
    base = make_base(scratch / "base", config)
    options = {"target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": fan_in_fan_out}
    assert_merges(base, train_adapter(base, scratch / "adapter", **options), scratch / "out")


def test_dora_on_a_transposed_weight_is_refused(scratch, capsys):
    base = make_base(scratch / "base", GPT2Config(n_embd=16, n_layer=1, n_head=2, n_positions=32))
    options = {"target_modules": ["c_attn"], "fan_in_fan_out": True, "use_dora": True}
    assert run_merge(scratch / "out", text=base, vision=None, lora=[train_adapter(base, scratch / "adapter", **options)]) == 2
    assert "has DoRA on" in capsys.readouterr().err


@pytest.mark.parametrize("container", ["zip", "legacy", "strided"])
def test_base_and_adapter_as_pickles(scratch, container):
    """Also with a tensor that is a transposed view of its storage."""
    base = make_base(scratch / "base", safe=False)
    adapter = train_adapter(base, scratch / "adapter", target_modules=["q_proj", "up_proj"])
    for folder, name in ((base, "pytorch_model.bin"), (adapter, "adapter_model.bin")):
        tensors = load_tensors(folder)
        if container == "strided":
            tensors = {key: tensor.T.contiguous().T if tensor.ndim == 2 else tensor for key, tensor in tensors.items()}
        for file in folder.glob("adapter_model.safetensors"):
            file.unlink()
        torch.save(tensors, folder / name, _use_new_zipfile_serialization=container != "legacy")
    assert_merges(base, adapter, scratch / "out")


def test_bfloat16_stays_bfloat16(scratch):
    base = make_base(scratch / "base")
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    model.save_pretrained(base)
    adapter = train_adapter(base, scratch / "adapter", target_modules=["q_proj"])
    assert run_merge(scratch / "out", "--verify", text=base, vision=None, lora=[adapter]) == 0
    found, before = load_tensors(scratch / "out"), load_tensors(base)
    assert {tensor.dtype for tensor in found.values()} == {torch.bfloat16}
    name = "model.layers.0.self_attn.q_proj"
    lora = {key.rpartition(".lora_")[2][0]: t for key, t in load_tensors(adapter).items() if "layers.0." in key}
    expected = (before[f"{name}.weight"].float() + 1.5 * (lora["B"] @ lora["A"])).bfloat16()
    assert torch.equal(found[f"{name}.weight"], expected)


def test_chain_of_growing_tokenizers(scratch):
    """LLaMA, then two adapters that each bring a tokenizer and all embeddings, as the Chinese models were made."""
    base = make_base(scratch / "base")
    saved = {"target_modules": ["q_proj", "down_proj"], "modules_to_save": ["embed_tokens", "lm_head"]}
    first = train_adapter(base, scratch / "first", grown_rows=5, **saved)
    second = train_adapter(base, scratch / "second", grown_rows=6, **saved)
    for adapter in (first, second):  # published without a word on their base
        settings = json.loads((adapter / "adapter_config.json").read_text())
        (adapter / "adapter_config.json").write_text(json.dumps(settings | {"base_model_name_or_path": ""}))
    assert run_merge(scratch / "out", "--verify", text=base, vision=None, lora=[first, second]) == 0
    assert run_merge(scratch / "one", text=base, vision=None, lora=[first]) == 0
    assert run_merge(scratch / "two", text=scratch / "one", vision=None, lora=[second]) == 0
    whole, stepwise = load_tensors(scratch / "out"), load_tensors(scratch / "two")
    assert whole["model.embed_tokens.weight"].shape[0] == len(make_tokenizer()) + 6
    for name, tensor in stepwise.items():
        assert torch.allclose(whole[name], tensor, atol=1e-6), name


def test_chain_in_the_wrong_order_is_refused(scratch, capsys):
    base = make_base(scratch / "base")
    saved = {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"], "r": 2}
    first = train_adapter(base, scratch / "first", grown_rows=5, **saved)
    second = train_adapter(base, scratch / "second", grown_rows=6, **saved)
    assert run_merge(scratch / "out", text=base, vision=None, lora=[second, first]) == 2
    assert "in the order they were trained in" in capsys.readouterr().err


def test_tokenizer_that_does_not_go_on_from_the_bases_is_refused(scratch, capsys):
    base = make_base(scratch / "base")
    saved = {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]}
    adapter = train_adapter(base, scratch / "adapter", grown_rows=2, **saved)
    vocabulary = json.loads((adapter / "tokenizer.json").read_text(encoding="utf-8"))
    words = vocabulary["model"]["vocab"]
    words["red"], words["green"] = words["green"], words["red"]
    (adapter / "tokenizer.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    assert run_merge(scratch / "out", text=base, vision=None, lora=[adapter]) == 2
    assert "does not go on from" in capsys.readouterr().err


def test_adapter_of_a_sharded_and_tied_base_with_default_in_its_keys(scratch):
    base = make_base(scratch / "base", tie_word_embeddings=True, shard_size="6KB")
    adapter = train_adapter(base, scratch / "adapter", target_modules="all-linear")
    tensors = load_tensors(adapter)
    renamed = {key.replace(".weight", ".default.weight") if ".lora_" in key else key: t for key, t in tensors.items()}
    save_file(renamed, scratch / "renamed.safetensors")
    expected = peft_logits(base, adapter)
    shutil.move(scratch / "renamed.safetensors", adapter / "adapter_model.safetensors")
    assert run_merge(scratch / "out", text=base, vision=None, lora=[adapter]) == 0
    merged = AutoModelForCausalLM.from_pretrained(scratch / "out", dtype=torch.float32)
    assert torch.allclose(merged(input_ids=IDS).logits, expected, rtol=1e-4, atol=1e-3)
