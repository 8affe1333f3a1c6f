"""Files, folders and links: written whole or not at all, known by their content, removed with nothing left over."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from pathlib import Path

from .processes import ask
from .words import InstallError, last_line


def write(path: Path, content: bytes) -> None:
    """Write a file so that it is whole or absent. A link stays one: what it leads to is written."""
    path = Path(os.path.realpath(str(path)))
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = draft_of(path)
    draft.write_bytes(content)
    if path.exists():
        shutil.copymode(str(path), str(draft))
    os.replace(draft, path)


def draft_of(path: Path) -> Path:
    """Where a file or a folder is prepared before it takes its place."""
    return path.with_name(path.name + ".part")


def discard_draft(path: Path) -> None:
    """Remove what an interrupted `write` left."""
    with contextlib.suppress(FileNotFoundError):
        draft_of(Path(os.path.realpath(str(path)))).unlink()


def make_link(path: Path, folder: str) -> None:
    """Link a folder; where symbolic links need a privilege (Windows), by a junction."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.symlink(folder, str(path), target_is_directory=True)
    except OSError:
        if os.name != "nt":
            raise
        made = ask(["cmd", "/c", "mklink", "/J", str(path), folder])
        if made.returncode:
            raise InstallError(f"{path} could not be linked to {folder}: {last_line(made.stderr)}") from None


def linked_folder(path: Path) -> str | None:
    """What a link or a junction leads to; None when it is neither."""
    try:
        folder = os.readlink(str(path))
    except (OSError, ValueError):  # ValueError: another of Windows's kinds of links
        return None
    return folder[4:] if folder.startswith("\\\\?\\") else folder  # Windows's mark of a path that is taken literally


def is_link_to(path: Path, folder: str) -> bool:
    """Whether a link or a junction leads to a folder, which need not be there any more."""
    there = linked_folder(path)
    return there is not None and os.path.normcase(there) == os.path.normcase(folder)


def copy(source: Path, place: Path) -> None:
    """Copy a file, however large; a link stays one."""
    folder = linked_folder(source)
    if folder is not None:
        make_link(place, folder)
    else:
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(str(source), str(place))


def names_in(folder: Path) -> list:
    """The files and links of a folder and its subfolders, as names from there; without byte code and git's own."""
    if not folder.is_dir():
        return []
    files = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file() or linked_folder(path) is not None]
    return sorted(path.as_posix() for path in files if not {"__pycache__", ".git"} & set(path.parts))


def hash_of(path: Path) -> str | None:
    """The content of a file as a hash; None when there is no such file."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def remove(path: Path) -> None:
    """Remove a file, a link, or a folder with all that is in it, when it is there."""
    if path.is_dir() and linked_folder(path) is None:
        shutil.rmtree(str(path))
    elif os.path.lexists(str(path)):
        path.unlink()


def remove_empty(folder: Path) -> None:
    """Remove a folder's empty subfolders, and itself when it is empty then."""
    for path in [*sorted(folder.rglob("*"), reverse=True), folder]:
        if path.is_dir() and linked_folder(path) is None:
            with contextlib.suppress(OSError):
                path.rmdir()
