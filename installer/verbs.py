"""What each verb does: the first line of a function is its help, its result the exit status."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
from pathlib import Path

from . import environment, interpreters, manifest, project, webui_python, webui_report
from .files import discard_draft
from .lock import only_one
from .processes import ask, run
from .put import Put
from .settings_yaml import enabled_in
from .take_out import preview, take_out
from .webui import EXTENSION, TESTED_WEBUI, WebUI
from .words import InstallError, UserError, last_line, say, show

FOR_USERS = ["demo", "training"]
"""The extras that every command of README.md finds in `.venv` once `demo` has run."""
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
"""What the tests of the page look for."""
SUITE_MINUTES = {1: 60, 2: 35}
"""Of the whole suite with a browser, by cores; more than two shorten it little, because tests run one after the other."""


def test(options: argparse.Namespace) -> int:
    """Run the whole suite: ruff check, ruff format --check, pytest (further arguments go to pytest)."""
    extras = [*FOR_USERS, "test"]
    say(what_takes_time(environment.is_ready(options, extras), bool(options.rest)))
    python = environment.prepare(options, extras)
    checks = {
        "ruff check": ["ruff", "check", "."],
        "ruff format": ["ruff", "format", "--check", "."],
        "pytest": ["pytest", *options.rest],
    }
    failed = {}
    for title, module in checks.items():
        print(f"\n== {title}", flush=True)
        status = run([python, "-m", *module], cwd=project.ROOT)
        if status:
            failed[title] = status
        if status == 128 + signal.SIGINT:
            break
    if failed:
        say("Failed: " + ", ".join(failed) + ".")
    return next(iter(failed.values()), 0)


def what_takes_time(is_installed: bool, is_part: bool) -> str:
    """What a run of the suite has before it on this machine, and how long that takes.

    Args:
        is_installed: the environment has all that is needed.
        is_part: pytest is given further arguments.
    """
    install = "Nothing has to be installed." if is_installed else "First 2.5 GB are installed: minutes, as the network is."
    if is_part:
        return install
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    suite = f"Then the whole suite: about {SUITE_MINUTES[min(cores, 2)]} minutes on {cores} core{'s' * (cores > 1)}"
    browser = (
        "" if any(map(shutil.which, BROWSERS)) else ", less here, because the tests of the page are skipped without Chromium"
    )
    return f"{install} {suite}{browser}. Without its long tests: python install.py test -m 'not slow'"


def demo(options: argparse.Namespace) -> int:
    """Open the chat page in the browser (further arguments go to `python -m demo page`)."""
    if options.port is not None and not 0 < options.port < 65536:
        raise UserError(f"--port {options.port}: a port is a number from 1 to 65535.")
    python = environment.prepare(options, FOR_USERS)
    command = [python, "-m", "demo", "page"]
    if options.port is not None:
        command += ["--port", str(options.port)]
    if options.no_browser:
        command += ["--no-browser"]
    hidden_gpu = {"CUDA_VISIBLE_DEVICES": "-1"} if options.cpu else {}
    # In the user's own folder, so that a path among the further arguments means what the user meant.
    path = os.pathsep.join(filter(None, [str(project.ROOT), os.environ.get("PYTHONPATH")]))
    return run(command + options.rest, PYTHONPATH=path, **hidden_gpu)


def webui(options: argparse.Namespace) -> int:
    """Put the plugin into the text-generation-webui in DIR, or bring it up to date there."""
    web = WebUI(options.folder, options.user_data_dir)
    python = webui_python.find(web, options.python)
    packages = webui_python.packages_of(python)
    needed = webui_python.missing(packages, python)
    version = web.version()
    say(f"text-generation-webui {version or 'of an unknown version'} in {show(web.root)}")
    say(f"  its Python    {python}, torch {packages['torch']}, transformers {packages['transformers']}")
    if not (version or "").startswith(TESTED_WEBUI):
        tested = " and ".join(TESTED_WEBUI)
        say(f"  note          the plugin was tested with {tested}; its panel names what does not fit another version")
    with only_one():
        put = Put(web, options.system, options.link, options.model, options.enable)
        added = webui_python.plan(python, needed, packages)
        for title, text in put.lines(added):
            say(f"  {title:13} {text}")
        if options.dry_run:
            say("Nothing was changed (--dry-run).")
            return 0
        put.begin(python, added)
        webui_python.add(python, needed, packages)
        put.finish()
    where = "" if enabled_in(web) else f" with --extensions {EXTENSION}"
    model = next((Path(name).name for name in put.models), "a model that has eyes")
    say(f"Done. Start the web UI{where} and load {model} with the Transformers loader.")
    say(f"To look: {web.command('doctor')}   To take it out: {web.command('uninstall')}")
    return 0


def uninstall(options: argparse.Namespace) -> int:
    """Take the plugin out of the text-generation-webui in DIR: exactly what was put in; what you changed stays."""
    web = WebUI(options.folder, options.user_data_dir)
    with only_one():
        recorded = manifest.read(web)
        if recorded is None:
            discard_draft(web.manifest)  # of a run that ended before it had begun
            by_hand = next((f" {web.name(path)} was put there by hand: delete it." for path in web.extension_folders()), "")
            raise UserError(f"Nothing in {show(web.root)} was put there by install.py.{by_hand}")
        if options.dry_run:
            for title, text in preview(web, recorded):
                say(f"  {title:13} {text}")
            say("Nothing was changed (--dry-run).")
            return 0
        left = take_out(web, recorded)
    for sentence in left:
        say(f"  left: {sentence}")
    say("Done. The plugin is out of " + show(web.root) + (", but for what is named above." if left else "."))
    return 0


def doctor(options: argparse.Namespace) -> int:
    """Say what web UIs and model folders hold, what is missing, and the next command (without a FOLDER: of this project)."""
    webs, models = [], []
    for folder in options.folders:
        if WebUI.is_one(Path(folder)):
            webs.append(WebUI(folder, options.user_data_dir))
        elif Path(folder).is_dir():
            models.append(folder)
        else:
            raise UserError(f"{folder!r} is not a folder. Give the folder of a web UI or of a model.")
    reports = [webui_report.describe(web, options.python) for web in webs]
    is_web_missing = any(report["missing"] for report in reports)
    eyes = [folder for report in reports for folder in report["models_with_eyes"]]
    command = [_doctors_python(options.python, reports), "-m", "pipelines.doctor", *map(os.path.abspath, models + eyes)]
    if options.json:
        found = ask([*command, "--json"], cwd=project.ROOT)
        if found.returncode not in (0, 1):
            raise InstallError(f"pipelines.doctor failed: {last_line(found.stderr)}")
        print(json.dumps({"webuis": reports, **json.loads(found.stdout)}, indent=1, ensure_ascii=False))
        return max(found.returncode, int(is_web_missing))
    for report in reports:
        say("\n".join(webui_report.lines(report)))
    status = run(command, cwd=project.ROOT)
    if not options.folders:
        is_ready = environment.read_stamp(project.ROOT / ".venv") is not None
        say("next: python install.py " + ("demo, or webui DIR" if is_ready else "demo   (makes .venv)"))
    return max(status, int(is_web_missing))


def _doctors_python(named: str | None, reports: list) -> str | Path:
    """The interpreter that knows most of models: the project's own, a web UI's, the one that is named, at last this one."""
    own = interpreters.venv_python(project.ROOT / ".venv")
    others = [report["python"] for report in reports if report["python"]]
    last = interpreters.find(named, project.ROOT)
    found = next(filter(interpreters.is_new_enough, [own, *others, last]), None)
    if found is None:
        interpreters.check(last)
    return found
