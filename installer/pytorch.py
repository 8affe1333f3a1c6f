"""PyTorch: the build without CUDA where no GPU would use it."""

from __future__ import annotations

import contextlib
import shutil
import sys
import threading
import urllib.request
from pathlib import Path

from . import pip, project
from .words import InstallError, say

CPU_INDEX = "https://download.pytorch.org/whl/cpu"
CPU_INDEX_TIMEOUT_S = 5


def install(python: Path, constraints: Path, is_cpu: bool) -> None:
    """Install PyTorch before all else, without gigabytes of CUDA where no GPU would use them.

    Only Linux needs the other index for that: elsewhere the ordinary one has no CUDA in it.
    """
    version = project.pinned_version(constraints, "torch")
    ordinary = ["torch" + (f"=={version}" if version else ""), "--constraint", str(constraints)]
    if is_cpu and sys.platform == "linux":
        if is_reachable(f"{CPU_INDEX}/torch/"):
            # An index beside the ordinary one: it serves torch, the rest comes from where it always comes from.
            exact = f"torch=={version}+cpu" if version else "torch"
            try:
                return pip.install(python, [exact, "--extra-index-url", CPU_INDEX, *ordinary[1:]], "PyTorch for the CPU")
            except InstallError as error:
                say(f"      {error}")
                say("      taking PyTorch from the ordinary index instead")
        else:
            say("      PyTorch's index of CPU builds cannot be reached; taking the ordinary one (may be larger)")
    if sys.platform == "win32" and not is_cpu:
        say("      this is PyTorch without CUDA, as the ordinary index has it for Windows; the other: pytorch.org")
    pip.install(python, ordinary, "PyTorch")


def has_nvidia_gpu() -> bool:
    """Whether a GPU's driver is there, before anything is installed that could ask it."""
    return bool(shutil.which("nvidia-smi")) or Path("/proc/driver/nvidia/version").exists()


def is_reachable(url: str) -> bool:
    """Whether an address answers soon. In a thread, because looking up a name knows no time limit."""
    answers = []

    def knock() -> None:
        with contextlib.suppress(Exception):  # whatever went wrong, it did not answer
            request = urllib.request.Request(url, method="HEAD")
            with urllib.request.urlopen(request, timeout=CPU_INDEX_TIMEOUT_S) as answer:
                answers.append(answer.status)

    thread = threading.Thread(target=knock, daemon=True)
    thread.start()
    thread.join(CPU_INDEX_TIMEOUT_S)
    return bool(answers)
