"""`python -m training data <command> ...`: the commands, imported when they are asked for."""

import argparse
import importlib
import sys

COMMANDS = {
    "convert": "published formats, and your own table and folder of pictures, to rows",
    "generate": "instructions about pictures, true and misleading, written by a language model from dense captions",
    "validate": "read every row and open every picture; name what is wrong",
    "preview": "show rows as the model is taught them, in the terminal or as a page",
    "stats": "count tokens, turns, pictures and padding",
}
"""Command -> a line for the user; its module has `add_arguments(parser)` and `run(arguments) -> int`."""


def main(argv: list[str]) -> int:
    """Run a command; returns the exit status: 0 good, 1 the data has mistakes, 2 the command has."""
    parser = argparse.ArgumentParser(prog="python -m training data", allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    asked = argv[0] if argv and argv[0] in COMMANDS else None
    for name, line in COMMANDS.items():
        command = commands.add_parser(name, help=line, description=line, allow_abbrev=False)
        if name == asked:
            module = importlib.import_module(f".{name}", __package__)
            module.add_arguments(command)
    arguments = parser.parse_args(argv)
    try:
        return module.run(arguments)
    except (OSError, ValueError) as error:
        print(f"training: {error}", file=sys.stderr)
        return 2
