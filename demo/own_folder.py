"""The page's folder of uploads and previews: gone with the page, and where the page was killed, at the next start."""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

PREFIX = "multimodal-vcla-"
_ALIVE = "page.lock"  # locked as long as the page lives, whatever ends it
_UNLOCKED_S = 3600  # a folder without a lock may have been made a moment ago


@contextmanager
def own_folder() -> Iterator[Path]:
    """A fresh folder; those of pages that were killed are removed first."""
    for left in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        if _is_dead(left):
            shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    with open(folder / _ALIVE, "wb") as alive:
        _lock(alive)
        try:
            yield folder
        finally:
            alive.close()  # Windows removes no open file
            shutil.rmtree(folder, ignore_errors=True)


def _is_dead(folder: Path) -> bool:
    try:
        status = folder.lstat()
        if folder.is_symlink() or not folder.is_dir() or status.st_uid != getattr(os, "getuid", lambda: status.st_uid)():
            return False  # nobody else's, and nowhere else
        if not (folder / _ALIVE).exists():
            return time.time() - status.st_mtime > _UNLOCKED_S
        with open(folder / _ALIVE, "r+b") as alive:
            return _lock(alive)
    except OSError:
        return False


def _lock(file: BinaryIO) -> bool:
    """Whether nobody else holds it."""
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError:
        return False
