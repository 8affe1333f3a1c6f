"""One installer of a checkout at a time, on every system."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from installer import lock, project

ROOT = Path(__file__).resolve().parent.parent.parent
INSTALLER = """
import sys
from pathlib import Path
from installer import lock, project
project.ROOT = Path(sys.argv[1])
with lock.only_one():
    print("at work", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    (tmp_path / "install.py").write_text("# the one command\n")
    monkeypatch.setattr(project, "ROOT", tmp_path)
    return tmp_path


def start(checkout: Path) -> subprocess.Popen:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": ROOT}
    return subprocess.Popen([sys.executable, "-c", INSTALLER, str(checkout)], **pipes)


@pytest.mark.parametrize("is_killed", [False, True])
def test_second_installer_waits_for_the_first(checkout, is_killed):
    first = start(checkout)
    assert first.stdout.readline() == "at work\n"
    second = start(checkout)
    assert second.stdout.readline() == "Another install.py is at work in this folder; waiting for it to end.\n"
    assert (checkout / "install.py").read_text() == "# the one command\n"  # a third can be started
    first.kill() if is_killed else first.communicate("end\n", timeout=60)
    assert second.communicate("end\n", timeout=60)[0] == "at work\n"
    first.communicate()
    assert second.returncode == 0


def test_another_checkout_is_not_waited_for(checkout, tmp_path, capsys):
    first = start(checkout)
    assert first.stdout.readline() == "at work\n"
    project.ROOT = tmp_path / "other"
    project.ROOT.mkdir()
    (project.ROOT / "install.py").touch()
    with lock.only_one():
        pass
    first.communicate("end\n", timeout=60)
    assert capsys.readouterr().out == ""


def test_lock_is_given_back_when_something_fails(checkout, capsys):
    with pytest.raises(RuntimeError), lock.only_one():
        raise RuntimeError
    with lock.only_one():
        assert len(lock.inherited) == (lock.fcntl is not None)
    assert lock.inherited == [] and capsys.readouterr().out == ""


def test_file_system_without_locks_is_no_obstacle(checkout, monkeypatch, capsys):
    def refuse(*_):
        raise OSError(38, "Function not implemented")

    if lock.fcntl is None:
        pytest.skip("Windows's locks are part of it")
    monkeypatch.setattr(lock.fcntl, "flock", refuse)
    with lock.only_one():
        pass
    assert capsys.readouterr().out == ""


def test_windows_locks_a_byte_past_the_end_and_hands_nothing_on(checkout, monkeypatch, capsys):
    calls = []

    class Msvcrt:
        LK_NBLCK = 2

        @staticmethod
        def locking(descriptor, mode, count):
            calls.append((os.lseek(descriptor, 0, os.SEEK_CUR), mode, count))
            if len(calls) < 3:
                raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(lock, "fcntl", None)
    monkeypatch.setattr(lock, "msvcrt", Msvcrt, raising=False)
    monkeypatch.setattr(lock, "POLL_S", 0)
    with lock.only_one():
        assert lock.inherited == []
    assert calls == [(2**30, Msvcrt.LK_NBLCK, 1)] * 3
    assert capsys.readouterr().out.count("waiting for it to end") == 1
