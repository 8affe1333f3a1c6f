"""What is said to the user: lines, paths, commands, mistakes."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path


class InstallError(Exception):
    """Something failed on the way: one line on stderr, exit status 1."""

    status = 1


class UserError(InstallError):
    """A wrong argument, or a machine that lacks something before anything was begun: exit status 2."""

    status = 2


def say(text: str) -> None:
    """Say something at once, also where the output is a file."""
    print(text, flush=True)


def show(path: Path) -> str:
    """A path as the user would write it."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def quote(word: str) -> str:
    """A word as it must stand in a command of this system's shell."""
    return subprocess.list2cmdline([word]) if os.name == "nt" else shlex.quote(word)


def last_line(text: str) -> str:
    """The last line of a program's words that says something."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "it said nothing")
