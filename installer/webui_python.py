"""A web UI's Python: which one it is, what is in it, what is added to it and taken out. No version of its own is moved."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import tempfile
from pathlib import Path

from . import interpreters, manifest, project
from .pip import QUIET, reason
from .processes import ask
from .webui import WebUI
from .words import InstallError, UserError, last_line

PLUGIN_NEEDS = ("torch", "transformers", "accelerate", "safetensors", "pillow", "sentencepiece")
OWN_ENVIRONMENTS = ("installer_files/env", "portable_env", "venv", ".venv", "env")
PYTHONS = ("bin/python", "bin/python3", "python.exe", "Scripts/python.exe")  # in an environment, whatever its kind
WEBUI_ADVICE = {
    "a file may not be written": "Check who owns the web UI's folder, and run the same command again",
    "the versions contradict each other": "No version of the web UI is moved here: update the web UI first",
}
PACKAGES = """
import json, re
from importlib import metadata
found = [(d.metadata["Name"], d.version) for d in metadata.distributions()]
print(json.dumps({re.sub("[-_.]+", "-", name).lower(): version for name, version in found if name}))
"""


def find(web: WebUI, named: str | None) -> str:
    """The Python that the web UI runs with.

    Raises:
        UserError: it cannot be found, or is not the web UI's.
    """
    if named:
        python = interpreters.find(named, web.root)
        if "gradio" not in packages_of(python):
            raise UserError(f"--python {named!r} is not the Python of a web UI: it has no gradio.")
        return python
    with contextlib.suppress(InstallError):  # a damaged manifest; the one that was named at an earlier installation
        recorded = manifest.read(web)
        if recorded and "gradio" in packages_of(recorded.python):
            return recorded.python
    own = [web.root / name for name in OWN_ENVIRONMENTS]
    active = [Path(os.environ[key]) for key in ("VIRTUAL_ENV", "CONDA_PREFIX") if os.environ.get(key)]
    with contextlib.suppress(OSError):
        lines = (Path.home() / ".conda" / "environments.txt").read_text(encoding="utf-8").splitlines()
        active += [Path(line) for line in lines if Path(line).name.startswith("textgen")]
    for folder in own + active:
        for python in (folder / name for name in PYTHONS):
            if python.is_file():
                gradio = packages_of(python).get("gradio", "")
                # An environment elsewhere is the web UI's when it has the web UI's own build of gradio.
                if gradio and (folder in own or "custom" in gradio):
                    return str(python)
    looked = ", ".join(OWN_ENVIRONMENTS)
    raise UserError(f"The web UI's Python was not found (looked in {looked}, and the active one). Name it: --python PATH")


def packages_of(python: str | Path) -> dict:
    """What is installed for a Python, name to version; empty when it does not run."""
    try:
        return json.loads(ask([python, "-c", PACKAGES], PYTHONNOUSERSITE="1", PYTHONPATH="").stdout)
    except (OSError, ValueError):
        return {}


def missing(packages: dict, python: str) -> list:
    """What the plugin needs and the web UI lacks, as requirements.

    Raises:
        UserError: what is there is too old or of the wrong kind; the web UI's versions are not ours to move.
    """
    for name in ("torch", "transformers"):
        if name not in packages:
            advice = (
                "It is a portable one with llama.cpp alone, whose own vision needs no plugin; the plugin needs the full web UI."
            )
            raise UserError(f"This web UI ({python}) has no {name}. {advice}")
    bounds = project.lower_bounds()
    for name in PLUGIN_NEEDS:
        if name in packages and project.numbers(packages[name]) < project.numbers(bounds[name]):
            advice = "No version of the web UI is moved here: update the web UI first."
            raise UserError(f"This web UI ({python}) has {name} {packages[name]}; {bounds[name]} or newer is needed. {advice}")
    return [f"{name}>={bounds[name]}" for name in PLUGIN_NEEDS if name not in packages]


def plan(python: str, needed: list, packages: dict) -> dict:
    """What pip would add so that `needed` is there and nothing moves: name to version."""
    if not needed:
        return {}
    found = _install(python, ["--dry-run", "--quiet", "--report", "-", *needed], packages)
    items = [item["metadata"] for item in json.loads(found.stdout)["install"]]
    return {re.sub("[-_.]+", "-", item["name"]).lower(): item["version"] for item in items}


def add(python: str, needed: list, packages: dict) -> None:
    """Add `needed`, and look that nothing that was there before has moved.

    Raises:
        InstallError: pip failed, or something has moved.
    """
    if not needed:
        return
    _install(python, needed, packages)
    after = packages_of(python)
    moved = [f"{name} {packages[name]} -> {after.get(name)}" for name in packages if after.get(name) != packages[name]]
    if moved:
        raise InstallError(f"pip moved what was there: {', '.join(moved)}. Put it back: {python} -m pip install NAME==VERSION")


def take_back(python: str, added: dict) -> list:
    """Remove the packages that were added; what has another version by now stays.

    Returns:
        What is left, a sentence each.
    """
    there = packages_of(python) if added else {}
    ours = [name for name, version in added.items() if there.get(name) == version]
    if ours:
        found = ask([python, "-m", "pip", "uninstall", "--yes", *QUIET, *ours])
        if found.returncode:
            return [f"the packages {', '.join(ours)} (pip: {last_line(found.stderr)})"]
    return [f"the package {name} is now {there[name]}" for name in added if name in there and name not in ours]


def _install(python: str, arguments: list, packages: dict) -> subprocess.CompletedProcess:
    """`pip install` with every version that is there held in its place."""
    with tempfile.TemporaryDirectory() as folder:
        held = Path(folder) / "held.txt"
        held.write_text("".join(f"{name}=={version}\n" for name, version in packages.items()), encoding="utf-8")
        command = [python, "-m", "pip", "install", *QUIET, "--constraint", str(held), *arguments]
        found = ask(command, PIP_USER="0", PYTHONNOUSERSITE="1")
    if found.returncode:
        why = reason(found.stdout + found.stderr, WEBUI_ADVICE)
        raise InstallError(f"pip could not install into the web UI's Python: {why}")
    return found
