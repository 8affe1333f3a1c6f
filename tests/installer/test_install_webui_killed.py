"""install.py webui and uninstall, ended at every step: what is there can be finished or taken out."""

import os
import shutil
from pathlib import Path

import pytest
from webui_tree import HAS, fails, make_model, snapshot, update_project

from installer import webui_python
from installer.command_line import main

pytestmark = pytest.mark.skipif(os.name == "nt", reason="links and the stand-in for Python need a Unix")
OPERATIONS = ("mkdir", "replace", "rename", "unlink", "rmdir", "symlink")


class Killed(BaseException):
    """The process ends here."""


def run_until(monkeypatch, number: int, arguments: list[str]) -> bool:
    """Run, and die before the file system is changed for the `number`th time; whether it came to that."""
    count = 0

    def dying(operation):
        def call(*args, **kwargs):
            nonlocal count
            count += 1
            if count == number:
                raise Killed
            return operation(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        for name in OPERATIONS:
            patch.setattr(os, name, dying(getattr(os, name)))
        try:
            main(arguments)
        except Killed:
            return True
    return False


@pytest.mark.parametrize(
    ("before", "flags"), [(None, []), ([], []), ([], ["--link"]), (["--link"], [])], ids=["new", "update", "to link", "to copy"]
)
def test_killed_install_can_be_finished_or_taken_out(checkout, web, tmp_path, monkeypatch, before, flags):
    monkeypatch.setattr(webui_python, "packages_of", lambda python: HAS)
    original = snapshot(web)
    arguments = ["webui", str(web), "--enable", "--model", str(make_model(tmp_path / "model")), *flags]
    if before is not None:
        main(["webui", str(web), *before])
        update_project(checkout)
    shutil.copytree(web, tmp_path / "start", symlinks=True)
    main(arguments)
    whole = snapshot(web)
    for number in range(1, 500):
        outcomes = []
        for second in (arguments, ["uninstall", str(web)]):
            shutil.rmtree(web)
            shutil.copytree(tmp_path / "start", web, symlinks=True)
            was_killed = run_until(monkeypatch, number, arguments)
            status = main(second)
            outcomes.append((status, snapshot(web)))
        assert outcomes[0] == (0, whole), number
        (status, after) = outcomes[1]
        assert after == original and status in (0, 2), number  # 2: it had put nothing in yet
        if not was_killed:
            break
    assert number > 15


def test_killed_uninstall_can_be_finished(checkout, web, tmp_path, monkeypatch):
    monkeypatch.setattr(webui_python, "packages_of", lambda python: HAS)
    original = snapshot(web)
    main(["webui", str(web), "--enable", "--model", str(make_model(tmp_path / "model"))])
    shutil.copytree(web, tmp_path / "start", symlinks=True)
    for number in range(1, 500):
        shutil.rmtree(web)
        shutil.copytree(tmp_path / "start", web, symlinks=True)
        was_killed = run_until(monkeypatch, number, ["uninstall", str(web)])
        if not was_killed:
            break
        main(["uninstall", str(web)])
        assert snapshot(web) == original, number
    assert number > 10


def test_folder_that_may_not_be_written_is_one_line_and_changes_nothing(checkout, web, monkeypatch, capsys):
    before = snapshot(web)

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied", "user_data/extensions")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", refuse)
        error = fails(capsys, "webui", web, status=1)
    assert "may not be written: check who owns it" in error and "--venv" not in error
    assert snapshot(web) == before
