"""`pip install` into the project's environment: condensed on the screen, whole in a log, and why it failed in a sentence."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from . import lock, project
from .interpreters import EXAMPLE
from .processes import SPEAK_UTF8, stopping
from .words import InstallError, last_line

LOG = "multimodal-vcla.log"  # all that pip said, in the environment's folder
NEWER_PIP = "pip>=24.1"  # the first that reports its progress to a program
QUIET = ["--no-input", "--disable-pip-version-check"]


def install(python: Path, arguments: list, what: str) -> None:
    """Run `pip install` in the environment, condensed on the screen and whole in the log.

    Raises:
        InstallError: pip failed; the message says why, as far as pip's words tell it.
    """
    command = [str(python), "-m", "pip", "install", *QUIET]
    if NEWER_PIP not in arguments:
        command.append("--progress-bar=raw")
    words, progress = [], Progress(sys.stdout)
    log = python.parent.parent / LOG
    with open(log, "a", encoding="utf-8") as file:
        file.write(f"\n$ {' '.join(command + arguments)}\n")
        process = subprocess.Popen(
            command + arguments,
            cwd=str(project.ROOT),
            env={**os.environ, **SPEAK_UTF8, "PIP_USER": "0", "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            pass_fds=lock.inherited,
        )
        with stopping(process):
            for line in process.stdout:
                if not line.startswith("Progress "):
                    file.write(line)
                    words.append(line)
                progress.feed(line)
            status = process.wait()
    progress.end()
    if status:
        raise InstallError(f"pip could not install {what}: {reason(''.join(words), OWN_ADVICE)} (all that pip said: {log})")


class Progress:
    """Says what pip is doing: one line that is written over in a terminal, a line now and then elsewhere."""

    EVERY_S = 15

    def __init__(self, stream) -> None:
        self.stream = stream
        self.is_terminal = stream.isatty()
        self.item, self.written_at = "", time.monotonic()

    def feed(self, line: str) -> None:
        """Take one line of pip's output."""
        if re.match(r"Progress \d+ of \d+", line):
            done, total = (int(number) for number in re.findall(r"\d+", line)[:2])
            is_due = total > 20e6 and time.monotonic() - self.written_at > self.EVERY_S
            self.show(f"{self.item}: {100 * done // max(total, 1)} %", is_news=is_due)
            return
        match = re.match(r"\s*(Collecting|Downloading|Using cached|Installing collected packages:)\s+(.*)", line)
        if not match:
            return
        verb, rest = match.groups()
        if verb.startswith("Installing"):
            count = rest.count(",") + 1
            self.show(f"unpacking {count} package{'s' * (count > 1)}", is_news=True)
        elif verb == "Collecting":
            self.show(f"looking for {re.split('[^A-Za-z0-9._-]', rest)[0]}")
        elif not rest.split(" ")[0].endswith(".metadata"):
            self.item = f"{verb.lower()} {rest.rpartition('/')[2]}"
            self.show(self.item, is_news=re.search(r"\((\d{2,}(\.\d+)? MB|[\d.]+ GB)", rest) is not None)

    def show(self, text: str, is_news: bool = False) -> None:
        """Show a line; where lines cannot be written over, only when it is news."""
        if self.is_terminal:
            width = shutil.get_terminal_size().columns - 1
            self.stream.write("\r" + f"      {text}"[:width].ljust(width))
        elif is_news:
            self.stream.write(f"      {text}\n")
            self.written_at = time.monotonic()
        self.stream.flush()

    def end(self) -> None:
        """Wipe the line."""
        if self.is_terminal:
            self.stream.write("\r" + " " * (shutil.get_terminal_size().columns - 1) + "\r")
            self.stream.flush()


# The first that fits counts: without a network pip ends with versions that it could not find or that do not fit together.
REASONS = {
    "the disk is full. Make room and run the same command again": r"No space left on device|Errno 28\b"
    r"|not enough space on the disk",
    "a file may not be written": r"Errno 13\b|Permission denied|Read-only file system|Access is denied",
    "the package index showed a certificate that is not trusted here (a company proxy?). "
    "Set PIP_CERT to its file": r"CERTIFICATE_VERIFY_FAILED|SSLError",
    "no network, or the package index does not answer (pip tried several times). Check the connection (behind a proxy: set "
    "HTTPS_PROXY) and run the same command again; what was downloaded is kept": r"name resolution|Name or service not known"
    r"|getaddrinfo failed|nodename nor servname|Failed to resolve|NewConnectionError|Failed to establish a new connection"
    r"|Network is unreachable|Connection refused|ConnectionError|Connect(ion )?[Tt]ime(d )?out|Read timed out|ReadTimeout"
    r"|ProxyError|Connection broken|Remote end closed",
    "the versions contradict each other": r"Cannot install .* conflicting dependencies|ResolutionImpossible",
    "no build for this Python and system": r"No matching distribution found|Could not find a version that satisfies",
}
OWN_ADVICE = {
    "a file may not be written": "Check who owns the project's folder, or name another one: --venv DIR",
    "the versions contradict each other": "Use the constraints.txt of this checkout",
    "no build for this Python and system": f"Try another Python: --python {EXAMPLE}",
}
"""What helps in the project's own environment, and would not in another."""


def reason(words: str, advice: dict) -> str:
    """Why pip failed, with what to do, from what it said.

    Args:
        words: all that pip said.
        advice: what to do about some of `REASONS`, where that depends on the environment.
    """
    for text, pattern in REASONS.items():
        match = re.search(pattern, words)
        if match:
            said = words[match.start() :].partition("\n")[0].strip()[:160]
            return ". ".join([text, *([advice[text]] if text in advice else []), f"pip said: {said}"])
    errors = re.findall(r"^\s*(?:ERROR|error): (.+)$", words, re.MULTILINE)
    return errors[0].strip() if errors else last_line(words)
