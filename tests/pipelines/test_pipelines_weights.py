"""Weight files of every kind, and the estimate made from their headers."""

import json

import pytest
import torch
from conftest import GOLDEN
from safetensors.torch import save_file

from pipelines.memory import check_memory, memory_need, weights_bytes
from pipelines.weights import load_tensors, tensor_headers, weight_files

TENSORS = {"a.layers.0.weight": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4, dtype=torch.float16)}


def write_sharded(folder, suffix):
    name, writer = {
        "safetensors": ("model.safetensors", save_file),
        "bin": ("pytorch_model.bin", torch.save),
    }[suffix]
    weight_map = {}
    for index, (key, tensor) in enumerate(TENSORS.items()):
        shard = f"part-{index}.{suffix}"
        writer({key: tensor}, folder / shard)
        weight_map[key] = shard
    (folder / f"{name}.index.json").write_text(json.dumps({"weight_map": weight_map}))


@pytest.mark.parametrize("kind", ["safetensors", "bin", "sharded safetensors", "sharded bin"])
def test_headers_and_tensors_of_every_kind(kind, tmp_path):
    if kind == "safetensors":
        save_file(TENSORS, tmp_path / "model.safetensors")
    elif kind == "bin":
        torch.save(TENSORS, tmp_path / "pytorch_model.bin")
    else:
        write_sharded(tmp_path, kind.split()[1])
    headers = tensor_headers(tmp_path)
    assert {name: (header.shape, header.dtype) for name, header in headers.items()} == {
        name: (tuple(tensor.shape), tensor.dtype) for name, tensor in TENSORS.items()
    }
    loaded = load_tensors(tmp_path)
    assert all(torch.equal(loaded[name], tensor) for name, tensor in TENSORS.items())


def test_all_containers_of_the_release_hold_the_same(tmp_path):
    reference = load_tensors(GOLDEN / "release/visualcla-tiny")
    for variant in ("adapter_model.flat_storage.bin", "adapter_model.legacy_nonzip.bin"):
        (tmp_path / "adapter_model.bin").write_bytes((GOLDEN / "release/variants" / variant).read_bytes())
        assert tensor_headers(tmp_path).keys() == reference.keys()
        loaded = load_tensors(tmp_path)
        assert all(torch.equal(loaded[name], tensor) for name, tensor in reference.items())


def test_no_weights_and_missing_shards(tmp_path):
    assert weight_files(tmp_path) == []
    with pytest.raises(FileNotFoundError, match="holds no weights"):
        load_tensors(tmp_path)
    write_sharded(tmp_path, "safetensors")
    (tmp_path / "part-1.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"names \['part-1.safetensors'\], which is not there"):
        weight_files(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text("{")
    with pytest.raises(ValueError, match=r"index.json. is not valid JSON"):
        weight_files(tmp_path)


def test_something_else_than_tensors_is_refused(tmp_path):
    torch.save([1, 2], tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match="holds something else than named tensors"):
        load_tensors(tmp_path)


def test_estimate_counts_what_is_kept_in_how_many_bits(tmp_path):
    save_file(TENSORS, tmp_path / "model.safetensors")
    assert weights_bytes(tmp_path, 32) == 4 * (6 + 4)
    assert weights_bytes(tmp_path, 16) == 2 * (6 + 4)
    assert weights_bytes(tmp_path, 8) == 6 + 2 * 4
    assert weights_bytes(tmp_path, 4) == int(6 * 0.5625 + 2 * 4)


def test_estimate_of_a_whole_folder_is_near_its_size():
    folder = GOLDEN / "merged/visualcla-tiny-merged"
    on_disk = sum(file.stat().st_size for file in folder.rglob("*.bin"))
    assert on_disk * 0.9 < memory_need([folder], 16, "cpu").needed_bytes < on_disk * 1.3


def test_refusal_says_what_would_fit(monkeypatch):
    folder = GOLDEN / "merged/visualcla-tiny-merged"
    enough = memory_need([folder], 16, "cpu").needed_bytes + 1
    monkeypatch.setattr("pipelines.memory.available_bytes", lambda device: enough)
    check_memory([folder], 16, "cpu")
    with pytest.raises(MemoryError, match="It would fit with --dtype bfloat16"):
        check_memory([folder], 32, "cpu")
    monkeypatch.setattr("pipelines.memory.available_bytes", lambda device: 0)
    with pytest.raises(MemoryError, match="take a smaller model"):
        check_memory([folder], 32, "cpu")


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/passwd", "..", "a\\b.safetensors"])
def test_index_that_names_files_elsewhere_is_refused(name, tmp_path):
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(ValueError, match="lie outside of its folder"):
        weight_files(tmp_path)


def test_tensors_that_share_bytes_are_refused(tmp_path):
    save_file({"a": torch.ones(4), "b": torch.zeros(4)}, tmp_path / "model.safetensors")
    content = (tmp_path / "model.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["b"]["data_offsets"] = header["a"]["data_offsets"]
    changed = json.dumps(header).encode()
    (tmp_path / "model.safetensors").write_bytes(len(changed).to_bytes(8, "little") + changed + content[8 + length :])
    with pytest.raises(ValueError, match="overlaps another tensor"):
        tensor_headers(tmp_path)
