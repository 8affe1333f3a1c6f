"""How well a model sees: the field's test sets and your own rows, answered, scored, and shown on one page.

command.py is the command line, tasks/ what is asked and how it is scored (a file per task), models.py who answers, run.py the
asking itself (batched, resumable), results.py what comes out, report.py the page, gavie.py a judge, votes.py people as judges.
"""

from .command import main

__all__ = ["main"]
