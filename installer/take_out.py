"""The plugin goes out of a web UI: exactly what the manifest names; what the user changed stays."""

from __future__ import annotations

import contextlib
import os

from . import files, settings_yaml, webui_python
from .files import hash_of, is_link_to, linked_folder, names_in
from .manifest import Manifest
from .put import recover
from .webui import WebUI


def take_out(web: WebUI, manifest: Manifest) -> list:
    """Remove what the manifest names, and the manifest after all else.

    Returns:
        What is left because the user changed it or put it there, a sentence each.
    """
    target = web.place(manifest.extension)
    recover(target)
    left = settings_yaml.disable(web, manifest.settings) if manifest.settings else []
    left += _links(web, manifest.links)
    left += _files(web, manifest.files)
    if target.is_dir() and linked_folder(target) is None:
        for cache in list(target.rglob("__pycache__")):
            files.remove(cache)
        strangers = [name for name in names_in(target) if web.name(target / name) not in manifest.files]
        left += [f"{web.name(target / name)} was put there by somebody else" for name in strangers]
        files.remove_empty(target)
    still_on = settings_yaml.enabled_in(web)
    left += [f"{still_on} still switches it on: take its name out of there"] if still_on else []
    left += webui_python.take_back(manifest.python, manifest.packages)
    for path in (web.settings, web.manifest):
        files.discard_draft(path)
    files.remove(web.manifest)
    for name in sorted(manifest.folders, key=len, reverse=True):
        with contextlib.suppress(OSError):
            web.place(name).rmdir()
    return left


def preview(web: WebUI, manifest: Manifest) -> list:
    """What `take_out` would do, and changes nothing: title and text of each line."""
    inside, going, staying = manifest.extension + "/", [], []
    for name, hashes in manifest.files.items():
        there = hash_of(web.place(name))
        if there is not None:
            (going if there in hashes else staying).append(name)
    for name, folder in manifest.links.items():
        if os.path.lexists(str(web.place(name))):
            (going if is_link_to(web.place(name), folder) else staying).append(name)
    count = sum(name.startswith(inside) for name in going)
    return [
        *([("remove", f"{manifest.extension} ({count} files)")] if count else []),
        *(("remove", name) for name in going if not name.startswith(inside)),
        *([("restore", web.name(web.settings))] if manifest.settings else []),
        *(
            [("packages", ", ".join(f"{name} {manifest.packages[name]}" for name in sorted(manifest.packages)))]
            * bool(manifest.packages)
        ),
        *(("stays", f"{name} was changed") for name in staying),
    ]


def _links(web: WebUI, links: dict) -> list:
    left = []
    for name, folder in links.items():
        if is_link_to(web.place(name), folder):
            files.remove(web.place(name))
        elif os.path.lexists(str(web.place(name))):
            left.append(f"{name} is no link to {folder} any more")
    return left


def _files(web: WebUI, known: dict) -> list:
    left = []
    for name, hashes in known.items():
        path = web.place(name)
        files.discard_draft(path)
        there = hash_of(path)
        if there in hashes:
            path.unlink()
        elif there is not None:
            left.append(f"{name} was changed")
    return left
