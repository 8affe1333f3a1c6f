"""What does not fit is named in one line, nothing is written, and no input is touched."""

import errno
import json
import os
import pickle
import subprocess

import pytest
import torch
from merging import RELEASE, TEXT, VISION, contents, copy, error_of, run_merge
from safetensors.torch import save_file

from pipelines.weights import load_tensors
from training.merge import output_folder, shards


def edit(folder, name="config.json", **values):
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | values), encoding="utf-8")


def save_adapter(folder, change):
    """Rewrite an adapter's tensors."""
    tensors = load_tensors(folder)
    change(tensors)
    (folder / "adapter_model.bin").unlink()
    save_file(tensors, folder / "adapter_model.safetensors")


def assert_nothing_left(folder):
    assert not [path for path in folder.iterdir() if path.name.startswith((".out", "out"))]


@pytest.fixture
def adapter(tmp_path):
    return copy(RELEASE, tmp_path / "adapter")


@pytest.fixture
def fails(tmp_path, capsys):
    """Run a merge that must fail before anything is written; returns its error."""

    def run(*flags, **inputs) -> str:
        assert run_merge(tmp_path / "out", *flags, **inputs) == 2
        assert_nothing_left(tmp_path)
        return error_of(capsys)

    return run


def test_unmatched_key_is_named(adapter, fails):
    save_adapter(adapter, lambda t: t.update({"base_model.model.text_model.model.layers.9.mlp.up_proj.bias": torch.zeros(3)}))
    assert "text_model.model.layers.9.mlp.up_proj.bias" in fails(lora=[adapter])


def test_lora_without_a_place_is_named(adapter, fails):
    save_adapter(
        adapter,
        lambda t: t.update(
            {f"base_model.model.text_model.model.layers.9.mlp.up_proj.lora_{p}.weight": torch.zeros(4, 4) for p in "AB"}
        ),
    )
    assert "text_model.model.layers.9.mlp.up_proj" in fails(lora=[adapter])


def test_half_a_lora_is_named(adapter, fails):
    save_adapter(adapter, lambda t: t.pop("base_model.model.text_model.model.layers.1.mlp.up_proj.lora_B.weight"))
    assert "no ['lora_B'] for text_model.model.layers.1.mlp.up_proj" in fails(lora=[adapter])


def test_shape_that_does_not_fit_shows_both(adapter, fails):
    save_adapter(adapter, lambda t: t.update({"base_model.model.image_projection_layer.weight": torch.zeros(64, 31)}))
    error = fails(lora=[adapter])
    assert "image_projection_layer.weight of shape (64, 31)" in error and "(64, 32)" in error


def test_missing_resampler_tensor_is_named(adapter, fails):
    save_adapter(adapter, lambda t: t.pop("base_model.model.visual_resampler.pooler.dense.bias"))
    assert "1 tensors missing ['visual_resampler.pooler.dense.bias']" in fails(lora=[adapter])


def test_rank_that_is_not_the_configurations_is_refused(adapter, fails):
    edit(adapter, "adapter_config.json", r=8)
    assert "its configuration says rank 8" in fails(lora=[adapter])


@pytest.mark.parametrize(
    ("option", "value"),
    [("peft_type", "IA3"), ("init_lora_weights", "pissa"), ("trainable_token_indices", [1]), ("lora_bias", True)],
)
def test_what_cannot_be_merged_exactly_is_refused(adapter, fails, option, value):
    edit(adapter, "adapter_config.json", **{option: value})
    assert option in fails(lora=[adapter])


def test_unknown_old_fields_are_ignored(adapter, tmp_path):
    edit(adapter, "adapter_config.json", enable_lora=[True], merge_weights=True, something_old={"a": 1})
    assert run_merge(tmp_path / "out", lora=[adapter]) == 0


def test_wrong_language_model_is_named(tmp_path, fails):
    text = copy(TEXT, tmp_path / "other")
    edit(text, num_attention_heads=8)
    error = fails(text=text)
    assert "num_attention_heads is 8, recorded is 4" in error and str(text) in error


def test_wrong_vision_model_is_named(tmp_path, fails):
    vision = copy(VISION, tmp_path / "other")
    edit(vision, hidden_act="gelu")
    assert "hidden_act is 'gelu', recorded is 'quick_gelu'" in fails(vision=vision)


def test_language_model_without_the_recorded_vocabulary_is_refused(adapter, fails):
    """Plain LLaMA where the adapter was trained on a Chinese one: the embeddings fit, the layers do not."""
    config = json.loads((adapter / "config.json").read_text(encoding="utf-8"))
    config["text_config"]["vocab_size"] = 702
    edit(adapter, text_config=config["text_config"])
    assert "trained on a language model with 702 tokens, but here it has 700" in fails(lora=[adapter])


def test_recorded_base_that_is_another_folder_is_refused(tmp_path, fails):
    other = copy(TEXT, tmp_path / "other")
    tensors = load_tensors(other)
    tensors["model.norm.weight"] += 1
    (other / "pytorch_model.bin").unlink()
    save_file(tensors, other / "model.safetensors")
    adapter = tmp_path / "text_lora"
    adapter.mkdir()
    lora = {
        f"base_model.model.model.layers.0.mlp.up_proj.lora_{p}.weight": torch.ones(s)
        for p, s in (("A", (2, 64)), ("B", (172, 2)))
    }
    save_file(lora, adapter / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "base_model_name_or_path": str(other)}
    (adapter / "adapter_config.json").write_text(json.dumps(settings))
    error = fails(lora=[adapter, RELEASE])
    assert str(other) in error and str(TEXT) in error


def test_swapped_order_is_refused(tmp_path, fails):
    """The first adapter grows the vocabulary; the one before it in training would shrink it again."""
    earlier = copy(RELEASE, tmp_path / "earlier")
    (earlier / "added_tokens.json").write_text("{}")
    save_adapter(
        earlier,
        lambda t: t.update({key: t[key][:700].clone() for key in list(t) if "embed_tokens" in key or "lm_head" in key}),
    )
    assert "a vocabulary does not shrink" in fails(lora=[RELEASE, earlier])


def test_tokens_without_embeddings_are_refused(adapter, fails):
    save_adapter(adapter, lambda t: [t.pop(key) for key in list(t) if "embed_tokens" in key or "lm_head" in key])
    assert "trained whole (modules_to_save), but its weight file does not hold them" in fails(lora=[adapter])


def test_release_without_vision_model_says_what_to_give(fails):
    assert "--vision_model" in fails(vision=None)


def test_adapter_as_base_says_where_it_belongs(fails):
    assert "give it as lora_model" in fails(text=RELEASE)


def test_truncated_shard_is_named(tmp_path, fails):
    text = tmp_path / "cut"
    text.mkdir()
    (text / "config.json").write_bytes((TEXT / "config.json").read_bytes())
    save_file(load_tensors(TEXT), text / "model.safetensors")
    content = (text / "model.safetensors").read_bytes()
    (text / "model.safetensors").write_bytes(content[:-100])
    error = fails(text=text)
    assert str(text / "model.safetensors") in error and "cut off" in error


@pytest.mark.parametrize("keep", [3, 50, 5000, -30])
def test_truncated_pickle_is_named(tmp_path, adapter, fails, keep):
    content = (adapter / "adapter_model.bin").read_bytes()
    (adapter / "adapter_model.bin").write_bytes(content[:keep])
    assert str(adapter / "adapter_model.bin") in fails(lora=[adapter])


class Attack:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("is_zip", [True, False])
def test_pickle_that_tries_to_run_code_is_refused(tmp_path, adapter, fails, is_zip):
    sign = tmp_path / "sign"
    torch.save({"a": torch.zeros(1), "b": Attack(sign)}, adapter / "adapter_model.bin", _use_new_zipfile_serialization=is_zip)
    assert "could run code" in fails(lora=[adapter])
    (adapter / "adapter_model.bin").write_bytes(pickle.dumps(Attack(sign)))
    assert str(adapter / "adapter_model.bin") in fails(lora=[adapter])
    assert not sign.exists()


def test_existing_output_is_kept_without_force(tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/config.json").write_text("mine")
    assert run_merge(tmp_path / "out") == 2
    assert "--force" in error_of(capsys) and (tmp_path / "out/config.json").read_text() == "mine"
    assert run_merge(tmp_path / "out", "--force") == 0
    assert (tmp_path / "out/model.safetensors").is_file() and [path.name for path in tmp_path.iterdir()] == ["out"]


def test_force_replaces_model_folders_only(tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.txt").write_text("mine")
    assert run_merge(tmp_path / "out", "--force") == 2
    assert "no model folder" in error_of(capsys) and (tmp_path / "out/thesis.txt").exists()


@pytest.mark.parametrize("place", ["", "inside"])
def test_output_in_an_input_is_refused(tmp_path, capsys, place):
    adapter = copy(RELEASE, tmp_path / "adapter")
    before = contents(adapter)
    assert run_merge(adapter / place, "--force", lora=[adapter]) == 2
    assert "inputs are never written" in error_of(capsys) and contents(tmp_path / "adapter") == before


def test_inputs_are_never_written(tmp_path):
    folders = [copy(source, tmp_path / source.name) for source in (TEXT, VISION, RELEASE)]
    before = [contents(folder) for folder in folders]
    text, vision, adapter = folders
    assert run_merge(tmp_path / "out", text=text, vision=vision, lora=[adapter]) == 0
    assert [contents(folder) for folder in folders] == before


def test_needed_space_is_compared_before_anything_is_read(tmp_path, fails, monkeypatch):
    usage = output_folder.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(output_folder.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    assert "GB are needed" in fails()


def test_disk_that_fills_up_leaves_nothing_finished_and_the_rest_goes_on(tmp_path, capsys, monkeypatch):
    write = shards.ShardWriter.write

    def fail(self, content):
        if self.path.name.startswith("model-00003"):
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, content)

    monkeypatch.setattr(shards.ShardWriter, "write", fail)
    assert run_merge(tmp_path / "out", "--max_shard_size", "50KB") == 2
    assert "No space left" in error_of(capsys)
    work = tmp_path / ".out.unfinished/model"
    assert not (tmp_path / "out").exists() and not list(work.rglob("*.part")) and not (work / "config.json").exists()
    first = next(work.glob("model-00001-*"))
    before = first.stat()
    monkeypatch.undo()
    assert run_merge(tmp_path / "out", "--max_shard_size", "50KB") == 0
    assert (tmp_path / "out" / first.name).stat().st_ino == before.st_ino


@pytest.fixture
def mounted(tmp_path):
    """Mounts a small file system, where the system lets us."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options: str):
        if os.name != "posix" or os.geteuid() != 0:
            pytest.skip("mounting a small file system needs root")
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no tmpfs can be mounted here: {done.stderr.strip()}")
        return folder

    yield mount
    subprocess.run(["umount", folder], capture_output=True)


def test_full_target_is_told_before_writing(mounted, capsys):
    disk = mounted("size=300k")
    assert run_merge(disk / "out") == 2
    assert "GB are needed" in error_of(capsys) and not list(disk.iterdir())


def test_read_only_target_is_one_line(mounted, capsys):
    disk = mounted("size=10m,ro")
    assert run_merge(disk / "out") == 2
    assert "Read-only" in error_of(capsys)
