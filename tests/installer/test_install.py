"""install.py and its environment, without a network: what it asks of Python and pip, what it leaves, what it says of mistakes."""

import argparse
import ast
import errno
import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from installer import command_line, environment, verbs
from installer.words import UserError, quote

ROOT = Path(__file__).resolve().parent.parent.parent
STUB = """
import json, os, pathlib, shutil, sys, time
arguments = sys.argv[2:]
with open(os.environ["STUB_CALLS"], "a", encoding="utf-8") as calls:
    calls.write(json.dumps(arguments) + "\\n")
if arguments[0] == "-c":
    answer = os.environ["STUB_INSTALLED" if "torch" in arguments[1] else "STUB_PYTHON"]
    if answer.startswith("OSError"):
        sys.exit(answer)
    print(answer)
elif arguments[1] == "venv":
    folder = pathlib.Path(arguments[2], "bin")
    folder.mkdir(parents=True)
    shutil.copy(sys.argv[1], folder / "python")
elif arguments[1] == "pip":
    print(os.environ["STUB_PIP"], flush=True)
    deadline = time.monotonic() + 30
    is_held = os.environ["STUB_HELD"] in arguments
    while is_held and os.path.exists(os.environ["STUB_HOLD"]) and time.monotonic() < deadline:
        time.sleep(0.02)
    sys.exit(1 if os.environ["STUB_PIP"] else 0)
else:
    sys.exit(int(os.environ.get("STUB_STATUS_" + arguments[1], "0")))
"""
needs_sh = pytest.mark.skipif(os.name == "nt", reason="the stand-in for Python is a shell script")


class Project:
    """A copy of the project's house with a stand-in for Python, which notes how it was called and installs nothing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "眼睛 and blanks"
        self.folder.mkdir()
        shutil.copytree(ROOT / "installer", self.folder / "installer", ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("install.py", "pyproject.toml", "constraints.txt", "constraints-oldest.txt"):
            shutil.copy(ROOT / name, self.folder)
        (folder / "stub.py").write_text(STUB)
        self.python = folder / "python"
        self.python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -IS "{folder / "stub.py"}" "$0" "$@"\n')
        self.python.chmod(0o755)
        self.venv = self.folder / ".venv"
        self.stamp = self.venv / "multimodal-vcla.json"
        self.unfinished = self.venv / "multimodal-vcla.unfinished"
        self.calls_file = folder / "calls"
        self.hold = folder / "hold"  # while this file is there, a pip that installs STUB_HELD does not end
        self.environment = {
            **os.environ,
            "HTTPS_PROXY": "http://127.0.0.1:9",  # nothing listens there: PyTorch's index is out of reach at once
            "STUB_CALLS": str(self.calls_file),
            "STUB_PYTHON": "3.11.7 1 1 1",
            "STUB_INSTALLED": "2.13.0+cpu 5.23.0 False",
            "STUB_PIP": "",
            "STUB_HOLD": str(self.hold),
            "STUB_HELD": "pip>=24.1",
        }

    def command(self, *arguments: str, has_python: bool = True) -> dict:
        python = ["--python", str(self.python)] if has_python else []
        return {
            "args": [sys.executable, str(self.folder / "install.py"), *arguments[:1], *python, *arguments[1:]],
            "env": self.environment,
            "cwd": self.folder,
            "text": True,
            "encoding": "utf-8",
        }

    def run(self, *arguments: str, has_python: bool = True, **environment: str) -> subprocess.CompletedProcess:
        """Run install.py; `calls` then holds what this run asked of Python."""
        self.environment.update(environment)
        self.calls_file.unlink(missing_ok=True)
        return subprocess.run(**self.command(*arguments, has_python=has_python), capture_output=True, timeout=60)

    @property
    def calls(self) -> list[list[str]]:
        lines = self.calls_file.read_text(encoding="utf-8").splitlines() if self.calls_file.exists() else []
        return [arguments for arguments in map(json.loads, lines) if arguments[0] != "-c"]

    @property
    def modules(self) -> list[str]:
        return [arguments[1] for arguments in self.calls]


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path)


def assert_one_line(result: subprocess.CompletedProcess, status: int, *words: str) -> None:
    """A mistake is one line on stderr and an exit status, never a traceback."""
    assert result.returncode == status, result.stdout + result.stderr
    assert result.stderr.count("\n") == 1, result.stderr
    assert result.stderr.startswith("install.py: ")
    for word in words:
        assert word in result.stderr


def test_source_is_read_by_python_3_8():
    for file in (ROOT / "installer").glob("*.py"):
        ast.parse(file.read_text(encoding="utf-8"), feature_version=(3, 8))


def test_any_python_can_read_install_py():
    """Nothing that is newer than the oldest Python that somebody may start it with."""
    tree = ast.parse((ROOT / "install.py").read_text(encoding="ascii"))
    newer = (ast.JoinedStr, ast.AnnAssign, ast.AsyncFunctionDef, ast.NamedExpr, ast.Nonlocal, ast.Starred)
    assert not [node for node in ast.walk(tree) if isinstance(node, newer) or getattr(node, "returns", None)]
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module == "__future__"]


@pytest.mark.parametrize("version", [(2, 7, 18), (3, 7, 16)])
def test_python_that_is_too_old_is_one_line_and_status_2(monkeypatch, capsys, version):
    monkeypatch.setattr(sys, "version_info", version)
    with pytest.raises(SystemExit, match="^2$"):
        runpy.run_path(str(ROOT / "install.py"), run_name="__main__")
    said = capsys.readouterr().err
    assert said.startswith("install.py: this is Python " + ".".join(map(str, version))) and said.count("\n") == 1


@pytest.mark.parametrize("is_whole", [False, True])
def test_install_py_without_its_folder_is_one_line_and_status_2(tmp_path, is_whole):
    shutil.copy(ROOT / "install.py", tmp_path)
    if is_whole:
        shutil.copytree(ROOT / "installer", tmp_path / "installer", ignore=shutil.ignore_patterns("__pycache__"))
        (tmp_path / "installer" / "words.py").unlink()
    command = [sys.executable, "-P" if sys.version_info >= (3, 11) else "-B", str(tmp_path / "install.py"), "test"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert_one_line(result, 2, "installer/ is not beside it, or not whole")


# --- a run from nothing, and the runs after it


@needs_sh
def test_first_run_installs_torch_before_the_rest_and_runs_the_suite(project):
    result = project.run("test", "-m", "not slow", "tests/test_a.py", "--", "-x")
    assert result.returncode == 0, result.stdout + result.stderr
    assert project.modules == ["venv", "pip", "pip", "pip", "ruff", "ruff", "pytest"]
    torch, rest = project.calls[2], project.calls[3]
    assert "torch==2.13.0" in torch and ".[demo,training,test]" in rest
    assert all(str(project.folder / "constraints.txt") in call for call in (torch, rest))
    assert project.calls[-1] == ["-m", "pytest", "-m", "not slow", "tests/test_a.py", "-x"]
    assert [step in result.stdout for step in ("[1/4]", "[2/4]", "[3/4]", "[4/4]")] == [True] * 4
    assert project.stamp.exists() and not project.unfinished.exists()


@needs_sh
def test_second_run_installs_nothing(project):
    project.run("test")
    assert project.run("test").returncode == 0
    assert project.modules == ["ruff", "ruff", "pytest"]
    # The interpreter chosen once stays chosen.
    assert project.run("test", has_python=False).returncode == 0
    assert project.modules == ["ruff", "ruff", "pytest"]


@needs_sh
def test_changed_constraints_bring_the_environment_up_to_date(project):
    project.run("test")
    with open(project.folder / "constraints.txt", "a", encoding="utf-8") as file:
        file.write("# changed\n")
    assert "brought up to date" in project.run("test").stdout
    assert project.modules == ["pip", "pip", "pip", "ruff", "ruff", "pytest"]


@needs_sh
def test_environment_keeps_what_other_verbs_need(project):
    project.run("demo")
    assert ".[demo,training]" in project.calls[3]
    project.run("test")
    assert ".[demo,test,training]" in project.calls[2]
    project.run("demo")
    assert project.modules == ["demo"]


@needs_sh
def test_another_python_makes_the_environment_anew(project):
    project.run("test")
    stamp = json.loads(project.stamp.read_text())
    (project.venv / "left behind").touch()
    (project.venv / "bin" / "python").write_text('#!/bin/sh\necho "3.12.1 1 1 1"\n')
    assert project.run("test").returncode == 0
    assert project.modules[0] == "venv" and not (project.venv / "left behind").exists()
    assert json.loads(project.stamp.read_text()) == stamp


@needs_sh
def test_broken_environment_is_made_anew(project):
    project.run("test")
    (project.venv / "bin" / "python").unlink()
    assert project.run("test").returncode == 0
    assert project.modules[0] == "venv"


@needs_sh
def test_other_constraints_and_place(project):
    result = project.run("test", "--constraints", "constraints-oldest.txt", "--venv", ".venv-oldest")
    assert result.returncode == 0
    assert str(project.folder / "constraints-oldest.txt") in project.calls[2]
    assert (project.folder / ".venv-oldest" / project.stamp.name).exists() and not project.venv.exists()


# --- interruptions


@needs_sh
def test_unfinished_environment_is_made_anew(project):
    project.venv.mkdir()
    project.unfinished.touch()
    (project.venv / "half").mkdir()
    result = project.run("test")
    assert result.returncode == 0 and "removing the unfinished one" in result.stdout
    assert project.modules[0] == "venv" and not (project.venv / "half").exists()


@needs_sh
def test_failed_update_leaves_no_stamp(project):
    project.run("test")
    (project.folder / "constraints.txt").write_text("torch==2.13.0\n")
    assert project.run("test", STUB_PIP="ERROR: no").returncode == 1
    assert project.unfinished.exists() and not project.stamp.exists()


def start(project: Project) -> subprocess.Popen:
    def listen() -> None:  # a suite in the background has been told to ignore it, and so would its children
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    return subprocess.Popen(**project.command("test"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=listen)


def start_and_wait_for_pip(project: Project) -> subprocess.Popen:
    project.hold.touch()
    process = start(project)
    deadline = time.monotonic() + 30
    while not any(project.environment["STUB_HELD"] in call for call in project.calls) and time.monotonic() < deadline:
        time.sleep(0.02)
    return process


@needs_sh
def test_killed_run_is_made_anew_after_its_pip_has_ended(project):
    killed = start_and_wait_for_pip(project)
    killed.kill()
    killed.wait()
    assert project.unfinished.exists() and not project.stamp.exists()
    again = start(project)
    assert "are installed" in again.stdout.readline() and "waiting for it to end" in again.stdout.readline()
    project.hold.unlink()
    output, errors = again.communicate(timeout=60)
    killed.communicate()
    assert again.returncode == 0, errors
    assert "removing the unfinished one" in output
    assert project.modules.count("venv") == 2 and project.stamp.exists()


@needs_sh
@pytest.mark.parametrize("held", ["torch==2.13.0", "--editable"])
def test_run_that_was_stopped_later_is_gone_on_with(project, held):
    """What is there stays; only what pip was in the middle of is put in again."""
    project.environment["STUB_HELD"] = held
    stopped = start_and_wait_for_pip(project)
    stopped.send_signal(signal.SIGINT)
    _, errors = stopped.communicate(timeout=30)
    assert "it goes on where this one stopped" in errors
    packages = project.venv / "lib/python3.11/site-packages"
    for name in ("whole.dist-info", "half.dist-info", "~taken-out"):
        (packages / name).mkdir(parents=True)
    (packages / "whole.dist-info/RECORD").touch()
    project.hold.unlink()
    again = project.run("demo")
    assert again.returncode == 0 and "going on with the unfinished environment" in again.stdout, again.stderr
    assert "venv" not in project.modules and project.stamp.exists() and not project.unfinished.exists()
    assert [entry.name for entry in packages.iterdir()] == ["whole.dist-info"]
    assert json.loads(project.stamp.read_text())["extras"] == ["demo", "test", "training"]


@needs_sh
def test_what_does_not_import_is_nothing_to_go_on_with(project):
    assert project.run("demo", STUB_INSTALLED="OSError: libtorch").returncode == 1
    assert project.run("demo", STUB_INSTALLED="2.13.0+cpu 5.23.0 False").returncode == 0
    assert project.modules[0] == "venv"


@needs_sh
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_run_says_so_and_leaves_no_stamp(project, number, status):
    process = start_and_wait_for_pip(project)
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == status and "Traceback" not in errors
    assert ("Interrupted. Run the same command again" in errors) == (number == signal.SIGINT)
    assert project.unfinished.exists() and not project.stamp.exists()


def test_unreadable_stamps_count_as_none(tmp_path):
    for text in ("", "{", "[]", '"x"', '{"extras": 3, "fingerprint": "", "cpu": 0}', '{"extras": []}'):
        (tmp_path / environment.STAMP).write_text(text)
        assert environment.read_stamp(tmp_path) is None
    environment.write_stamp(tmp_path, {"fingerprint": "f", "extras": ["demo"], "cpu": True})
    assert environment.read_stamp(tmp_path) == {"fingerprint": "f", "extras": ["demo"], "cpu": True}
    assert [file.name for file in tmp_path.glob(environment.STAMP + "*")] == [environment.STAMP]


# --- mistakes and bare machines


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "say what to do: demo, test"),
        (["tset"], "invalid choice: 'tset'"),
        (["demo", "--port", "many"], "invalid int value: 'many'"),
        (["demo", "--port", "70000"], "from 1 to 65535"),
        (["test", "--venv"], "expected one argument"),
        (["test", "--constraints", "absent.txt"], "constraints-oldest.txt, constraints.txt"),
        (["test", "--python", "no-such-python"], "'no-such-python' is not a program"),
    ],
)
def test_wrong_arguments_are_one_line_and_status_2(project, arguments, words):
    assert_one_line(project.run(*arguments, has_python=False), 2, words)
    assert not project.venv.exists()


@needs_sh
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("3.8.18 1 1 1", "is Python 3.8.18; 3.10 or newer is needed"),
        ("2.7.18 0 0 1", "is Python 2.7.18; 3.10 or newer is needed"),
        ("3.11.7 1 0 1", "apt install python3.11-venv"),
        ("3.11.7 1 1 0", "32-bit"),
        ("hello", "is not a Python that runs"),
    ],
)
def test_unusable_python_is_refused_before_anything_is_made(project, answer, words):
    assert_one_line(project.run("test", STUB_PYTHON=answer), 2, words)
    assert not project.venv.exists()


@needs_sh
def test_foreign_environment_is_left_alone(project):
    project.venv.mkdir()
    (project.venv / "pyvenv.cfg").write_text("mine")
    assert_one_line(project.run("test"), 2, ".venv exists and was not made by install.py", "--venv DIR")
    assert [file.name for file in project.venv.iterdir()] == ["pyvenv.cfg"]


@needs_sh
def test_place_that_cannot_be_made_is_one_line(project):
    assert_one_line(project.run("test", "--venv", "pyproject.toml/venv"), 1, "pyproject.toml/venv")


def test_full_disk_is_said_before_anything_is_downloaded(tmp_path, monkeypatch):
    monkeypatch.setattr(environment.shutil, "disk_usage", lambda folder: argparse.Namespace(free=2**30))
    with pytest.raises(UserError, match=r"1.0 GiB are free .* about 4 GiB are needed"):
        environment.make_venv(tmp_path / "venv", "python", is_cpu=True)


@pytest.mark.parametrize(
    ("number", "words"), [(errno.ENOSPC, "disk is full"), (errno.EACCES, "may not be written"), (errno.EROFS, "--venv")]
)
def test_errors_of_the_file_system_say_what_to_do(monkeypatch, capsys, number, words):
    def fail(options):
        """Fail."""
        raise OSError(number, os.strerror(number), "somewhere")

    monkeypatch.setitem(command_line.VERBS, "test", command_line.Verb(fail, []))
    assert command_line.main(["test"]) == 1
    assert words in capsys.readouterr().err


@needs_sh
@pytest.mark.parametrize(
    ("said", "words"),
    [
        (
            "WARNING: Retrying: Temporary failure in name resolution\nERROR: No matching distribution found for pip",
            "no network",
        ),
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "the disk is full"),
        ("ERROR: Could not install packages: [Errno 13] Permission denied: 'x'", "may not be written"),
        ("ERROR: No matching distribution found for torch==2.13.0", "no build for this Python and system"),
        ("ERROR: ResolutionImpossible: for help visit", "contradict each other"),
        ("SSLError(SSLCertVerificationError(1, 'CERTIFICATE_VERIFY_FAILED'))", "PIP_CERT"),
        ("something new\n\n", "something new"),
    ],
)
def test_failed_pip_says_why_and_where_the_rest_is(project, said, words):
    result = project.run("test", STUB_PIP=said)
    assert_one_line(result, 1, words, "multimodal-vcla.log")
    assert said.strip() in (project.venv / "multimodal-vcla.log").read_text(encoding="utf-8")


@needs_sh
@pytest.mark.parametrize(
    ("installed", "words"),
    [("2.12.0 5.23.0 False", "torch 2.12.0 was installed"), ("OSError: libgomp", "does not import: OSError")],
)
def test_wrong_torch_is_not_called_finished(project, installed, words):
    result = project.run("test", STUB_INSTALLED=installed)
    assert_one_line(result, 1, words)
    assert not project.stamp.exists()


@pytest.mark.parametrize(
    ("system", "word", "quoted"),
    [
        ("posix", "/a/web ui's", "'/a/web ui'\"'\"'s'"),
        ("nt", r"C:\web ui", r'"C:\web ui"'),
        ("nt", r"C:\textgen", r"C:\textgen"),
    ],
)
def test_command_to_paste_is_in_the_words_of_the_systems_shell(monkeypatch, system, word, quoted):
    with monkeypatch.context() as patch:
        patch.setattr(os, "name", system)
        found = quote(word)
    assert found == quoted


# --- what the verbs run


@needs_sh
@pytest.mark.parametrize(("failing", "status"), [("pytest", "5"), ("ruff", "1")])
def test_failing_check_is_the_exit_status(project, failing, status):
    result = project.run("test", **{f"STUB_STATUS_{failing}": status})
    assert result.returncode == int(status)
    assert result.stdout.splitlines()[-1].startswith(f"Failed: {failing}")
    assert project.modules[-1] == "pytest"


@needs_sh
def test_the_suite_is_announced_with_what_has_to_be_done(project):
    assert "First 2.5 GB are installed" in project.run("test").stdout.splitlines()[0]
    again = project.run("test").stdout.splitlines()[0]
    assert again.startswith("Nothing has to be installed. Then the whole suite: about ")
    assert project.run("test", "tests/test_a.py").stdout.splitlines()[0] == "Nothing has to be installed."


@pytest.mark.parametrize(
    ("cores", "minutes"), [(1, "60 minutes on 1 core"), (2, "35 minutes on 2 cores"), (8, "35 minutes on 8 cores")]
)
@pytest.mark.parametrize("has_browser", [True, False])
def test_the_time_of_the_suite_follows_the_machine(monkeypatch, cores, minutes, has_browser):
    monkeypatch.setattr(verbs.os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    monkeypatch.setattr(verbs.shutil, "which", lambda name: name if has_browser else None)
    told = verbs.what_takes_time(is_installed=True, is_part=False)
    assert f"{minutes}{'.' if has_browser else ', less here'}" in told


@needs_sh
def test_demo_passes_port_browser_and_further_flags(project):
    result = project.run("demo", "--port", "7999", "--no-browser", "--cpu", "--model", "some folder")
    assert result.returncode == 0, result.stderr
    page = ["-m", "demo", "page", "--port", "7999", "--no-browser", "--model", "some folder"]
    assert project.calls[-1] == page
    project.run("demo")
    assert project.calls[-1] == ["-m", "demo", "page"]
