"""`python -m training merge` and `convert`: a language model, a vision model and adapters become one folder, tensor by tensor."""

from .command import main

__all__ = ["main"]
