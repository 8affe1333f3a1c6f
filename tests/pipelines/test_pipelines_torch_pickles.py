"""Pickles of foreign classes give their tensors, and nothing in them runs."""

import collections
import os
import sys
import types
import zipfile

import pytest
import torch

from pipelines.checkpoints.torch_pickles import Inert, read_pickle


class _Runs:
    """Unpickled by an ordinary unpickler, makes a folder."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("is_zip", [True, False])
def test_tensors_and_plain_values_arrive_and_nothing_runs(tmp_path, is_zip):
    content = {
        "state": collections.OrderedDict(a=torch.arange(3.0), b=torch.nn.Parameter(torch.ones(2))),
        "values": (1, "two", {3}, torch.float16),
        "foreign": _Runs(tmp_path / "ran"),
    }
    torch.save(content, tmp_path / "file.pt", _use_new_zipfile_serialization=is_zip)
    loaded = read_pickle(tmp_path / "file.pt")
    state = loaded["state"]
    assert torch.equal(state["a"].read(), content["state"]["a"]) and torch.equal(state["b"].read(), torch.ones(2))
    assert loaded["values"][:3] == [1, "two", {3}]
    assert isinstance(loaded["foreign"], Inert) and loaded["foreign"].arguments == (str(tmp_path / "ran"),)
    assert not (tmp_path / "ran").exists()


def test_settings_of_an_unknown_class_keep_their_items(tmp_path, monkeypatch):
    foreign = types.ModuleType("foreign_library")
    foreign.Settings = type("Settings", (dict,), {"__module__": "foreign_library"})
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "foreign_library", foreign)
        torch.save({"settings": foreign.Settings(rank=16)}, tmp_path / "file.pt")
    assert read_pickle(tmp_path / "file.pt")["settings"] == {"rank": 16}


def test_a_torchscript_archive_is_refused(tmp_path):
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "file.pt")
    with pytest.raises(ValueError, match="TorchScript"):
        read_pickle(tmp_path / "file.pt")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"no pickle", b"\x80\x02cos\nmkdir\n(S'ran'\ntR."])
def test_broken_bytes_are_one_line(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file.pt").write_bytes(content)
    with pytest.raises(ValueError, match="broken|not opened") as caught:
        read_pickle(tmp_path / "file.pt")
    assert "\n" not in str(caught.value) and not (tmp_path / "ran").exists()


def test_what_would_reserve_or_unpack_without_bound_is_not_unpickled(tmp_path):
    """The protocol's own opcode for byte arrays, a memo of a thousand million places, an archive that is compressed."""
    pickles = {
        "buffer": b"\x80\x05\x96" + (6 << 30).to_bytes(8, "little") + b".",
        "memo": b"\x80\x02K\x01r" + (1 << 30).to_bytes(4, "little") + b".",
    }
    for name, content in pickles.items():
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("archive/data.pkl", content)
            archive.writestr("archive/version", "3")
    with zipfile.ZipFile(tmp_path / "packed", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"(" * (50 << 20))
    (tmp_path / "legacy").write_bytes(pickles["memo"])
    for name in ("buffer", "memo", "packed", "legacy"):
        with pytest.raises(ValueError, match=f"{name}' (is broken|was not opened)"):
            read_pickle(tmp_path / name)
