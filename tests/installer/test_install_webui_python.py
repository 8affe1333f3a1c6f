"""The web UI's Python: which one it is, what is added to it, and that nothing in it moves."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from webui_tree import HAS, fails, make_python, make_webui, python_with, snapshot, write

from installer import webui_python
from installer.command_line import main
from installer.webui import WebUI

pytestmark = pytest.mark.skipif(os.name == "nt", reason="links and the stand-in for Python need a Unix")


@pytest.mark.parametrize("environment", ["installer_files/env", "venv", ".venv", "portable_env"])
def test_python_of_the_web_ui_is_found(checkout, tmp_path, environment):
    web = WebUI(str(make_webui(tmp_path / "web ui", environment)))
    assert webui_python.find(web, None) == str(web.root / environment / "bin" / "python")


def test_active_environment_counts_when_it_is_a_web_uis(checkout, web, tmp_path, monkeypatch, capsys):
    shutil.rmtree(web / "installer_files")
    other = make_python(tmp_path / "other" / "bin" / "python", gradio="6.31.0")
    monkeypatch.setenv("VIRTUAL_ENV", str(tmp_path / "other"))
    fails(capsys, "webui", web)
    monkeypatch.setenv("CONDA_PREFIX", str(make_python(tmp_path / "conda" / "bin" / "python").parent.parent))
    found = WebUI(str(web))
    assert webui_python.find(found, None) == str(tmp_path / "conda" / "bin" / "python")
    assert webui_python.find(found, str(other)) == str(other)
    monkeypatch.delenv("CONDA_PREFIX")
    assert main(["webui", str(web), "--python", str(other)]) == 0
    assert webui_python.find(found, None) == str(other)  # what was named once is known


def test_conda_environment_named_textgen_is_found(checkout, web, tmp_path):
    shutil.rmtree(web / "installer_files")
    python = make_python(tmp_path / "conda" / "envs" / "textgen" / "bin" / "python")
    write(tmp_path / ".conda" / "environments.txt", f"{tmp_path}/conda\n{python.parent.parent}\n")
    assert webui_python.find(WebUI(str(web)), None) == str(python)


@pytest.mark.parametrize(
    ("packages", "words"),
    [
        ({"torch": None, "transformers": None}, "has no torch. It is a portable one"),
        ({"transformers": "4.57.6"}, "has transformers 4.57.6; 5.6 or newer is needed. No version of the web UI is moved here"),
        ({"pillow": "10.4.0"}, "has pillow 10.4.0; 11.3 or newer is needed"),
    ],
)
def test_web_ui_that_cannot_carry_the_plugin_is_refused(checkout, web, capsys, packages, words):
    python_with(web, **packages)
    before = snapshot(web)
    assert words in fails(capsys, "webui", web)
    assert snapshot(web) == before


def test_only_what_is_missing_is_installed_with_everything_else_held(checkout, web, capsys):
    python = python_with(web, sentencepiece=None)
    assert main(["webui", str(web)]) == 0
    assert "packages      sentencepiece 0.2.1" in capsys.readouterr().out
    plan, done = (json.loads(line) for line in python.with_name("python.calls").read_text().splitlines())
    for call in (plan, done):
        assert call[0] == "install" and call[-1] == "sentencepiece>=0.2"
        held = call[call.index("--constraint") + 1].split()
        assert held == [f"{name}=={version}" for name, version in HAS.items() if name != "sentencepiece"]
    assert ("--dry-run" in plan) and ("--dry-run" not in done)
    assert main(["uninstall", str(web)]) == 0
    assert json.loads(python.with_name("python.calls").read_text().splitlines()[-1])[-1] == "sentencepiece"
    assert "sentencepiece" not in webui_python.packages_of(python)


def test_package_that_has_moved_on_stays(checkout, web, capsys):
    python_with(web, sentencepiece=None)
    main(["webui", str(web)])
    python_with(web, sentencepiece="0.3.0")
    assert main(["uninstall", str(web)]) == 0
    assert "left: the package sentencepiece is now 0.3.0" in capsys.readouterr().out


def test_moved_version_is_an_error(checkout, web, capsys, monkeypatch):
    python_with(web, sentencepiece=None)
    monkeypatch.setenv("STUB_MOVES", '{"torch": "2.13.0"}')
    assert "pip moved what was there: torch 2.9.1+cu128 -> 2.13.0" in fails(capsys, "webui", web, status=1)
    assert json.loads((web / "user_data/extensions/multimodal_vcla.json").read_text())["unfinished"]


def make_wheel(folder: Path, name: str, version: str, needs: str = "") -> None:
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}.py", "")
        needed = f"Requires-Dist: {needs}\n" if needs else ""
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needed}")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


@pytest.mark.slow
def test_real_pip_moves_nothing(checkout, web, tmp_path, monkeypatch, capsys):
    """A plain venv; of the packages there are newer ones, which the missing package would like to have."""
    shutil.rmtree(web / "installer_files")
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    for name, version in HAS.items():
        make_wheel(wheels, name, version.partition("+")[0])
    make_wheel(wheels, "sentencepiece", "0.2.9", needs="numpy>=2")
    for version in ("2.0.0", "2.2.6"):
        make_wheel(wheels, "numpy", version)
    make_wheel(wheels, "torch", "9.9")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    subprocess.run([sys.executable, "-m", "venv", web / "venv"], check=True)
    python = web / "venv/bin/python"
    present = [f"{name}=={version.partition('+')[0]}" for name, version in HAS.items() if name != "sentencepiece"]
    subprocess.run([python, "-m", "pip", "install", "-q", *present, "numpy==2.0.0"], check=True)
    before = webui_python.packages_of(python)
    assert main(["webui", str(web)]) == 0
    assert webui_python.packages_of(python) == {**before, "sentencepiece": "0.2.9"}
    assert main(["uninstall", str(web)]) == 0
    assert webui_python.packages_of(python) == before


def test_python_that_is_named_from_here_is_known_from_elsewhere(checkout, web, tmp_path, monkeypatch):
    python = make_python(tmp_path / "own" / "bin" / "python")
    monkeypatch.chdir(tmp_path)
    assert main(["webui", str(web), "--python", "own/bin/python"]) == 0
    monkeypatch.chdir(web)
    assert webui_python.find(WebUI(str(web)), None) == str(python)
