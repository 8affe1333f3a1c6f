"""The project's own environment, `.venv`: made, brought up to date, kept when it has what is asked for.

A finished environment carries a stamp (what was installed, for which Python), an unfinished one a mark instead. As soon as it
has a pip that works, the mark says what the environment is for, and the next run goes on with it; else it is made anew. So every
step may be repeated and interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import time
from pathlib import Path

from . import interpreters, pip, project, pytorch
from .files import remove, write
from .interpreters import venv_python
from .lock import only_one
from .processes import ask
from .words import InstallError, UserError, last_line, say, show

STAMP = "multimodal-vcla.json"  # a finished environment: what is in it
UNFINISHED = "multimodal-vcla.unfinished"  # an environment that is being made
FREE_GIB = {"cpu": 4, "gpu": 12}  # disk space for the environment and for what pip unpacks on the way


def prepare(options: argparse.Namespace, extras: list) -> Path:
    """Make the environment hold `extras`; at once when it already does.

    Returns:
        The interpreter of the environment.

    Raises:
        UserError: a wrong Python, no `venv` module, a folder that is not ours, no room.
        InstallError: pip failed.
    """
    folder, constraints = Path(options.venv).absolute(), Path(options.constraints).absolute()
    if not constraints.is_file():
        known = ", ".join(sorted(file.name for file in project.ROOT.glob("constraints*.txt")))
        raise UserError(f"--constraints {options.constraints!r} is not a file. The project has: {known}")
    if not is_finished(folder, extras, constraints, options):
        with only_one():
            # Another install.py may have finished it while this one waited.
            if not is_finished(folder, extras, constraints, options):
                bring_up(folder, extras, constraints, options)
    return venv_python(folder)


def is_ready(options: argparse.Namespace, extras: list) -> bool:
    """Whether `prepare` would have nothing to do."""
    constraints = Path(options.constraints).absolute()
    return constraints.is_file() and is_finished(Path(options.venv).absolute(), extras, constraints, options)


def bring_up(folder: Path, extras: list, constraints: Path, options: argparse.Namespace) -> None:
    """Make the environment, or bring a finished one up to date."""
    started = time.monotonic()
    stamp = read_stamp(folder)
    known = stamp or read_stamp(folder, UNFINISHED)
    if fits(folder, known, options) and (stamp or has_pip(folder)):
        extras, is_cpu = sorted({*extras, *known["extras"]}), known["cpu"]
        version = interpreters.probe(venv_python(folder))["version"]
        if stamp:
            say(f"[1/4] Python {version}: the environment {show(folder)} is brought up to date")
            os.replace(folder / STAMP, folder / UNFINISHED)
        else:
            say(f"[1/4] Python {version}: going on with the unfinished environment {show(folder)}")
            remove_half_installed(folder)
    else:
        interpreter = interpreters.find(options.python, folder)
        version, is_cpu = interpreters.check(interpreter), options.cpu or not pytorch.has_nvidia_gpu()
        say(f"[1/4] Python {version}: making the environment {show(folder)}")
        make_venv(folder, interpreter, is_cpu)
    python = venv_python(folder)
    pip.install(python, [pip.NEWER_PIP], "a newer pip")
    write_json(folder / UNFINISHED, {"fingerprint": "", "extras": extras, "cpu": is_cpu})
    say("[2/4] PyTorch")
    pytorch.install(python, constraints, is_cpu)
    say(f"[3/4] The project and what it needs ({', '.join(extras)})")
    # "." and not the folder's name, because a path with brackets or blanks is no requirement that pip can read.
    pip.install(python, ["--editable", f".[{','.join(extras)}]", "--constraint", str(constraints)], "the project")
    say("[4/4] Looking at what was installed")
    try:
        say("      " + check_installed(python, project.pinned_version(constraints, "torch")))
    except InstallError:
        (folder / UNFINISHED).write_bytes(b"")  # nothing to go on with
        raise
    write_stamp(folder, {"fingerprint": fingerprint(constraints, version), "extras": extras, "cpu": is_cpu})
    say(f"Ready after {time.monotonic() - started:.0f} s.")


def is_finished(folder: Path, extras: list, constraints: Path, options: argparse.Namespace) -> bool:
    """Whether the environment has all that is asked for, so that nothing need be installed."""
    stamp = read_stamp(folder)
    if not fits(folder, stamp, options) or not set(extras) <= set(stamp["extras"]):
        return False
    return stamp["fingerprint"] == fingerprint(constraints, interpreters.probe(venv_python(folder))["version"])


def fits(folder: Path, stamp: dict | None, options: argparse.Namespace) -> bool:
    """Whether a finished environment can be kept: it runs, and is of the Python and the kind of PyTorch asked for."""
    if stamp is None or (options.cpu and not stamp["cpu"]):
        return False
    found = interpreters.probe(venv_python(folder))
    if found is None:
        return False
    return options.python is None or found["version"] == interpreters.check(interpreters.find(options.python, folder))


def fingerprint(constraints: Path, version: str) -> str:
    """What an environment depends on, as one hash: pyproject.toml, the constraints, the Python and the place."""
    pyproject, place = (project.ROOT / "pyproject.toml").read_bytes(), str(project.ROOT).encode()
    parts = [pyproject, constraints.read_bytes(), version.encode(), place]
    return hashlib.sha256(b"\0".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


def read_stamp(folder: Path, name: str = STAMP) -> dict | None:
    """The stamp of a finished environment, or an unfinished one's mark; None when it is absent, empty or not readable."""
    try:
        stamp = json.loads((folder / name).read_text(encoding="utf-8"))
        return {"fingerprint": stamp["fingerprint"], "extras": list(stamp["extras"]), "cpu": bool(stamp["cpu"])}
    except (OSError, ValueError, TypeError, KeyError):
        return None


def write_stamp(folder: Path, stamp: dict) -> None:
    """Write the stamp as the very last thing: under another name first, so that a stamp is either whole or absent."""
    write_json(folder / STAMP, stamp)
    with contextlib.suppress(FileNotFoundError):
        (folder / UNFINISHED).unlink()


def write_json(file: Path, values: dict) -> None:
    write(file, (json.dumps(values, indent=1) + "\n").encode())


def has_pip(folder: Path) -> bool:
    """Whether the environment's pip runs: it may have been stopped in the middle of putting in a newer one."""
    return ask([venv_python(folder), "-m", "pip", "--version"]).returncode == 0


def remove_half_installed(folder: Path) -> None:
    """Have pip put in again what it was putting in, or taking out, when it was stopped: its list of files comes last."""
    for packages in [*folder.glob("lib/python*/site-packages"), *folder.glob("Lib/site-packages")]:
        for entry in packages.iterdir():
            if entry.name.startswith("~") or (entry.suffix == ".dist-info" and not (entry / "RECORD").is_file()):
                remove(entry)


def make_venv(folder: Path, interpreter: str, is_cpu: bool) -> None:
    """Make an empty environment; an unfinished or outdated one of ours in its place is removed first."""
    is_ours = (folder / STAMP).exists() or (folder / UNFINISHED).exists()
    if folder.exists() and not is_ours and not (folder.is_dir() and not any(folder.iterdir())):
        advice = "Move it away, or name another folder: --venv DIR"
        raise UserError(f"{show(folder)} exists and was not made by install.py. {advice}")
    if folder.exists():
        say(f"      removing the {'old' if (folder / STAMP).exists() else 'unfinished'} one")
        # The mark goes last: a removal that is interrupted leaves a folder that is still known as ours.
        mark = folder / UNFINISHED
        mark.touch()
        for entry in folder.iterdir():
            if entry != mark:
                remove(entry)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / UNFINISHED).touch()
    free_gib, need_gib = shutil.disk_usage(folder).free / 2**30, FREE_GIB["cpu" if is_cpu else "gpu"]
    if free_gib < need_gib:
        advice = "Make room, or name another folder: --venv DIR"
        raise UserError(f"{free_gib:.1f} GiB are free at {show(folder)}, about {need_gib} GiB are needed. {advice}")
    made = ask([interpreter, "-m", "venv", str(folder)])
    if made.returncode or not venv_python(folder).exists():
        raise InstallError(f"{interpreter} -m venv {show(folder)} failed: {last_line(made.stdout + made.stderr)}")


def check_installed(python: Path, torch_version: str | None) -> str:
    """Import what is large and fragile.

    Returns:
        One line that names the versions.

    Raises:
        InstallError: it does not import, or torch is not the version that the constraints name.
    """
    code = "import torch, transformers; print(torch.__version__, transformers.__version__, torch.cuda.is_available())"
    found = ask([python, "-c", code])
    if found.returncode:
        raise InstallError(f"What was installed does not import: {last_line(found.stderr)}")
    torch, transformers, has_gpu = last_line(found.stdout).split()
    if torch_version and torch.partition("+")[0] != torch_version:
        advice = f"Remove {show(python.parent.parent)} and try again."
        raise InstallError(f"torch {torch} was installed but the constraints name {torch_version}. {advice}")
    return f"torch {torch}, transformers {transformers}, {'with' if has_gpu == 'True' else 'without'} a GPU"
