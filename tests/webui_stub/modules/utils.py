from pathlib import Path

from . import shared


def resolve_model_path(name):
    return Path(shared.args.model_dir) / name
