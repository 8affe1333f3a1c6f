"""Which versions made something: what model cards say, and what a merge that goes on has to agree with."""

import importlib.metadata
from collections.abc import Sequence


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Package -> its installed version, or "from source" where it is not installed as a package."""
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "from source"
    return found
