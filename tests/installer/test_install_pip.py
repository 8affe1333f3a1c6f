"""pip and PyTorch as the installer asks for them: which build, what the screen shows, why it failed."""

import io
import threading
from pathlib import Path

import pytest

from installer import pip, project, pytorch
from installer.words import InstallError

ROOT = Path(__file__).resolve().parent.parent.parent


def torch_asked(monkeypatch, tmp_path, *, is_cpu=True, is_reachable=True, is_broken=False) -> list[list[str]]:
    """What pip is asked for on Linux."""
    asked = []

    def install(python, arguments, what):
        asked.append(arguments)
        if is_broken and len(asked) == 1:
            raise InstallError("no such build")

    monkeypatch.setattr(pip, "install", install)
    monkeypatch.setattr(pytorch.sys, "platform", "linux")
    monkeypatch.setattr(pytorch, "is_reachable", lambda url: is_reachable)
    (tmp_path / "constraints.txt").write_text("# comment\ntorch==2.13.0\n")
    pytorch.install(Path("python"), tmp_path / "constraints.txt", is_cpu)
    return asked


def test_torch_without_cuda_comes_from_its_own_index(monkeypatch, tmp_path):
    (asked,) = torch_asked(monkeypatch, tmp_path)
    assert asked[:3] == ["torch==2.13.0+cpu", "--extra-index-url", "https://download.pytorch.org/whl/cpu"]


@pytest.mark.parametrize("case", [{"is_reachable": False}, {"is_broken": True}, {"is_cpu": False}])
def test_torch_comes_from_the_ordinary_index_otherwise(monkeypatch, tmp_path, capsys, case):
    asked = torch_asked(monkeypatch, tmp_path, **case)
    assert asked[-1] == ["torch==2.13.0", "--constraint", str(tmp_path / "constraints.txt")]
    assert ("ordinary" in capsys.readouterr().out) == ("is_cpu" not in case)


def test_index_that_does_not_answer_is_given_up_soon(monkeypatch):
    monkeypatch.setattr(pytorch, "CPU_INDEX_TIMEOUT_S", 0.2)
    hangs, answered = threading.Event(), []

    def look_up_a_name(*_, **__):
        hangs.wait(60)
        answered.append(True)

    monkeypatch.setattr(pytorch.urllib.request, "urlopen", look_up_a_name)
    assert not pytorch.is_reachable("https://example.invalid") and not answered
    hangs.set()


def test_progress_in_a_log_is_few_lines():
    screen = io.StringIO()
    progress = pip.Progress(screen)
    for line in (
        "Collecting torch==2.13.0",
        "  Downloading https://example.invalid/torch-2.13.0.whl.metadata (30 kB)",
        "  Downloading https://example.invalid/torch-2.13.0.whl (190.1 MB)",
        "Progress 1000 of 190000000",
        "Downloading tqdm-4.70.1.whl (78 kB)",
        "Installing collected packages: tqdm, torch",
        "Successfully installed torch-2.13.0",
    ):
        progress.feed(line + "\n")
    progress.end()
    assert [line.strip() for line in screen.getvalue().splitlines()] == [
        "downloading torch-2.13.0.whl (190.1 MB)",
        "unpacking 2 packages",
    ]


def test_progress_in_a_terminal_is_one_line_that_is_wiped():
    screen = io.StringIO()
    screen.isatty = lambda: True
    progress = pip.Progress(screen)
    progress.feed("  Downloading torch-2.13.0.whl (190.1 MB)\n")
    progress.feed("Progress 95000000 of 190000000\n")
    progress.end()
    assert "torch-2.13.0.whl (190.1 MB): 50 %" in screen.getvalue()
    assert "\n" not in screen.getvalue() and screen.getvalue().endswith(" \r")


def test_own_constraints_name_what_pyproject_asks_for():
    """Each direct dependency is pinned in the tested set, and the lower bounds are those of the oldest set."""
    tomllib = pytest.importorskip("tomllib", reason="Python 3.11 brings tomllib")
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = dict(declared["optional-dependencies"])
    assert extras.pop("vllm") == [
        "vllm>=0.32,<0.33"
    ]  # an environment of its own, and vLLM's own parts, which differ by version
    asked = [*declared["dependencies"], *(line for extra in extras.values() for line in extra)]
    for requirement in asked:
        name, operator, bound = requirement.partition(">=")
        assert operator and "," not in bound and "<" not in bound, f"{requirement}: lower bounds only"
        assert project.pinned_version(ROOT / "constraints.txt", name), f"{name} is not in constraints.txt"
        oldest = project.pinned_version(ROOT / "constraints-oldest.txt", name)
        if oldest and name not in ("torch", "pytest", "hypothesis", "ruff", "playwright"):
            assert oldest.split(".")[: bound.count(".") + 1] == bound.split("."), f"{requirement} is tested with {oldest}"
