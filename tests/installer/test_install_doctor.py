"""install.py doctor of web UIs: what they hold, what is missing, the next command."""

import json
import os
import shutil
import subprocess

import pytest
from webui_tree import ROOT, fails, make_model, write

from installer import interpreters, project, verbs
from installer.command_line import main
from installer.webui import WebUI
from installer.words import quote

pytestmark = pytest.mark.skipif(os.name == "nt", reason="links and the stand-in for Python need a Unix")


def doctor(capsys, *arguments: object) -> tuple[int, str]:
    capsys.readouterr()
    status = main(["doctor", *map(str, arguments)])
    return status, capsys.readouterr().out


@pytest.fixture
def real_pipelines(checkout):
    """The doctor's core is the project's own."""
    shutil.rmtree(checkout / "pipelines")
    shutil.copytree(ROOT / "pipelines", checkout / "pipelines", ignore=shutil.ignore_patterns("__pycache__"))


def test_doctor_says_what_a_web_ui_holds(checkout, web, tmp_path, capfd, real_pipelines, monkeypatch):
    monkeypatch.setattr(verbs, "run", lambda command, cwd: print(command[-1]) or 0)
    status, output = doctor(capfd, web)
    assert status == 1
    for words in ("of an unknown version", "installer_files/env/bin/python", "torch 2.9.1+cu128", "loaders: Transformers"):
        assert words in output
    for words in ("plugin: not installed; not switched on", "missing: the plugin", "models with eyes: none"):
        assert words in output
    assert f"next: python {quote(str(checkout / 'install.py'))} webui '{web}' --enable --model FOLDER\n" in output
    main(["webui", str(web), "--enable", "--model", str(make_model(tmp_path / "seeing"))])
    write(web / "user_data/presets/VisualCLA.yaml", "temperature: 1\n")
    (web / "user_data/extensions/multimodal_vcla/pipelines/__init__.py").unlink()
    status, output = doctor(capfd, web)
    assert status == 1
    for words in ("0.1.0 in user_data/extensions/multimodal_vcla, by install.py", "switched on in user_data/settings.yaml"):
        assert words in output
    for words in (
        "changed by you: user_data/presets/VisualCLA.yaml",
        "missing: user_data/extensions/multimodal_vcla/pipelines",
    ):
        assert words in output
    assert "models with eyes: seeing" in output and str(web / "user_data/models/seeing") in output


@pytest.mark.slow
def test_doctor_for_programs(checkout, web, tmp_path, capfd, real_pipelines):
    model = make_model(tmp_path / "seeing7b")
    main(["webui", str(web), "--enable", "--model", str(model)])
    status, output = doctor(capfd, web, model, "--json")
    found = json.loads(output)
    (report,) = found["webuis"]
    assert status == 1 and report["missing"] == [] and report["next"] == ["start the web UI and load a model that has eyes"]
    assert report["packages"]["torch"] == "2.9.1+cu128" and report["models_with_eyes"] == [
        str(web / "user_data/models/seeing7b")
    ]
    assert [item["family"] for item in found["models"]] == ["visualcla", "visualcla"]
    assert all("weights" in " ".join(item["missing"]) for item in found["models"])


def test_version_is_what_git_says(web):
    if shutil.which("git") is None:
        pytest.skip("there is no git")
    git = ["git", "-C", str(web), "-c", "user.name=x", "-c", "user.email=x@example.invalid"]
    for command in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "x"], ["tag", "v4.7.3"]):
        subprocess.run([*git, *command], check=True, capture_output=True)
    assert WebUI(str(web)).version() == "v4.7.3"


def test_python_that_is_too_old_for_the_doctor_is_told(checkout, capsys, monkeypatch):
    monkeypatch.setattr(project, "oldest_python", lambda: (99, 0))
    monkeypatch.setattr(interpreters, "NAMES", ())
    assert "99.0 or newer is needed" in fails(capsys, "doctor")
