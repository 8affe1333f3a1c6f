"""Which Python runs a command: the one it was started with, or the project's own `.venv` where that one lacks PyTorch and its like.

So `python -m demo ...` and its like have one spelling, which works in the project's folder from a plain shell as soon as
`install.py demo` has made `.venv`. Standard library only, in words that Python 3.8 can read.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ESSENTIAL = ("torch", "transformers")
"""Without these nothing can be done; what else is lacking may never be needed."""


def hand_over(module: str, is_essential: bool = True) -> None:
    """Go on in the project's `.venv` where this Python lacks what the project needs; else return.

    Args:
        module: what was started, such as "demo" for `python -m demo`, or the file of a script.
        is_essential: whether the command cannot do without; else it returns where there is no other Python.

    Raises:
        SystemExit: the other Python's exit status; 2, after one line on stderr, where there is none.
    """
    started = [module] if module.endswith(".py") else ["-m", module]
    lacking = missing()
    if not lacking:
        return
    folder = ROOT / ".venv"
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if python.is_file() and Path(sys.prefix).resolve() != folder.resolve():
        command = [str(python), *started, *sys.argv[1:]]
        sys.stdout.flush()
        if os.name != "nt":
            os.execv(command[0], command)
        raise SystemExit(_run(command))  # Windows gives the terminal back to the shell when a program replaces itself
    if is_essential and any(requirement.startswith(ESSENTIAL) for requirement in lacking):
        version = ".".join(map(str, sys.version_info[:3]))
        sys.stderr.write(
            f"python {' '.join(started)}: this Python ({version}, {sys.executable}) lacks {', '.join(lacking)}. Make the project's own, "
            "which is then taken by itself: python install.py demo\n"
        )
        raise SystemExit(2)


def missing() -> list[str]:
    """What pyproject.toml asks for and this Python does not have, or has older; nothing where there is no such file."""
    try:
        text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    except OSError:
        return []
    wanted = re.findall(r'^ +"([a-z0-9_.-]+)>=([0-9.]+)",$', text, re.MULTILINE)
    return [f"{name}>={oldest}" for name, oldest in wanted if _numbers(_version(name)) < _numbers(oldest)]


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _numbers(version: str) -> tuple[int, ...]:
    """Its leading numbers, for comparing; none are less than any."""
    return tuple(int(part) for part in re.match(r"[0-9.]*[0-9]|", version).group().split(".") if part)


def _run(command: list[str]) -> int:
    process = subprocess.Popen(command)
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:  # reaches the other one too, which decides how to end
            continue
