"""The originals' numbers on every golden folder, and a comparison that is able to fail."""

import json
import shutil

import numpy as np
import parity
import pytest
from conftest import GOLDEN
from safetensors.torch import load_file, save_file

FOLDERS = sorted(path for path in GOLDEN.parent.iterdir() if (path / "README.md").is_file() and path.name != "demo_adapter")


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_every_recorded_case_is_the_originals(folder):
    record = parity.compare(folder)
    assert not record.wrong, str(record)
    assert len(record.comparisons) > 10


def test_another_number_is_found_and_ends_with_status_1(tmp_path, capsys):
    folder = shutil.copytree(GOLDEN, tmp_path / "some name", ignore=shutil.ignore_patterns("tgwebui"))
    for variant in ("unmerged_fp32", "unmerged_fp16load"):
        (folder / "expected" / f"{variant}.safetensors").unlink()
    file = folder / "expected" / "merged.safetensors"
    tensors = load_file(file)
    tensors["projected"][0, 0, 0] += 1e-3
    save_file(tensors, file)
    assert parity.main([str(folder), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)[str(folder)]
    wrong = [each for each in told["comparisons"] if not each["is_right"]]
    assert told["family"] == "visualcla" and [each["stage"] for each in wrong] == ["projected"]
    assert wrong[0]["difference"] == pytest.approx(1e-3, rel=0.05)


def test_other_shapes_and_other_ids_are_wrong():
    record = parity.Record("toy")
    record.close("a", "features", np.zeros((2, 3)), np.zeros((2, 2)))
    record.equal("a", "ids", [1, 2], np.array([1, 3]))
    record.close("b", "features", np.zeros(2), np.full(2, parity.STAGE / 2))
    assert [each.is_right for each in record.comparisons] == [False, False, True]


def test_folder_of_no_known_form_is_one_line_and_status_2(tmp_path, capsys):
    assert parity.main([str(tmp_path)]) == 2
    assert "is of no known form" in capsys.readouterr().err
