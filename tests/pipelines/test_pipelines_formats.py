"""What people have on their disks: each is found by its family, or refused by name with the way forward, at every door alike."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

from pipelines import load_model
from pipelines.checkpoints.formats import DOORS, FOREIGN
from pipelines.doctor import examine
from pipelines.registry import find_family
from training.__main__ import main

GOLDEN = Path(__file__).parent.parent / "golden"
SIZES = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 9}


def config(folder: Path, **values) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(values), encoding="utf-8")
    return folder


def llama(folder: Path, scale: float = 1.0, **values) -> Path:
    model = LlamaForCausalLM(LlamaConfig(**SIZES))
    with torch.no_grad():
        model.model.norm.weight.mul_(scale)
    model.save_pretrained(folder)
    stored = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return config(folder, **stored, **values)


def adapter(folder: Path, beside: str | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 1, "base_model_name_or_path": "vicuna"}))
    names = [f"base_model.model.model.layers.0.self_attn.q_proj.lora_{side}.weight" for side in "AB"]
    save_file(dict(zip(names, (torch.ones(1, 8), torch.ones(8, 1)), strict=True)), folder / "adapter_model.safetensors")
    if beside is not None:
        torch.save({"base_model.model.model.mm_projector.weight": torch.ones(8, 4)}, folder / beside)
    return folder


def gguf(folder: Path, architecture: bytes) -> Path:
    folder.mkdir()
    key = b"general.architecture"
    header = b"GGUF" + (3).to_bytes(4, "little") + (0).to_bytes(8, "little") + (1).to_bytes(8, "little")
    value = (8).to_bytes(4, "little") + len(architecture).to_bytes(8, "little") + architecture
    (folder / "model.gguf").write_bytes(header + len(key).to_bytes(8, "little") + key + value)
    return folder


def meta(folder: Path) -> Path:
    folder.mkdir()
    (folder / "params.json").write_text("{}")
    torch.save({"norm.weight": torch.ones(8)}, folder / "consolidated.00.pth")
    return folder


OPENED = {
    "1 VisualCLA release": ("visualcla", lambda folder: GOLDEN / "visualcla/release/visualcla-tiny"),
    "2 VisualCLA merged": ("visualcla", lambda folder: GOLDEN / "visualcla/merged/visualcla-tiny-merged"),
    "4 LLaVA original": ("llava", lambda folder: config(folder, model_type="llava", mm_vision_tower="openai/clip")),
    "4 LLaVA original, later name": ("llava", lambda folder: config(folder, model_type="llava_llama")),
    "5 projector alone": ("llava", lambda folder: GOLDEN / "llava/checkpoint/mm_projector_v1.5.bin"),
    "6 LLaVA LoRA": ("llava", lambda folder: adapter(folder, "non_lora_trainables.bin")),
    "7 llava-hf": ("llava", lambda folder: config(folder, model_type="llava", text_config={}, vision_config={})),
    "8 MiniGPT-4": ("minigpt4", lambda folder: GOLDEN / "minigpt4/checkpoint/pretrained_minigpt4_7b.pth"),
    "9 LRV V1": ("minigpt4", lambda folder: GOLDEN / "minigpt4/checkpoint/lrv_v1_checkpoint_0.pth"),
    "10 mPLUG-Owl": ("mplug_owl", lambda folder: GOLDEN / "mplug_owl/checkpoint"),
    "12 OpenFlamingo": ("open_flamingo", lambda folder: GOLDEN / "mmgpt/checkpoint/checkpoint.pt"),
    "13 Multimodal-GPT LoRA": ("open_flamingo", lambda folder: GOLDEN / "mmgpt/checkpoint/mmgpt-lora-v0-release.pt"),
    "17 any of transformers": ("native", lambda folder: config(folder, model_type="qwen2_5_vl", image_token_id=1)),
}


@pytest.mark.parametrize("name", OPENED)
def test_a_family_finds_its_own(name, tmp_path):
    expected, make = OPENED[name]
    assert find_family(make(tmp_path / "model")) == expected


FULL = "is quantised (gptq). Merging and converting need the weights in 16 or 32 bits: give the model it was quantised from."
GGUF = "a GGUF model, which is llama.cpp's. Load it with the web UI's llama.cpp loader, or get the model as safetensors."
DELTA = "is a delta, weights minus those of LLaMA, and no model. Add it to LLaMA first: python -m training merge --text_model LLAMA --delta"
META = "is LLaMA as Meta published it. Convert it first: python -m training convert"
MAKERS = {
    "3 and 14 adapter of a language model": lambda folder: adapter(folder),
    "11 LRV V2": lambda folder: GOLDEN / "mplug_owl/lrv_v2/lora_only.bin",
    "15 GGUF": lambda folder: gguf(folder, b"llama"),
    "15 mmproj GGUF": lambda folder: gguf(folder, b"clip"),
    "16 GPTQ": lambda folder: llama(folder, quantization_config={"quant_method": "gptq"}),
    "18 delta": lambda folder: llama(folder, scale=0.001),
    "19 Meta's LLaMA": meta,
    "language model alone": llama,
}
SAID = {
    "3 and 14 adapter of a language model": {
        "load": "is an adapter (LoRA), and no model. Give it as lora_model (--lora_model) over the model it was trained on",
        "merge": "is an adapter, not a language model: give it as lora_model, and its base as text_model.",
        "convert": "is an adapter: a whole model needs the models it was trained on.",
        "doctor": "python -m training merge --text_model vicuna --lora_model",
    },
    "11 LRV V2": dict.fromkeys(
        ("load", "convert"),
        "is a LoRA by itself, and no model. Give it as lora_model (--lora_model) over the model it was trained on.",
    ),
    "15 GGUF": dict.fromkeys(DOORS, GGUF),
    "15 mmproj GGUF": dict.fromkeys(DOORS, f"is the vision model (mmproj) of {GGUF}"),
    "16 GPTQ": {"load": "no vision model", "merge": FULL, "convert": FULL, "doctor": "Load it in the web UI as it is."},
    "18 delta": dict.fromkeys(DOORS, DELTA),
    "19 Meta's LLaMA": {"load": META, "merge": META, "doctor": META, "convert": "tokenizer.model"},
    "language model alone": {
        "load": "is a model without a vision model of a known family. Give it one: python -m training merge --help"
    },
}
SAID["16 GPTQ"]["load"] = SAID["language model alone"]["load"]
SAID["19 Meta's LLaMA"]["convert"] = "lacks ['dim', 'n_heads', 'n_layers', 'norm_eps']"


@pytest.mark.parametrize("name", MAKERS)
def test_every_door_says_what_it_is_and_what_to_do(name, tmp_path, capsys):
    path = MAKERS[name](tmp_path / "model")
    for door, line in SAID[name].items():
        if door == "load":
            with pytest.raises(ValueError) as error:
                load_model(path)
            told = str(error.value)
        elif door == "doctor":
            report = examine(path, "cpu")
            told = f"{report.foreign}. {' '.join(report.next)}"
        else:
            bare = ["merge", "--text_model", str(path), "--output_dir"] if door == "merge" else ["convert", str(path)]
            assert main([*bare, str(tmp_path / "out"), *(["--layout", "webui"] if door == "convert" else [])]) == 2
            told = capsys.readouterr().err
        assert line in told, door
        assert "\n" not in told.strip() and not (tmp_path / "out").exists()


def test_every_row_of_the_table_is_shown_above():
    described = {row.name for row in FOREIGN}
    shown = {"adapter", "lora_file", "gguf", "quantised", "delta", "meta_llama", "language_model"}
    assert described == shown


def test_doctor_tells_an_adapter_beside_whole_weights_from_an_adapter(tmp_path):
    folder = shutil.copytree("demo/model", tmp_path / "model")
    adapter(folder)
    report = examine(folder, "cpu")
    assert [part.what for part in report.parts] == ["language model", "eyes"]
    assert "adapter that lies beside the weights" in report.missing[0]
    assert report.next[0] == f"mkdir {folder}-adapter && mv {folder}/adapter_* {folder}-adapter"
    assert report.next[1].startswith(f"python -m training merge --text_model {folder} --lora_model {folder}-adapter")
