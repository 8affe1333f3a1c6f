"""The plugin goes into a web UI: a copy with `pipelines/` inside the extension's own folder, or a link to this checkout."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from . import files, manifest, project, settings_yaml
from .files import draft_of, hash_of, is_link_to, linked_folder, names_in
from .manifest import Manifest
from .webui import EXTENSION, WebUI, absolute
from .words import UserError, quote, say

FOR_USER_DATA = {"instruction-templates": "template", "presets": "preset"}
"""Folders of the plugin whose files the web UI looks for in user_data, and what such a file is."""


class Put:
    """What is to be put is decided at once; `begin` writes it down, and `finish` does it.

    A file that was put is known by its content: whatever has other content is the user's.

    Args:
        web: where.
        is_system: into extensions/ instead of user_data/extensions/.
        is_link: link to this checkout instead of copying.
        model: a model folder to link into user_data/models.
        is_enabled: switch the extension on at every start.

    Attributes:
        notes: what the user should know, a sentence each.

    Raises:
        UserError: something else is in the way, or `model` is no model folder.
    """

    def __init__(self, web: WebUI, is_system: bool, is_link: bool, model: str | None, is_enabled: bool) -> None:
        self.web, self.is_link = web, is_link
        self.source = project.ROOT / "extensions" / EXTENSION
        if not (self.source / "script.py").is_file():
            raise UserError(f"{self.source} is not there: this checkout is not whole.")
        self.target = web.extension_folder(is_system)
        self.own = web.name(self.target)
        self.old = manifest.read(web) or Manifest()
        self._check_place()
        if is_link:
            self._check_link()
        self.notes = []
        self.models = self._model_link(model) if model else {}
        self.settings = settings_yaml.enabling(web) if is_enabled else None
        self.inside = {} if is_link else self._files_inside()
        self.outside = self._files_outside()
        self.links = {**self.old.links, **self.models, **({self.own: str(self.source)} if is_link else {})}
        hidden = web.extension_folder(True)
        if self.target != hidden and hidden in web.extension_folders():
            self.notes.append(f"{web.name(hidden)} is there too; the web UI takes the one in user_data")

    def _check_place(self) -> None:
        if self.old.extension not in ("", self.own):
            other = f"It is installed in {self.old.extension}. Take it out first: {self.web.command('uninstall')}"
            raise UserError(other)
        places = [self.web.extension_folder(False)]  # what is there would hide what is in extensions/
        places += [self.target] if self.target not in places else []
        if self.old.extension and (linked_folder(self.target) is None or self._is_own_link()):
            places.remove(self.target)
        foreign = [path for path in places if path in self.web.extension_folders()]
        if foreign:
            advice = "Another extension of that name, or put there by hand: move it away, and run the same command again."
            raise UserError(f"{foreign[0]} exists and was not put there by install.py. {advice}")

    def _check_link(self) -> None:
        strangers = self._users_files(self.old.files)
        if strangers:
            raise UserError(f"{self.target} holds files of yours, such as {strangers[0]!r}. Move them away before --link.")

    def _users_files(self, known: dict) -> list:
        """What there is in the extension's folder with other content than the manifest knows."""
        there = names_in(self.target) if linked_folder(self.target) is None else []
        hashes = {name: known.get(self.web.name(self.target / name)) for name in there}
        return [name for name in there if not hashes[name] or hash_of(self.target / name) not in hashes[name]]

    def _is_own_link(self) -> bool:
        return any(is_link_to(self.target, folder) for folder in (str(self.source), self.old.links.get(self.own, "")))

    def _model_link(self, model: str) -> dict:
        """The link that shows a model folder to the web UI: its name to the folder; empty when it is there already."""
        folder = absolute(model)
        if not (folder / "config.json").is_file():
            advice = "See: python install.py doctor FOLDER"
            raise UserError(f"--model {model!r} is no model folder: it has no config.json. {advice}")
        link = self.web.models / (folder.name if folder.name != "model" else f"{folder.parent.name}-model")
        if os.path.lexists(str(link)):
            if link.exists() and link.samefile(folder):
                return {}
            name = self.web.name(link)
            raise UserError(f"{name} is another model. Rename {str(folder)!r}, or move the other one away.")
        if not (folder / "vision" / "config.json").is_file():
            advice = f"See: python install.py doctor {quote(str(folder))}"
            self.notes.append(f"{folder.name} has no eyes in vision/. {advice}")
        return {self.web.name(link): str(folder)}

    def _files_inside(self) -> dict:
        """What goes into the extension's folder: name there to source."""
        pipelines = project.ROOT / "pipelines"
        inside = {name: self.source / name for name in names_in(self.source)}
        return {**inside, **{f"pipelines/{name}": pipelines / name for name in names_in(pipelines)}}

    def _files_outside(self) -> dict:
        """What goes into user_data besides: name from the web UI's folder to source."""
        outside = {}
        for source in (self.source / name for name in names_in(self.source) if name.split("/")[0] in FOR_USER_DATA):
            place = self.web.user_data / source.relative_to(self.source)
            name, there = self.web.name(place), hash_of(place)
            if there is None or there in self.old.files.get(name, ()):
                outside[name] = source
            elif there != hash_of(source):
                self.notes.append(f"{name} is there with other content and stays as it is")
        return outside

    def lines(self, packages: dict) -> list:
        """What will be done, with `packages` (name to version) added: title and text of each line."""
        kinds = {name: FOR_USER_DATA[source.relative_to(self.source).parts[0]] for name, source in self.outside.items()}
        return [
            ("extension", f"{self.own} ({'a link to this checkout' if self.is_link else 'a copy'})"),
            ("packages", ", ".join(f"{name} {packages[name]}" for name in sorted(packages)) or "nothing is missing"),
            *((kinds[name], name) for name in sorted(kinds)),
            *(("model", f"{name} -> {folder}") for name, folder in self.models.items()),
            *([("enable", f"in {self.web.name(self.web.settings)}")] if self.settings else []),
            *(("note", sentence) for sentence in self.notes),
        ]

    def begin(self, python: str, packages: dict) -> None:
        """Write down all that will be there, before it is: what is interrupted can be finished, or taken out."""
        inside = {self.web.name(self.target / name): source for name, source in self.inside.items()}
        self.new = {name: [hash_of(source)] for name, source in {**inside, **self.outside}.items()}
        paths = [self.web.manifest, self.target, *map(self.web.place, [*self.outside, *self.links])]
        missing = {self.web.name(up) for path in paths for up in path.parents if self.web.root != up and not up.exists()}
        both = {**self.old.files, **self.new}
        self.manifest = Manifest(
            version=project.version(),
            unfinished=True,
            extension=self.own,
            files={name: sorted({*self.old.files.get(name, []), *self.new.get(name, [])}) for name in both},
            links=self.links,
            folders=sorted({*self.old.folders, *missing}),
            packages={**self.old.packages, **packages},
            python=python,
            settings=self.settings or self.old.settings,
        )
        manifest.write(self.web, self.manifest)

    def finish(self) -> None:
        """Put everything in its place."""
        recover(self.target)
        self._link() if self.is_link else self._copy()
        for name, source in self.outside.items():
            files.write(self.web.place(name), source.read_bytes())
        for name, folder in self.models.items():
            files.make_link(self.web.place(name), folder)
        if self.settings:
            settings_yaml.write(self.web, self.settings["text"])
        known = self.manifest.files
        gone = [name for name in known if name not in self.new and hash_of(self.web.place(name)) is None]
        left = {name: self.new.get(name, hashes) for name, hashes in known.items() if name not in gone}
        # A link of an earlier installation may have become a copy, and the user may have removed one.
        links = {name: folder for name, folder in self.links.items() if is_link_to(self.web.place(name), folder)}
        manifest.write(self.web, dataclasses.replace(self.manifest, unfinished=False, files=left, links=links))

    def _copy(self) -> None:
        """Make the new folder beside the old one, with what the user has in there, then change places."""
        fresh = draft_of(self.target) / "new"
        for name, source in self.inside.items():
            files.write(fresh / name, source.read_bytes())
        for name in self._users_files(self.manifest.files):
            kept = name
            while kept in self.inside or (fresh / kept).exists() or (kept != name and (self.target / kept).exists()):
                kept += ".yours"
            if kept != name:
                say(f"  note          {name} was changed by you: your version is kept as {kept}")
            files.copy(self.target / name, fresh / kept)
        if os.path.lexists(str(self.target)):
            os.rename(str(self.target), str(draft_of(self.target) / "old"))
        os.rename(str(fresh), str(self.target))
        files.remove(draft_of(self.target))

    def _link(self) -> None:
        if is_link_to(self.target, str(self.source)):
            return
        self._check_link()
        if os.path.lexists(str(self.target)):
            draft_of(self.target).mkdir(exist_ok=True)
            os.rename(str(self.target), str(draft_of(self.target) / "old"))
        files.make_link(self.target, str(self.source))
        files.remove(draft_of(self.target))


def recover(target: Path) -> None:
    """Clear away what an interrupted `finish` left; the old folder goes back when there is no new one yet."""
    aside = draft_of(target) / "old"
    if os.path.lexists(str(aside)) and not os.path.lexists(str(target)):
        os.rename(str(aside), str(target))
    files.remove(draft_of(target))
