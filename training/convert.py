"""`python -m training convert`, under the name it had before `training.merge` was a package."""

from .merge.convert import main

__all__ = ["main"]
