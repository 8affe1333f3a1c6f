"""Other programs: in the foreground, or asked quietly."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path

ENDED_BY_CTRL_C = 0xC000013A  # how Windows says it
SPEAK_UTF8 = {"PYTHONIOENCODING": "utf-8"}  # a Python that writes into a pipe would use another encoding on Windows


def run(command: list, cwd: Path | None = None, **variables: str) -> int:
    """Run a command in the foreground.

    Returns:
        Its exit status (128 and the signal's number when a signal ended it, as in a shell). Ctrl-C reaches the command
        too, so it decides how to end and this waits for it.
    """
    process = subprocess.Popen([str(part) for part in command], cwd=cwd and str(cwd), env={**os.environ, **variables})
    with stopping(process):
        while True:
            try:
                status = process.wait()
            except KeyboardInterrupt:
                continue
            if status == ENDED_BY_CTRL_C:
                return 128 + signal.SIGINT
            return status if status >= 0 else 128 - status


def ask(command: list, cwd: Path | None = None, **variables: str) -> subprocess.CompletedProcess:
    """Run a command quietly and keep what it says."""
    return subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        cwd=cwd and str(cwd),
        env={**os.environ, **SPEAK_UTF8, **variables},
    )


@contextlib.contextmanager
def stopping(process: subprocess.Popen):
    """Leave no process behind when this one is stopped in the middle."""
    try:
        yield
    except BaseException:
        process.terminate()
        process.wait()
        raise
