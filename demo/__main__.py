"""`python -m demo`: the chat page, questions on the terminal or in a file, and the score of the shipped model."""

from __future__ import annotations

import importlib
import sys

from pipelines.own_python import hand_over

VERBS = {
    "page": ("demo.page", "the chat page (also without a verb)"),
    "ask": ("demo.ask", "ask about pictures on the terminal"),
    "batch": ("demo.batch", "answer a file of questions about a folder of pictures"),
    "rows": ("demo.rows", "write the held-out questions as rows with their pictures"),
    "score": ("demo.score", "how well a model does on held-out pictures of the tiny world"),
}


def main(argv: list[str] | None = None) -> int:
    """Run a verb; without one, the page."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] in (["-h"], ["--help"]):
        print("usage: python -m demo [VERB] [flags]\n")
        print("\n".join(f"  {verb:6} {what}" for verb, (_, what) in VERBS.items()))
        print("\nFlags of a verb: python -m demo VERB --help")
        return 0
    verb = argv[0] if argv and not argv[0].startswith("-") else None
    if verb is not None and verb not in VERBS:
        print(f"python -m demo: unknown verb {verb!r}. Available: {', '.join(VERBS)}.", file=sys.stderr)
        return 2
    module, _ = VERBS[verb or "page"]
    return importlib.import_module(module).main(argv[verb is not None :])


if __name__ == "__main__":
    hand_over("demo")
    sys.exit(main())
