"""`python -m demo ...` from a plain shell: the project's `.venv` where this Python lacks PyTorch; else one line."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines import own_python

ROOT = Path(__file__).resolve().parent.parent.parent
STARTED = {
    "demo": ["ask", "--image", "a b.png", "What?"],
    "training": ["merge", "--help"],
    "pipelines.doctor": ["a folder"],
    "demo.recipes.foundation": ["out"],
}
pytestmark = pytest.mark.skipif(os.name == "nt", reason="the stand-in for Python is a shell script")


@pytest.fixture
def project(tmp_path):
    """The project beside a `.venv` whose Python says what it is asked."""
    for room in ("pipelines", "demo", "training", "benchmarks"):
        shutil.copytree(ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__", "model", "examples"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    python = tmp_path / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\nprintf "<%s>" "$@"\nexit 7\n')
    python.chmod(0o755)
    return tmp_path


def run_bare(project: Path, module: str, *arguments: str) -> subprocess.CompletedProcess:
    """In a Python without site-packages."""
    return subprocess.run([sys.executable, "-S", "-m", module, *arguments], cwd=project, capture_output=True, text=True)


@pytest.mark.parametrize("module", STARTED)
def test_command_goes_on_in_the_projects_own_python(project, module):
    done = run_bare(project, module, *STARTED[module])
    assert done.returncode == 7 and done.stderr == ""
    assert done.stdout == "".join(f"<{word}>" for word in ["-m", module, *STARTED[module]])


@pytest.mark.parametrize("module", ["demo", "training", "demo.recipes.foundation"])
def test_without_one_it_is_one_line_that_says_what_to_run(project, module):
    shutil.rmtree(project / ".venv")
    done = run_bare(project, module)
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1
    assert f"python -m {module}: this Python (" in done.stderr and "torch>=2.6, transformers>=5.6" in done.stderr
    assert done.stderr.endswith("python install.py demo\n")


@pytest.mark.parametrize(
    "file", sorted(file.name for file in (ROOT / "benchmarks").glob("*.py") if "argparse" in file.read_text())
)
def test_benchmarks_go_on_there_too(project, file):
    done = subprocess.run([sys.executable, "-S", f"benchmarks/{file}", "--json"], cwd=project, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (7, f"<{project}/benchmarks/{file}><--json>"), done.stderr


def test_doctor_runs_without_one(project):
    shutil.rmtree(project / ".venv")
    assert "installed: python" in run_bare(project, "pipelines.doctor").stdout


def test_python_that_has_all_of_it_goes_on(monkeypatch):
    monkeypatch.setattr(os, "execv", lambda *_: pytest.fail("handed over"))
    assert own_python.missing() == [] and own_python.hand_over("demo") is None


def test_own_python_that_is_not_whole_does_not_call_itself(project, monkeypatch, capsys):
    monkeypatch.setattr(own_python, "ROOT", project)
    monkeypatch.setattr(own_python, "missing", lambda: ["torch>=2.6"])
    monkeypatch.setattr(sys, "prefix", str(project / ".venv"))
    monkeypatch.setattr(os, "execv", lambda *_: pytest.fail("handed over"))
    with pytest.raises(SystemExit, match="^2$"):
        own_python.hand_over("demo")
    assert "torch>=2.6" in capsys.readouterr().err
    assert own_python.hand_over("pipelines.doctor", is_essential=False) is None


def test_older_version_counts_as_missing_and_a_plugin_without_pyproject_misses_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(own_python, "_version", lambda name: {"torch": "2.13.0+cpu", "transformers": "5.5.4"}.get(name, "999"))
    assert own_python.missing() == ["transformers>=5.6"]
    monkeypatch.setattr(own_python, "ROOT", tmp_path)
    assert own_python.missing() == []
