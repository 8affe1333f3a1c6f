"""`python -m training <verb> ...`: the verbs, imported when they are asked for."""

from __future__ import annotations

import importlib
import logging
import sys

from pipelines.own_python import hand_over

VERBS = {
    "new": (".new", "put a vision encoder before a language model, to begin with"),
    "train": (".train", "train a model, or an adapter for it, from a configuration file"),
    "data": (".data.commands", "convert, check, look at and count data to learn from"),
    "evaluate": (".evaluate", "ask a model the questions of test sets, score it, show it on one page"),
    "merge": (".merge", "put a language model, a vision model and adapters into one folder"),
    "convert": (".merge.convert", "write a model or an adapter in another layout"),
}
"""Verb -> (module with `main(argv) -> int`, a line for the user)."""


def main(argv: list[str] | None = None) -> int:
    """Run a verb; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    width = max(map(len, VERBS))
    usage = "\n".join(
        ["usage: python -m training VERB ...", *(f"  {verb:{width}}  {line}" for verb, (_, line) in VERBS.items())]
    )
    if argv[:1] in (["-h"], ["--help"]):
        print(usage)
        return 0
    if not argv or argv[0] not in VERBS:
        given = f"Unknown verb {argv[0]!r}" if argv else "No verb given"
        print(f"{given}. Available: {', '.join(VERBS)}. Each explains itself: python -m training VERB --help", file=sys.stderr)
        return 2
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # imported by peft, it warns of kernels nobody asked for
    return importlib.import_module(VERBS[argv[0]][0], __package__).main(argv[1:])


if __name__ == "__main__":
    hand_over("training")
    sys.exit(main())
