"""The configuration of a training run, under the name it had before `training.train` was a package."""

from .train.config import Arguments, Recipe, parse, resolved

__all__ = ["Arguments", "Recipe", "parse", "resolved"]
