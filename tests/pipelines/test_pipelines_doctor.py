"""The doctor: what a folder is, what is missing, will it fit, what next; nothing is loaded."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import GOLDEN
from safetensors.torch import load_file, save_file

from pipelines import doctor
from pipelines.tokenization import load_tokenizer
from training.merge import convert

ROOT = Path(__file__).resolve().parent.parent.parent
MERGED, RELEASE = GOLDEN / "merged/visualcla-tiny-merged", GOLDEN / "release/visualcla-tiny"


@pytest.fixture
def enough_memory(monkeypatch):
    monkeypatch.setattr("pipelines.memory.available_bytes", lambda device: 8 * 2**30)


def webui_folder(folder: Path) -> Path:
    """Language model at the root, eyes in vision/."""
    assert convert.main([str(MERGED), str(folder), "--layout", "webui"]) == 0
    return folder


def test_original_layout(enough_memory):
    report = doctor.examine(MERGED, "cpu")
    assert (report.family, report.layout, report.missing) == ("visualcla", "original", [])
    assert [(part.what, part.place, part.dtype) for part in report.parts] == [
        ("eyes", "", "float16"),
        ("language model", "text_encoder", "float16"),
        ("eyes", "vision_encoder", "float16"),
    ]
    assert report.parts[1].num_bytes == (MERGED / "text_encoder/pytorch_model.bin").stat().st_size
    assert report.free_gib == 8 and list(report.memory) == [32, 16, 8, 4]
    needs = [report.memory[bits]["needed_gib"] for bits in (32, 16, 8, 4)]
    assert needs == sorted(needs, reverse=True) and len(set(needs)) == 4
    assert report.next == [
        f"python -m demo page --model {MERGED}",
        f"python -m training convert {MERGED} visualcla-tiny-merged-webui --layout webui",
    ]


def test_layout_of_the_web_ui(tmp_path, enough_memory):
    folder = webui_folder(tmp_path / "my model")
    report = doctor.examine(folder, "cpu")
    assert (report.layout, report.missing) == ("webui", [])
    assert [(part.what, part.place) for part in report.parts] == [("language model", ""), ("eyes", "vision")]
    assert report.next == [f"python -m demo page --model '{folder}'", f"python install.py webui DIR --model '{folder}'"]


def test_release_needs_its_bases():
    report = doctor.examine(RELEASE, "cpu")
    assert (report.layout, report.memory, [part.what for part in report.parts]) == ("release", {}, ["adapter"])
    (command,) = report.next
    assert command.startswith("python -m training merge --text_model ")
    assert f"--vision_model VISION_MODEL --lora_model {RELEASE} --output_dir visualcla-tiny-merged" in command


def test_language_model_without_eyes(tmp_path, enough_memory):
    folder = shutil.copytree(GOLDEN / "base/text_model", tmp_path / "llm")
    assert "a tokenizer: none of" in doctor.examine(folder).missing[0]
    shutil.copy(MERGED / "tokenizer.model", folder)
    report = doctor.examine(folder, "cpu")
    assert (report.family, report.missing) == (None, [])
    assert report.next == ["python -m training train --help  # gives it eyes"]


@pytest.mark.parametrize(
    ("gone", "words"),
    [
        ("vision/preprocessor_config.json", "'preprocessor_config.json' in "),
        ("vision/model.safetensors", "has a config.json but no weights"),
        ("model.safetensors", "has a config.json but no weights"),
        ("tokenizer*", "a tokenizer: none of"),
    ],
)
def test_missing_files_are_named(tmp_path, enough_memory, gone, words):
    folder = webui_folder(tmp_path / "model")
    for file in folder.glob(gone):
        file.unlink()
    report = doctor.examine(folder, "cpu")
    (sentence,) = report.missing
    assert words in sentence
    assert report.next == [f"python -m pipelines.doctor {folder}  # when that is mended"]


def test_broken_files_are_named(tmp_path, enough_memory):
    folder = webui_folder(tmp_path / "model")
    (folder / "vision/model.safetensors").write_bytes(b"half")
    (sentence,) = doctor.examine(folder, "cpu").missing
    assert "vision/model.safetensors" in sentence and "broken" in sentence
    (folder / "vision/config.json").write_text("{")
    assert any("is not valid JSON" in sentence for sentence in doctor.examine(folder, "cpu").missing)


def test_eyes_of_another_width_are_told(tmp_path, enough_memory):
    folder = webui_folder(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hidden_size": 32}))
    assert doctor.examine(folder, "cpu").missing == ["eyes for this language model: theirs has width 64, this one 32."]


@pytest.mark.parametrize(("free_bits", "flag"), [(8, " --load_in_8bit"), (4, " --load_in_4bit"), (16, "")])
def test_next_command_takes_what_fits(monkeypatch, enough_memory, free_bits, flag):
    needed = doctor.examine(MERGED, "cpu").memory[free_bits]["needed_gib"]
    monkeypatch.setattr("pipelines.memory.available_bytes", lambda device: round(needed * 2**30))
    report = doctor.examine(MERGED, "cpu")
    assert [bits for bits in report.memory if report.memory[bits]["fits"]] == [b for b in (32, 16, 8, 4) if b <= free_bits]
    assert report.next[0] == f"python -m demo page --model {MERGED}{flag}"


def test_nothing_fits(monkeypatch):
    monkeypatch.setattr("pipelines.memory.available_bytes", lambda device: 1000)
    assert doctor.examine(MERGED, "cpu").next == ["free memory or take a smaller model: nothing fits"]


def test_output_for_people_and_programs(capsys, tmp_path, enough_memory):
    assert doctor.main([str(MERGED), "--device", "cpu"]) == 0
    output = capsys.readouterr().out
    for words in ("layout original", "language model in text_encoder/", "8.0 GiB free on cpu", "installed: python 3", "32 bit"):
        assert words in output
    assert doctor.main([str(MERGED), str(tmp_path), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["versions"]["torch"] and [model["family"] for model in found["models"]] == ["visualcla", None]
    assert found["models"][1]["missing"] == [
        "there are no weights and no configuration of a known family: this is no model folder."
    ]


def test_mistake_is_one_line(capsys):
    assert doctor.main(["/no/such"]) == 2
    assert capsys.readouterr().err == "'/no/such' is not a folder. Give the folder of a model.\n"


def test_bare_python_says_what_names_and_sizes_tell(tmp_path):
    """Without site-packages: no PyTorch, no transformers."""
    code = "import sys; from pipelines.doctor import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-S", "-c", code, str(MERGED)]
    assert "This Python has no PyTorch" in subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout
    run = subprocess.run([*command, "--json"], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    (model,) = json.loads(run.stdout)["models"]
    assert (model["family"], model["layout"], model["memory"]) == ("visualcla", None, {})
    assert model["parts"][0]["num_bytes"] > 0 and model["parts"][0]["num_weights"] is None


def test_model_that_lies_in_a_web_ui_is_not_put_there_again(tmp_path, enough_memory):
    folder = webui_folder(tmp_path / "user_data/models/seeing")
    assert doctor.examine(folder, "cpu").next[1:] == ["load it in the web UI with the Transformers loader"]


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("model.safetensors.index.json", '{"weight_map": {"a": 5, "b": null}}', "is not a weight index"),
        ("model.safetensors.index.json", '["a"]', "holds no configuration"),
        ("config.json", '{"num_hidden_layers": 1000000}', "says 1000000 layers"),
        ("config.json", '{"a":' + "[" * 100_000 + "]" * 100_000 + "}", "nested too deeply"),
        ("vision/config.json", '{"model_type": "visualcla", "text_config": null}', ""),
        ("adapter_config.json", "{", "is not valid JSON"),
        ("adapter_config.json", '{"base_model_name_or_path": 3}', ""),
    ],
)
def test_odd_json_is_told_in_a_sentence(tmp_path, enough_memory, file, content, words):
    folder = webui_folder(tmp_path / "model")
    if "index" in file:
        (folder / "model.safetensors").unlink()
    (folder / file).write_text(content)
    report = doctor.examine(folder, "cpu")
    assert words in " ".join(report.missing) and all("\n" not in line for line in report.lines())
    assert bool(report.missing) == bool(words) or "adapter" in file or "vision" in file


def _config(**changes):
    return "config.json", lambda text: json.dumps(json.loads(text) | changes)


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        (*_config(vocab_size=10**9), "says vocab_size 1000000000"),
        (*_config(num_hidden_layers=None), "has a value that cannot be"),
        (*_config(num_hidden_layers=1), "layers.1.input_layernorm.weight"),
        (*_config(num_attention_heads=7), "has a value that cannot be"),
        (*_config(intermediate_size=64), "of another shape"),
        (*_config(rms_norm_eps=float("nan")), "says rms_norm_eps nan"),
        (*_config(max_position_embeddings=0), "says max_position_embeddings 0"),
        (*_config(max_position_embeddings=4), "but a picture alone takes"),
        (*_config(rms_norm_eps=1e9), "says rms_norm_eps 1000000000.0"),
        (*_config(is_encoder_decoder=True), "says is_encoder_decoder"),
        (*_config(quantization_config={"quant_method": "other"}), "says quant_method 'other'"),
        ("vision/config.json", lambda _: "{}", "neither its config.json nor the folder's names one"),
        (
            "vision/preprocessor_config.json",
            lambda _: '{"size": {"height": 1000000, "width": 1000000}}',
            "1000000 pixels a side",
        ),
        ("chat_template.jinja", lambda _: "{% if %}", "TemplateSyntaxError"),
        ("chat_template.jinja", lambda _: "{{ 'a' * 10**10 }}", "takes more than 2 s or 512 MiB"),
        ("chat_template.jinja", lambda _: "hello", "leaves out what is asked"),
        ("chat_template.jinja", lambda text: text.replace("<img_token>", ""), "for each picture"),
        ("tokenizer.json", lambda _: "{}", "is broken"),
        ("generation_config.json", lambda _: '{"max_new_tokens": -5}', "max_new_tokens"),
        ("generation_config.json", lambda _: '{"eos_token_id": [5]}', "none of which is a special one"),
        ("generation_config.json", lambda _: '{"num_beams": 100000}', "more than 64 answers"),
        ("generation_config.json", lambda _: '{"bad_words_ids": [[99999]]}', "cannot be used"),
    ],
)
def test_what_would_fail_with_the_first_answer_is_told_before(file, change, said, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(ROOT / "demo" / "model", folder)
    (folder / file).write_text(change((folder / file).read_text(encoding="utf-8")), encoding="utf-8")
    told = doctor.examine(folder, "cpu").missing
    assert any(said in sentence for sentence in told) and all("\n" not in sentence for sentence in told)


@pytest.mark.parametrize("place", ["", "vision"])
def test_values_that_are_not_finite_are_told(place, tmp_path):
    folder = shutil.copytree(ROOT / "demo" / "model", tmp_path / "model")
    tensors = load_file(folder / place / "model.safetensors")
    name = next(iter(tensors))
    tensors[name].view(-1)[-1] = float("inf")
    save_file(tensors, folder / place / "model.safetensors")
    (told,) = doctor.examine(folder, "cpu").missing
    assert name in told and "not finite" in told


def test_tokenizer_of_another_model_is_told(tmp_path):
    folder = shutil.copytree(ROOT / "demo" / "model", tmp_path / "model")
    tokenizer = load_tokenizer(folder)
    assert tokenizer.add_tokens(["\u8fd9\u662f\u4ec0\u4e48"]) == 1  # within what the doctor asks
    tokenizer.save_pretrained(folder)
    rows = json.loads((folder / "config.json").read_text())["vocab_size"]
    assert f"but the model has {rows} embeddings" in " ".join(doctor.examine(folder, "cpu").missing)


def test_only_what_something_here_loads_is_whole(tmp_path, capsys):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.gguf").write_bytes(b"GGUF" + bytes(100))
    assert doctor.main([str(folder)]) == 1
    assert "which is llama.cpp's" in capsys.readouterr().out


@pytest.mark.parametrize(("lost", "said"), [("lora_A", "is half an adapter"), ("", "is empty"), (None, "not finite")])
def test_adapters_that_nothing_can_use_are_told(lost, said, tmp_path):
    names = [f"base_model.model.model.layers.0.self_attn.q_proj.lora_{side}.weight" for side in "AB"]
    tensors = dict(zip(names, (torch.ones(1, 8), torch.ones(8, 1)), strict=True))
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 1, "base_model_name_or_path": "base"}')
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    assert doctor.examine(tmp_path, "cpu").missing == []
    broken = {name: tensor * float("nan") for name, tensor in tensors.items() if lost is None or lost not in name}
    save_file({} if lost == "" else broken, tmp_path / "adapter_model.safetensors")
    assert said in " ".join(doctor.examine(tmp_path, "cpu").missing)
