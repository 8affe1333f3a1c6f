"""What was put into a web UI: written before anything is put in, so that all of it can be finished or taken out."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field

from . import files
from .webui import WebUI
from .words import InstallError


@dataclass
class Manifest:
    """Names are paths from the web UI's folder; a path elsewhere is written out.

    Attributes:
        version: the project's.
        unfinished: whether something may not be in its place yet.
        extension: name of the extension's folder.
        files: name to the hashes of what was put there, of an older version too while it is replaced. Whatever has other
            content is the user's.
        links: name to the folder that the link leads to.
        folders: names of the folders that had to be made.
        packages: what was added to `python`, name to version.
        python: the web UI's interpreter.
        settings: what settings.yaml held `before` and the `text` that replaced it; None where it was left alone.
    """

    version: str = ""
    unfinished: bool = False
    extension: str = ""
    files: dict = field(default_factory=dict)
    links: dict = field(default_factory=dict)
    folders: list = field(default_factory=list)
    packages: dict = field(default_factory=dict)
    python: str = ""
    settings: dict | None = None


def read(web: WebUI) -> Manifest | None:
    """What was put in; None when nothing was.

    Raises:
        InstallError: it cannot be read.
    """
    try:
        return Manifest(**json.loads(web.manifest.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        advice = f"Delete it and {web.name(web.extension_folder(False))}, and install again."
        raise InstallError(f"{web.manifest} is damaged ({error}). {advice}") from error


def write(web: WebUI, manifest: Manifest) -> None:
    """Write it down, in the place of an older one."""
    files.write(web.manifest, (json.dumps(dataclasses.asdict(manifest), indent=1) + "\n").encode())
