"""`python -m serving VERB ...`: what serves a model beside an engine."""

from __future__ import annotations

import importlib
import sys

from pipelines.own_python import hand_over

VERBS = {
    "embed": ("serving.embed", "messages with pictures to prompt embeddings, for an engine that has the language model alone")
}
"""Verb -> (module with `main(argv) -> int`, a line for the user)."""


def main(argv: list[str] | None = None) -> int:
    """Run a verb; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] in (["-h"], ["--help"]):
        print("usage: python -m serving VERB [flags]\n")
        print("\n".join(f"  {verb:6} {what}" for verb, (_, what) in VERBS.items()))
        print("\nFlags of a verb: python -m serving VERB --help. The plugin for vLLM needs no command: docs/serving.md")
        return 0
    if not argv or argv[0] not in VERBS:
        given = f"unknown verb {argv[0]!r}" if argv else "no verb given"
        print(f"python -m serving: {given}. Available: {', '.join(VERBS)}.", file=sys.stderr)
        return 2
    return importlib.import_module(VERBS[argv[0]][0]).main(argv[1:])


if __name__ == "__main__":
    hand_over("serving")
    sys.exit(main())
