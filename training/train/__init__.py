"""`python -m training train`: one stage of training, from a model folder to a model folder."""

from .run import Run, main

__all__ = ["Run", "main"]
