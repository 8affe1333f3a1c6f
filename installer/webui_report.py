"""What the doctor says of a web UI. Of model folders says `pipelines/doctor.py`."""

from __future__ import annotations

from pathlib import Path

from . import manifest, settings_yaml, webui_python
from .files import hash_of
from .webui import WebUI
from .words import UserError, quote

LOADERS = {"transformers": "Transformers", "exllamav3": "ExLlamaV3", "llama-cpp-binaries": "llama.cpp"}
"""Package of a web UI to the loader that it brings."""
WORTH_TELLING = (*webui_python.PLUGIN_NEEDS, "peft", "bitsandbytes", "gradio")


def describe(web: WebUI, named: str | None) -> dict:
    """What there is, what is changed and what is missing, and the next commands; the same keys for every web UI."""
    report = {"folder": str(web.root), "version": web.version(), "user_data": str(web.user_data)}
    report.update(_python(web, named), enabled_in=settings_yaml.enabled_in(web))
    report.update(_plugin(web, report["missing"]))
    found = sorted(web.models.glob("*/vision/config.json")) if web.models.is_dir() else []
    report["models_with_eyes"] = [str(path.parent.parent) for path in found]
    install = web.command("webui") + (f" --python {quote(named)}" if named else "")
    flags = ("" if report["enabled_in"] else " --enable") + ("" if found else " --model FOLDER")
    is_done = not (report["missing"] or flags)
    report["next"] = ["start the web UI and load a model that has eyes"] if is_done else [install + flags]
    return report


def _python(web: WebUI, named: str | None) -> dict:
    """Its Python, and what of it the plugin needs."""
    report = {"python": None, "packages": {}, "loaders": [], "missing": []}
    try:
        report["python"] = webui_python.find(web, named)
        packages = webui_python.packages_of(report["python"])
        report["loaders"] = [loader for name, loader in LOADERS.items() if name in packages]
        report["packages"] = {name: packages.get(name) for name in WORTH_TELLING}
        report["missing"] = [f"package {name}" for name in webui_python.missing(packages, report["python"])]
    except UserError as error:
        report["missing"].append(str(error))
    return report


def _plugin(web: WebUI, missing: list) -> dict:
    """The plugin in it; what is not whole is added to `missing`."""
    recorded = manifest.read(web)
    if recorded is None:
        by_hand = [{"place": web.name(path), "version": None, "by": "hand"} for path in web.extension_folders()]
        missing += [] if by_hand else ["the plugin"]
        return {"plugin": next(iter(by_hand), None), "changed": []}
    if recorded.unfinished or not (web.place(recorded.extension) / "script.py").is_file():
        missing.append("the rest of the plugin: an installation did not end")
    there = {name: hash_of(web.place(name)) for name in recorded.files}
    missing += [name for name in there if there[name] is None]
    return {
        "plugin": {"place": recorded.extension, "version": recorded.version, "by": "install.py"},
        "changed": [name for name, content in there.items() if content not in (None, *recorded.files[name])],
    }


def lines(report: dict) -> list:
    """A report in lines."""
    plugin = report["plugin"]
    place = f"{plugin['version'] or 'unknown version'} in {plugin['place']}, by {plugin['by']}" if plugin else "not installed"
    versions = ", ".join(f"{name} {version or '-'}" for name, version in report["packages"].items())
    return [
        f"{report['folder']}: text-generation-webui {report['version'] or 'of an unknown version'}",
        f"  python: {report['python'] or 'not found'}",
        *([f"  {versions}", f"  loaders: {', '.join(report['loaders']) or 'none'}"] if versions else []),
        f"  plugin: {place}; {'switched on in ' + report['enabled_in'] if report['enabled_in'] else 'not switched on at start'}",
        f"  models with eyes: {', '.join(Path(path).name for path in report['models_with_eyes']) or 'none'}",
        *(f"  changed by you: {name}" for name in report["changed"]),
        *(f"  missing: {sentence}" for sentence in report["missing"]),
        *(f"  next: {command}" for command in report["next"]),
    ]
