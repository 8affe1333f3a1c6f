"""One install.py of this checkout at a time."""

from __future__ import annotations

import contextlib
import time

from . import project
from .words import say

try:
    import fcntl
except ImportError:  # Windows
    import msvcrt

    fcntl = None

FAR = 2**30  # where Windows locks a byte: past the end, because nobody else can read a byte that is locked there
POLL_S = 0.2

inherited: list = []  # the file descriptor that pip is handed while the lock is held


@contextlib.contextmanager
def only_one():
    """Let one install.py of this checkout install at a time; a second one waits.

    The lock is on install.py itself and goes with the process. It is handed to pip, so that a pip that outlives a killed
    install.py is waited for as well (not on Windows, where a lock cannot be handed on).
    """
    with open(project.ROOT / "install.py", "rb", buffering=0) as file:
        if not _lock(file):
            say("Another install.py is at work in this folder; waiting for it to end.")
            while not _lock(file):
                time.sleep(POLL_S)
        if fcntl:
            inherited.append(file.fileno())
        try:
            yield
        finally:
            inherited.clear()


def _lock(file) -> bool:
    """Whether the lock was to be had. Where the file system has none, it always is."""
    try:
        if fcntl:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            file.seek(FAR)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    except BlockingIOError:
        return False
    except OSError:
        return bool(fcntl)  # Windows says of a lock that somebody has: permission denied
    return True
