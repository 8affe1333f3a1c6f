"""Which Python: found by name, asked what it is, refused when the project cannot live in it."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from . import project
from .processes import ask
from .words import UserError

IN_AN_ENVIRONMENT = "Scripts/python.exe" if os.name == "nt" else "bin/python"
EXAMPLE = r"C:\Python311\python.exe" if os.name == "nt" else "python3.11"
NAMES = ("python3.11", "python3.12", "python3.13", "python3.10")  # to look for on this machine, the best tested first
PROBE = """
import sys
def has(name):
    try:
        __import__(name)
    except ImportError:
        return 0
    return 1
print("%d.%d.%d %d %d %d" % (sys.version_info[:3] + (has("venv"), has("ensurepip"), sys.maxsize > 2**32)))
"""


def venv_python(folder: Path) -> Path:
    """The interpreter inside an environment."""
    return folder / IN_AN_ENVIRONMENT


def probe(python: str | Path) -> dict | None:
    """Ask an interpreter what it is; None when it does not run."""
    try:
        version, *flags = ask([python, "-c", PROBE]).stdout.split()
        has_venv, has_ensurepip, is_64_bit = (flag == "1" for flag in flags)
    except (OSError, ValueError):
        return None
    return {"version": version, "has_venv": has_venv and has_ensurepip, "is_64_bit": is_64_bit}


def is_new_enough(python: str | Path) -> bool:
    """Whether an interpreter runs, and can run the project."""
    found = probe(python)
    return found is not None and project.numbers(found["version"]) >= project.oldest_python()


def find(name: str | None, folder: Path) -> str:
    """The interpreter that is named, else the one that runs this file: the one to make the environment `folder` with.

    Raises:
        UserError: there is no such program.
    """
    if name is None:
        # Started by the very environment that may have to be removed: then the Python that it was made with.
        is_inside = Path(sys.prefix).resolve() == folder.resolve()
        return getattr(sys, "_base_executable", sys.executable) if is_inside else sys.executable
    found = shutil.which(os.path.expanduser(name))
    if found is None:
        raise UserError(f"--python {name!r} is not a program that can be run. For example: --python {EXAMPLE}")
    return os.path.abspath(found)


def check(interpreter: str) -> str:
    """Refuse an interpreter that cannot hold the project.

    Returns:
        Its version, such as '3.11.7'.

    Raises:
        UserError: it does not run, is too old, has 32 bits, or has no `venv`.
    """
    found = probe(interpreter)
    if found is None:
        raise UserError(f"{interpreter!r} is not a Python that runs. Name one: --python {EXAMPLE}")
    version = found["version"]
    if not is_new_enough(interpreter):
        newer = next((name for name in NAMES if shutil.which(name) and is_new_enough(name)), None)
        advice = "Install one (python.org, or your system's packages) and name it: --python PATH"
        if newer:
            advice = f"This machine has one: add --python {newer}"
        needed = ".".join(map(str, project.oldest_python()))
        raise UserError(f"{interpreter} is Python {version}; {needed} or newer is needed. {advice}")
    if not found["is_64_bit"]:
        raise UserError(f"{interpreter} is a 32-bit Python; PyTorch needs a 64-bit one. Name one: --python PATH")
    if not found["has_venv"]:
        package = "python{}.{}-venv".format(*project.numbers(version))
        advice = f"On Debian and Ubuntu: apt install {package}. Or name another Python: --python PATH"
        raise UserError(f"{interpreter} cannot make environments (no venv or ensurepip). {advice}")
    return version
