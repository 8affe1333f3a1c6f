"""The command line: verbs and their flags; a mistake or a failure is one line and an exit status."""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import platform
import signal
import sys
from typing import Callable, NamedTuple

from . import project, verbs
from .words import InstallError, UserError


class Verb(NamedTuple):
    """What a verb does, with which of `FLAGS`, and whether it passes further arguments on."""

    do: Callable[[argparse.Namespace], int]
    flags: list
    passes_on: bool = False


FLAGS = {
    "folder": {"metavar": "DIR", "help": "the web UI's folder: the one with server.py"},
    "folders": {"metavar": "FOLDER", "nargs": "*", "help": "folders of web UIs or of models"},
    "--user-data-dir": {"metavar": "DIR", "help": "the web UI's user_data, when it is started with --user-data-dir"},
    "--system": {"action": "store_true", "help": "into extensions/ instead of user_data/extensions/"},
    "--link": {"action": "store_true", "help": "link to this checkout instead of copying: the plugin follows it"},
    "--enable": {"action": "store_true", "help": "switch it on at every start (default_extensions in settings.yaml)"},
    "--model": {"metavar": "FOLDER", "help": "link this model folder into user_data/models"},
    "--dry-run": {"action": "store_true", "help": "say what would be done, and do nothing"},
    "--json": {"action": "store_true", "help": "for programs"},
    "--cpu": {"action": "store_true", "help": "leave an NVIDIA GPU alone: PyTorch without CUDA"},
    "--python": {
        "metavar": "PYTHON",
        "help": "the interpreter (a path or a name): the web UI's, or the one to make .venv with",
    },
    "--venv": {
        "metavar": "DIR",
        "default": str(project.ROOT / ".venv"),
        "help": "the environment (default: .venv beside install.py)",
    },
    "--constraints": {
        "metavar": "FILE",
        "default": str(project.ROOT / "constraints.txt"),
        "help": "the versions to install (default: constraints.txt, the set that was tested)",
    },
    "--port": {"type": int, "metavar": "N", "help": "the port of the page"},
    "--no-browser": {"action": "store_true", "help": "do not open a browser window"},
}
ENVIRONMENT_FLAGS = ["--cpu", "--python", "--venv", "--constraints"]
PLACES = ["--system", "--link", "--dry-run", "--python", "--user-data-dir"]
VERBS = {
    "demo": Verb(verbs.demo, ["--port", "--no-browser", *ENVIRONMENT_FLAGS], passes_on=True),
    "test": Verb(verbs.test, ENVIRONMENT_FLAGS, passes_on=True),
    "webui": Verb(verbs.webui, ["folder", "--enable", "--model", *PLACES]),
    "uninstall": Verb(verbs.uninstall, ["folder", "--dry-run", "--user-data-dir"]),
    "doctor": Verb(verbs.doctor, ["folders", "--json", "--python", "--user-data-dir"]),
}


class Parser(argparse.ArgumentParser):
    """Reports a wrong argument as every other mistake: in one line."""

    def error(self, message: str) -> None:
        raise UserError(f"{message}. See: python install.py --help")


def parse(arguments: list) -> argparse.Namespace:
    """Read the command line.

    Returns:
        The options; among them `verb`, and `rest`, the arguments that the verb passes on.

    Raises:
        UserError: something in it is wrong.
    """
    text = "One command for the project itself, and for the plugin in a text-generation-webui."
    parser = Parser(prog="install.py", description=text, allow_abbrev=False)
    subparsers = parser.add_subparsers(dest="verb", metavar="VERB", parser_class=Parser)
    for name, verb in VERBS.items():
        text = verb.do.__doc__.splitlines()[0]
        subparser = subparsers.add_parser(name, help=text, description=text, allow_abbrev=False)
        for flag in verb.flags:
            subparser.add_argument(flag, **FLAGS[flag])
    options, rest = parser.parse_known_args(arguments)
    if options.verb is None:
        parser.error(f"say what to do: {', '.join(VERBS)}")
    if rest and not VERBS[options.verb].passes_on:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    options.rest = [argument for argument in rest if argument != "--"]
    return options


def main(arguments: list | None = None) -> int:
    """Run a verb; a mistake or a failure becomes one line on stderr and an exit status."""
    with contextlib.suppress(ValueError):  # only the main thread may do this
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):  # it is no file
            stream.reconfigure(errors="backslashreplace")  # a path may have letters that the output cannot show
    try:
        options = parse(sys.argv[1:] if arguments is None else arguments)
        return VERBS[options.verb].do(options)
    except InstallError as error:
        message, status = str(error), error.status
    except KeyboardInterrupt:
        message, status = "Interrupted. Run the same command again: it goes on where this one stopped.", 130
    except OSError as error:
        message, status = f"{error}. {advice_for(error, options.verb)}", 1
    print(f"install.py: {message}", file=sys.stderr, flush=True)
    return status


def advice_for(error: OSError, verb: str) -> str:
    """What to do about an error of the file system."""
    if error.errno == errno.ENOSPC:
        return "The disk is full: make room and run the same command again."
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        owner = "check who owns it" + (", or end the program that uses it" if os.name == "nt" else "")
        other = ", or name another one: --venv DIR" if verb in ("demo", "test") else ", and run the same command again"
        return f"The folder may not be written: {owner}{other}"
    return f"Python {platform.python_version()} on {platform.platform()}."
