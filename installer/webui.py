"""A text-generation-webui on this machine: whether it is one, and where its things are. Only looks, changes nothing."""

from __future__ import annotations

import os
from pathlib import Path

from . import project
from .processes import ask
from .words import UserError, quote, show

EXTENSION = "multimodal_vcla"
TESTED_WEBUI = ("v4.9", "v4.7")


class WebUI:
    """The places of a web UI.

    Args:
        folder: the one with server.py.
        user_data: its user_data, when that is not where the web UI looks by itself.

    Raises:
        UserError: it is none, or one that is too old for extensions in user_data.
    """

    def __init__(self, folder: str, user_data: str | None = None) -> None:
        self.root = absolute(folder)
        if not self.is_one(self.root):
            inside = [path for path in (self.root / "app", self.root / "text-generation-webui") if self.is_one(path)]
            advice = f"Did you mean {str(inside[0])!r}?" if inside else "Name the folder that holds them."
            raise UserError(
                f"{folder!r} is no text-generation-webui: server.py and modules/extensions.py are not there. {advice}"
            )
        places = [self.root / "user_data"]
        if (self.root / "portable_env").exists():
            places = [self.root.parent.parent / "user_data", self.root.parent / "user_data", *places]
        if user_data:
            places = [absolute(user_data)]
        found = [place for place in places if place.is_dir()]
        if not found:
            advice = "It is too old for the plugin: update it. Or its user_data is elsewhere: --user-data-dir DIR"
            raise UserError(f"{show(self.root)} has no folder {places[-1].name!r}. {advice}")
        self.user_data = found[0]
        self.models = self.user_data / "models"
        self.settings = self.user_data / "settings.yaml"
        self.flags = self.user_data / "CMD_FLAGS.txt"
        self.manifest = self.user_data / "extensions" / (EXTENSION + ".json")

    @staticmethod
    def is_one(folder: Path) -> bool:
        """Whether a folder is a web UI's."""
        return (folder / "server.py").is_file() and (folder / "modules" / "extensions.py").is_file()

    def extension_folder(self, is_system: bool) -> Path:
        """The extension's folder: in user_data, where the web UI looks first, or in extensions/."""
        return (self.root if is_system else self.user_data) / "extensions" / EXTENSION

    def extension_folders(self) -> list:
        """Where the extension is, whoever put it there; the web UI takes the first."""
        return [path for path in map(self.extension_folder, (False, True)) if os.path.lexists(str(path))]

    def name(self, path: Path) -> str:
        """A path from the web UI's folder, so that this may be moved."""
        try:
            return path.relative_to(self.root).as_posix()
        except ValueError:
            return str(path)

    def place(self, name: str) -> Path:
        """The path of a name."""
        return self.root / name

    def version(self) -> str | None:
        """Its newest tag, as git knows it; None for a copy without git."""
        if not (self.root / ".git").exists():
            return None
        try:
            found = ask(["git", "-C", str(self.root), "describe", "--tags", "--always"])
        except OSError:
            return None
        return found.stdout.strip() or None

    def command(self, verb: str) -> str:
        """A command of ours about this web UI, ready to be pasted."""
        return f"python {quote(show(project.ROOT / 'install.py'))} {verb} {quote(show(self.root))}"


def absolute(folder: str) -> Path:
    """A folder as the user named it, from the root; links in it stay."""
    return Path(os.path.abspath(os.path.expanduser(folder)))
