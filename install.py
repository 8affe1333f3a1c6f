"""The one command. For the project itself it makes `.venv`, installs what is needed there and runs something in it:

    python install.py demo                  open the chat page on the model that comes with the project
    python install.py test [PYTEST ...]     run the whole test suite

and it puts the plugin into a text-generation-webui, and takes it out again:

    python install.py webui DIR             install the plugin there, or bring it up to date
    python install.py uninstall DIR         take back exactly what was put in
    python install.py doctor [FOLDER ...]   web UIs and model folders: what is there, what is missing, what to do next

Every step may be repeated and interrupted. A finished environment carries a stamp (what was installed, for which
Python); an unfinished one carries a mark instead and is made anew by the next run. A web UI carries a manifest, which is
written before anything is put in.

Standard library only, and nothing that Python 3.8 cannot read: a Python that is too old gets a sentence, not a
SyntaxError. What does not belong here: anything that knows about models or pictures. That is in `pipelines/`.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import hashlib
import json
import os
import platform
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent
OLDEST_PYTHON = (3, 10)
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
CPU_INDEX_TIMEOUT_S = 5
STAMP = "multimodal-vcla.json"  # a finished environment: what is in it
UNFINISHED = "multimodal-vcla.unfinished"  # an environment that is being made
LOG = "multimodal-vcla.log"  # all that pip said
NEWER_PIP = "pip>=24.1"  # the first that reports its progress to a program
FREE_GIB = {"cpu": 4, "gpu": 12}  # disk space for the environment and for what pip unpacks on the way
EXTENSION = "multimodal_vcla"
PLUGIN_NEEDS = ("torch", "transformers", "accelerate", "safetensors", "pillow", "sentencepiece")
FOR_USER_DATA = ("instruction-templates", "presets")  # folders of the plugin whose files the web UI looks for in user_data
TESTED_WEBUI = "v4.7"


class InstallError(Exception):
    """Something failed on the way: one line on stderr, exit status 1."""

    status = 1


class UserError(InstallError):
    """A wrong argument, or a machine that lacks something before anything was begun: exit status 2."""

    status = 2


# --- verbs: a function and its flags each ---------------------------------------------------------------------------


def test(options: argparse.Namespace, rest: list) -> int:
    """Run the whole suite: ruff check, ruff format --check, pytest (further arguments go to pytest)."""
    python = prepare(options, ["demo", "test", "training"])
    checks = [
        ("ruff check", ["ruff", "check", "."]),
        ("ruff format", ["ruff", "format", "--check", "."]),
        ("pytest", ["pytest", *rest]),
    ]
    failed = {}
    for title, module in checks:
        print(f"\n== {title}", flush=True)
        status = run([python, "-m", *module], cwd=ROOT)
        if status:
            failed[title] = status
        if status == 128 + signal.SIGINT:
            break
    if failed:
        say("Failed: " + ", ".join(failed) + ".")
    return next(iter(failed.values()), 0)


def demo(options: argparse.Namespace, rest: list) -> int:
    """Open the chat page in the browser (further arguments go to `python -m demo page`)."""
    if options.port is not None and not 0 < options.port < 65536:
        raise UserError(f"--port {options.port}: a port is a number from 1 to 65535.")
    python = prepare(options, ["demo"])
    command = [python, "-m", "demo", "page"]
    if options.port is not None:
        command += ["--port", str(options.port)]
    if options.no_browser:
        command += ["--no-browser"]
    hidden_gpu = {"CUDA_VISIBLE_DEVICES": ""} if options.cpu else {}
    # In the user's own folder, so that a path among the further arguments means what the user meant.
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return run(command + rest, PYTHONPATH=path, **hidden_gpu)


def webui(options: argparse.Namespace, rest: list) -> int:
    """Put the plugin into the text-generation-webui in DIR, or bring it up to date there."""
    refuse(rest)
    web = WebUI(options.folder, options.user_data_dir)
    python = web.find_python(options.python)
    packages = packages_of(python)
    needed = missing_packages(packages, python)
    version = web.version()
    say(f"text-generation-webui {version or 'of an unknown version'} in {show(web.root)}")
    say(f"  its Python    {python}, torch {packages['torch']}, transformers {packages['transformers']}")
    if not (version or "").startswith(TESTED_WEBUI):
        say(f"  note          the plugin was tested with {TESTED_WEBUI}; its panel names what does not fit another version")
    with only_one():
        manifest = read_manifest(web)
        target = web.extension_folder(options.system)
        check_place(web, target, manifest)
        link = model_link(web, options.model) if options.model else {}
        added = pip_plan(python, needed, packages) if needed else {}
        settings = enabling(web) if options.enable else None
        put = Put(web, target, manifest, options.link)
        say(f"  extension     {web.name(target)} ({'a link to this checkout' if options.link else 'a copy'})")
        say("  packages      " + (", ".join(f"{name} {added[name]}" for name in sorted(added)) or "nothing is missing"))
        for name in sorted(put.outside):
            say(f"  {'template' if 'template' in name else 'preset':13} {name}")
        for name in sorted(link):
            say(f"  model         {name} -> {link[name]}")
        if settings:
            say(f"  enable        in {web.name(web.settings)}")
        for sentence in put.notes:
            say(f"  note          {sentence}")
        if options.dry_run:
            say("Nothing was changed (--dry-run).")
            return 0
        put.begin(python, added, link, settings)
        if added:
            pip_install(python, needed, packages)
        put.finish(settings)
    where = "" if enabled_in(web) else f" --extensions {EXTENSION}"
    say(f"Done. Start the web UI{where and ' with' + where} and load a model that has eyes with the Transformers loader.")
    say(f"To look: {command_for('doctor', web)}   To take it out: {command_for('uninstall', web)}")
    return 0


def uninstall(options: argparse.Namespace, rest: list) -> int:
    """Take the plugin out of the text-generation-webui in DIR: exactly what was put in; what you changed stays."""
    refuse(rest)
    web = WebUI(options.folder, options.user_data_dir)
    with only_one():
        manifest = read_manifest(web)
        if manifest is None:
            with contextlib.suppress(FileNotFoundError):  # of a run that ended before it had begun
                draft_of(web.manifest).unlink()
            by_hand = [web.name(path) for path in web.extension_folders() if os.path.lexists(path)]
            advice = f" {by_hand[0]} was put there by hand: delete it." if by_hand else ""
            raise UserError(f"Nothing in {show(web.root)} was put there by install.py.{advice}")
        left = take_out(web, manifest)
    for sentence in left:
        say(f"  left: {sentence}")
    say("Done. The plugin is out of " + show(web.root) + (", but for what is named above." if left else "."))
    return 0


def doctor(options: argparse.Namespace, rest: list) -> int:
    """Say what web UIs and model folders hold, what is missing, and the next command (without a FOLDER: of this project)."""
    refuse(rest)
    webs, models = [], []
    for folder in options.folders:
        if WebUI.is_one(Path(folder)):
            webs.append(WebUI(folder, options.user_data_dir))
        elif Path(folder).is_dir():
            models.append(folder)
        else:
            raise UserError(f"{folder!r} is not a folder. Give the folder of a web UI or of a model.")
    reports = [describe(web, options.python) for web in webs]
    own = venv_python(ROOT / ".venv")
    pythons = [own if probe(own) else None, *(report["python"] for report in reports), sys.executable]
    eyes = [folder for report in reports for folder in report["models_with_eyes"]]
    command = [next(filter(None, pythons)), "-m", "pipelines.doctor", *map(os.path.abspath, models + eyes)]
    if options.json:
        found = ask([*command, "--json"], cwd=ROOT)
        if found.returncode not in (0, 1):
            raise InstallError(f"pipelines.doctor failed: {last_line(found.stderr)}")
        print(json.dumps({"webuis": reports, **json.loads(found.stdout)}, indent=1, ensure_ascii=False))
        return max(found.returncode, int(any(report["missing"] for report in reports)))
    for report in reports:
        say("\n".join(described(report)))
    status = run(command, cwd=ROOT)
    if not options.folders:
        is_ready = read_stamp(ROOT / ".venv") is not None
        say("next: python install.py " + ("demo, or webui DIR" if is_ready else "demo   (makes .venv)"))
    return max(status, int(any(report["missing"] for report in reports)))


FLAGS = {
    "folder": {"metavar": "DIR", "help": "the web UI's folder: the one with server.py"},
    "folders": {"metavar": "FOLDER", "nargs": "*", "help": "folders of web UIs or of models"},
    "--user-data-dir": {"metavar": "DIR", "help": "the web UI's user_data, when it is started with --user-data-dir"},
    "--system": {"action": "store_true", "help": "into extensions/ instead of user_data/extensions/"},
    "--link": {"action": "store_true", "help": "link to this checkout instead of copying: the plugin follows it"},
    "--enable": {"action": "store_true", "help": "switch it on at every start (default_extensions in settings.yaml)"},
    "--model": {"metavar": "FOLDER", "help": "link this model folder into user_data/models"},
    "--dry-run": {"action": "store_true", "help": "say what would be done, and do nothing"},
    "--json": {"action": "store_true", "help": "for programs"},
    "--cpu": {"action": "store_true", "help": "leave an NVIDIA GPU alone: PyTorch without CUDA"},
    "--python": {
        "metavar": "PYTHON",
        "help": "the interpreter (a path or a name): the web UI's, or the one to make .venv with",
    },
    "--venv": {
        "metavar": "DIR",
        "default": str(ROOT / ".venv"),
        "help": "the environment (default: .venv beside install.py)",
    },
    "--constraints": {
        "metavar": "FILE",
        "default": str(ROOT / "constraints.txt"),
        "help": "the versions to install (default: constraints.txt, the set that was tested)",
    },
    "--port": {"type": int, "metavar": "N", "help": "the port of the page"},
    "--no-browser": {"action": "store_true", "help": "do not open a browser window"},
}
ENVIRONMENT_FLAGS = ["--cpu", "--python", "--venv", "--constraints"]
VERBS = {
    "demo": (demo, ["--port", "--no-browser", *ENVIRONMENT_FLAGS]),
    "test": (test, ENVIRONMENT_FLAGS),
    "webui": (webui, ["folder", "--enable", "--model", "--system", "--link", "--dry-run", "--python", "--user-data-dir"]),
    "uninstall": (uninstall, ["folder", "--user-data-dir"]),
    "doctor": (doctor, ["folders", "--json", "--python", "--user-data-dir"]),
}


# --- the environment ------------------------------------------------------------------------------------------------


def prepare(options: argparse.Namespace, extras: list) -> Path:
    """Make the environment hold `extras`; at once when it already does.

    Returns:
        The interpreter of the environment.

    Raises:
        UserError: a wrong Python, no `venv` module, a folder that is not ours, no room.
        InstallError: pip failed.
    """
    folder, constraints = Path(options.venv).absolute(), Path(options.constraints).absolute()
    if not constraints.is_file():
        known = ", ".join(sorted(file.name for file in ROOT.glob("constraints*.txt")))
        raise UserError(f"--constraints {options.constraints!r} is not a file. The project has: {known}")
    if is_finished(folder, extras, constraints, options):
        return venv_python(folder)
    with only_one():
        # Another install.py may have finished it while this one waited.
        if is_finished(folder, extras, constraints, options):
            return venv_python(folder)
        started = time.monotonic()
        stamp = read_stamp(folder)
        if fits(folder, stamp, options):
            extras, is_cpu = sorted({*extras, *stamp["extras"]}), stamp["cpu"]
            version = probe(venv_python(folder))["version"]
            say(f"[1/4] Python {version}: the environment {show(folder)} is brought up to date")
            os.replace(folder / STAMP, folder / UNFINISHED)
        else:
            interpreter = find_interpreter(options.python, folder)
            version, is_cpu = check_interpreter(interpreter), wants_cpu_torch(options.cpu)
            say(f"[1/4] Python {version}: making the environment {show(folder)}")
            make_venv(folder, interpreter, is_cpu)
        python = venv_python(folder)
        pip(python, [NEWER_PIP], "a newer pip")
        say("[2/4] PyTorch")
        install_torch(python, constraints, is_cpu)
        say(f"[3/4] The project and what it needs ({', '.join(extras)})")
        # "." and not the folder's name, because a path with brackets or blanks is no requirement that pip can read.
        pip(python, ["--editable", f".[{','.join(extras)}]", "--constraint", str(constraints)], "the project")
        say("[4/4] Looking at what was installed")
        say("      " + check_installed(python, pinned_version(constraints, "torch")))
        write_stamp(folder, {"fingerprint": fingerprint(constraints, version), "extras": extras, "cpu": is_cpu})
        say(f"Ready after {time.monotonic() - started:.0f} s.")
    return python


def is_finished(folder: Path, extras: list, constraints: Path, options: argparse.Namespace) -> bool:
    """Whether the environment has all that is asked for, so that nothing need be installed."""
    stamp = read_stamp(folder)
    if not fits(folder, stamp, options) or not set(extras) <= set(stamp["extras"]):
        return False
    return stamp["fingerprint"] == fingerprint(constraints, probe(venv_python(folder))["version"])


def fits(folder: Path, stamp: dict | None, options: argparse.Namespace) -> bool:
    """Whether a finished environment can be kept: it runs, and is of the Python and the kind of PyTorch asked for."""
    if stamp is None or (options.cpu and not stamp["cpu"]):
        return False
    found = probe(venv_python(folder))
    if found is None:
        return False
    return options.python is None or found["version"] == check_interpreter(find_interpreter(options.python, folder))


def fingerprint(constraints: Path, version: str) -> str:
    """What an environment depends on, as one hash: pyproject.toml, the constraints, the Python and the place."""
    parts = [(ROOT / "pyproject.toml").read_bytes(), constraints.read_bytes(), version.encode(), str(ROOT).encode()]
    return hashlib.sha256(b"\0".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


def read_stamp(folder: Path) -> dict | None:
    """The stamp of a finished environment; None when it is absent, unfinished or not readable."""
    try:
        stamp = json.loads((folder / STAMP).read_text(encoding="utf-8"))
        return {"fingerprint": stamp["fingerprint"], "extras": list(stamp["extras"]), "cpu": bool(stamp["cpu"])}
    except (OSError, ValueError, TypeError, KeyError):
        return None


def write_stamp(folder: Path, stamp: dict) -> None:
    """Write the stamp as the very last thing: under another name first, so that a stamp is either whole or absent."""
    draft = folder / (STAMP + ".part")
    draft.write_text(json.dumps(stamp, indent=1) + "\n", encoding="utf-8")
    os.replace(draft, folder / STAMP)
    with contextlib.suppress(FileNotFoundError):
        (folder / UNFINISHED).unlink()


def make_venv(folder: Path, interpreter: str, is_cpu: bool) -> None:
    """Make an empty environment; an unfinished or outdated one of ours in its place is removed first."""
    is_ours = (folder / STAMP).exists() or (folder / UNFINISHED).exists()
    if folder.exists() and not is_ours and not (folder.is_dir() and not any(folder.iterdir())):
        advice = "Move it away, or name another folder: --venv DIR"
        raise UserError(f"{show(folder)} exists and was not made by install.py. {advice}")
    if folder.exists():
        say(f"      removing the {'old' if (folder / STAMP).exists() else 'unfinished'} one")
        # The mark goes last: a removal that is interrupted leaves a folder that is still known as ours.
        mark = folder / UNFINISHED
        mark.touch()
        for entry in folder.iterdir():
            if entry != mark:
                shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / UNFINISHED).touch()
    free_gib, need_gib = shutil.disk_usage(folder).free / 2**30, FREE_GIB["cpu" if is_cpu else "gpu"]
    if free_gib < need_gib:
        advice = "Make room, or name another folder: --venv DIR"
        raise UserError(f"{free_gib:.1f} GiB are free at {show(folder)}, about {need_gib} GiB are needed. {advice}")
    made = ask([interpreter, "-m", "venv", str(folder)])
    if made.returncode or not venv_python(folder).exists():
        raise InstallError(f"{interpreter} -m venv {show(folder)} failed: {last_line(made.stdout + made.stderr)}")


def venv_python(folder: Path) -> Path:
    """The interpreter inside an environment."""
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


@contextlib.contextmanager
def only_one():
    """Let one install.py of this checkout install at a time; a second one waits.

    The lock is on install.py itself and is handed to pip (see `LOCK`), so that a pip that outlives a killed install.py
    is waited for as well. Without `fcntl` (Windows), or where the file system has no locks, there is no waiting.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    with open(__file__, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("Another install.py is at work in this folder; waiting for it to end.")
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:
            pass
        LOCK.append(file.fileno())
        try:
            yield
        finally:
            LOCK.clear()


LOCK: list = []  # the file descriptor that pip inherits while the lock is held


# --- the web UI -----------------------------------------------------------------------------------------------------


class WebUI:
    """A text-generation-webui on this machine, and where its things are. Only looks, changes nothing.

    Args:
        folder: the one with server.py.
        user_data: its user_data, when that is not where the web UI looks by itself.

    Raises:
        UserError: it is none, or one that is too old for extensions in user_data.
    """

    def __init__(self, folder: str, user_data: str | None = None) -> None:
        self.root = Path(os.path.abspath(os.path.expanduser(folder)))
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
            places = [Path(os.path.abspath(os.path.expanduser(user_data)))]
        found = [place for place in places if place.is_dir()]
        if not found:
            advice = "It is too old for the plugin: update it. Or its user_data is elsewhere: --user-data-dir DIR"
            raise UserError(f"{show(self.root)} has no folder {places[-1].name!r}. {advice}")
        self.user_data = found[0]
        self.settings = self.user_data / "settings.yaml"
        self.manifest = self.user_data / "extensions" / (EXTENSION + ".json")

    @staticmethod
    def is_one(folder: Path) -> bool:
        return (folder / "server.py").is_file() and (folder / "modules" / "extensions.py").is_file()

    def extension_folders(self) -> list:
        """Where the web UI looks for the extension; the first wins."""
        return [self.user_data / "extensions" / EXTENSION, self.root / "extensions" / EXTENSION]

    def extension_folder(self, is_system: bool) -> Path:
        return self.extension_folders()[int(is_system)]

    def name(self, path: Path) -> str:
        """A path as the manifest writes it: from the web UI's folder, so that this may be moved."""
        try:
            return path.relative_to(self.root).as_posix()
        except ValueError:
            return str(path)

    def place(self, name: str) -> Path:
        """The path of a name in the manifest."""
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

    def find_python(self, named: str | None) -> str:
        """The Python that the web UI runs with.

        Raises:
            UserError: it cannot be found, or is not the web UI's.
        """
        if named:
            python = find_interpreter(named, self.root)
            if "gradio" not in packages_of(python):
                raise UserError(f"--python {named!r} is not the Python of a web UI: it has no gradio.")
            return python
        with contextlib.suppress(OSError, ValueError, KeyError):  # the one that was named at an earlier installation
            recorded = json.loads(self.manifest.read_text(encoding="utf-8"))["python"]
            if "gradio" in packages_of(recorded):
                return recorded
        own = [self.root / name for name in ("installer_files/env", "portable_env", "venv", ".venv", "env")]
        active = [Path(os.environ[key]) for key in ("VIRTUAL_ENV", "CONDA_PREFIX") if os.environ.get(key)]
        with contextlib.suppress(OSError):
            lines = (Path.home() / ".conda" / "environments.txt").read_text(encoding="utf-8").splitlines()
            active += [Path(line) for line in lines if Path(line).name.startswith("textgen")]
        for folder in own + active:
            for name in ("bin/python", "bin/python3", "python.exe", "Scripts/python.exe"):
                if (folder / name).is_file():
                    gradio = packages_of(folder / name).get("gradio", "")
                    # An environment elsewhere is the web UI's when it has the web UI's own build of gradio.
                    if gradio and (folder in own or "custom" in gradio):
                        return str(folder / name)
        looked = ", ".join(self.name(folder) for folder in own)
        raise UserError(f"The web UI's Python was not found (looked in {looked}, and the active one). Name it: --python PATH")


PACKAGES = """
import json, re
from importlib import metadata
found = [(d.metadata["Name"], d.version) for d in metadata.distributions()]
print(json.dumps({re.sub("[-_.]+", "-", name).lower(): version for name, version in found if name}))
"""


def packages_of(python: str | Path) -> dict:
    """What is installed for a Python, name to version; empty when it does not run."""
    try:
        return json.loads(ask([str(python), "-c", PACKAGES], PYTHONNOUSERSITE="1", PYTHONPATH="").stdout)
    except (OSError, ValueError):
        return {}


def missing_packages(packages: dict, python: str) -> list:
    """What the plugin needs and the web UI lacks, as requirements.

    Raises:
        UserError: what is there is too old or of the wrong kind; the web UI's versions are not ours to move.
    """
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    bounds = dict(re.findall(r'^ *"([a-z0-9_.-]+)>=([0-9.]+)",$', text, re.MULTILINE))
    for name in ("torch", "transformers"):
        if name not in packages:
            advice = (
                "It is a portable one with llama.cpp alone, whose own vision needs no plugin; the plugin needs the full web UI."
            )
            raise UserError(f"This web UI ({python}) has no {name}. {advice}")
    for name in PLUGIN_NEEDS:
        if name in packages and numbers(packages[name]) < numbers(bounds[name]):
            advice = "No version of the web UI is moved here: update the web UI first."
            raise UserError(f"This web UI ({python}) has {name} {packages[name]}; {bounds[name]} or newer is needed. {advice}")
    return [f"{name}>={bounds[name]}" for name in PLUGIN_NEEDS if name not in packages]


def numbers(version: str) -> tuple:
    """The leading numbers of a version, for comparing."""
    return tuple(int(part) for part in re.match(r"[0-9.]*[0-9]|", version).group().split(".") if part)


def pip_plan(python: str, needed: list, packages: dict) -> dict:
    """What pip would add so that `needed` is there and nothing moves: name to version."""
    found = pip_holding(python, ["--dry-run", "--quiet", "--report", "-", *needed], packages)
    items = [item["metadata"] for item in json.loads(found.stdout)["install"]]
    return {re.sub("[-_.]+", "-", item["name"]).lower(): item["version"] for item in items}


def pip_install(python: str, needed: list, packages: dict) -> None:
    """Add `needed`, and look that nothing that was there before has moved."""
    pip_holding(python, needed, packages)
    after = packages_of(python)
    moved = [f"{name} {packages[name]} -> {after.get(name)}" for name in packages if after.get(name) != packages[name]]
    if moved:
        raise InstallError(f"pip moved what was there: {', '.join(moved)}. Put it back: {python} -m pip install NAME==VERSION")


def pip_holding(python: str, arguments: list, packages: dict) -> subprocess.CompletedProcess:
    """`pip install` with every version that is there held in its place.

    Raises:
        InstallError: pip failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        held = Path(folder) / "held.txt"
        held.write_text("".join(f"{name}=={version}\n" for name, version in packages.items()), encoding="utf-8")
        quiet = ["--no-input", "--disable-pip-version-check", "--constraint", str(held)]
        found = ask([python, "-m", "pip", "install", *quiet, *arguments], PIP_USER="0", PYTHONNOUSERSITE="1")
    if found.returncode:
        raise InstallError(f"pip could not install into the web UI's Python: {reason(found.stdout + found.stderr)}")
    return found


def check_place(web: WebUI, target: Path, manifest: dict | None) -> None:
    """Refuse a place that holds something else.

    Raises:
        UserError: an extension of the same name is there, or would hide this one, or ours is in the other place.
    """
    if manifest is not None and manifest["extension"] != web.name(target):
        other = f"It is installed in {manifest['extension']}. Take it out first: {command_for('uninstall', web)}"
        raise UserError(other)
    foreign = [path for path in {target, web.extension_folder(False)} if os.path.lexists(path)]
    if manifest is None and foreign:
        advice = "Another extension of that name, or put there by hand: move it away, and run the same command again."
        raise UserError(f"{foreign[0]} exists and was not put there by install.py. {advice}")


def model_link(web: WebUI, model: str) -> dict:
    """The link that shows a model folder to the web UI: its name to the folder; empty when it is there already.

    Raises:
        UserError: no model folder, or the name is taken.
    """
    folder = Path(os.path.abspath(os.path.expanduser(model)))
    if not (folder / "config.json").is_file():
        raise UserError(f"--model {model!r} is no model folder: it has no config.json. See: python install.py doctor FOLDER")
    link = web.user_data / "models" / folder.name
    if os.path.lexists(link):
        if link.exists() and link.samefile(folder):
            return {}
        raise UserError(f"{web.name(link)} is another model. Rename {str(folder)!r}, or move the other one away.")
    if not (folder / "vision" / "config.json").is_file():
        say(f"  note          {folder.name} has no eyes in vision/. See: python install.py doctor {shlex.quote(str(folder))}")
    return {web.name(link): str(folder)}


def describe(web: WebUI, named: str | None) -> dict:
    """What the doctor says of a web UI."""
    report = {"folder": str(web.root), "version": web.version(), "user_data": str(web.user_data), "python": None}
    report.update(packages={}, loaders=[], plugin=None, enabled_in=enabled_in(web), changed=[], missing=[])
    try:
        report["python"] = web.find_python(named)
        packages = packages_of(report["python"])
        kinds = {"transformers": "Transformers", "exllamav3": "ExLlamaV3", "llama-cpp-binaries": "llama.cpp"}
        report["loaders"] = [loader for name, loader in kinds.items() if name in packages]
        report["packages"] = {name: packages.get(name) for name in (*PLUGIN_NEEDS, "peft", "bitsandbytes", "gradio")}
        needed = missing_packages(packages, report["python"])
        report["missing"] += [f"package {name}" for name in needed]
    except UserError as error:
        report["missing"].append(str(error))
    manifest = read_manifest(web)
    if manifest is None:
        by_hand = [web.name(path) for path in web.extension_folders() if os.path.lexists(path)]
        report["plugin"] = {"place": by_hand[0], "version": None, "by": "hand"} if by_hand else None
        report["missing"] += [] if by_hand else ["the plugin"]
    else:
        report["plugin"] = {"place": manifest["extension"], "version": manifest["version"], "by": "install.py"}
        if manifest["unfinished"] or not (web.place(manifest["extension"]) / "script.py").is_file():
            report["missing"].append("the rest of the plugin: an installation did not end")
        for name, hashes in manifest["files"].items():
            if not web.place(name).is_file():
                report["missing"].append(name)
            elif hash_of(web.place(name)) not in hashes:
                report["changed"].append(name)
    models = web.user_data / "models"
    found = sorted(models.glob("*/vision/config.json")) if models.is_dir() else []
    report["models_with_eyes"] = [str(path.parent.parent) for path in found]
    install = command_for("webui", web) + (f" --python {shlex.quote(named)}" if named else "")
    commands = [install] if report["missing"] else []
    commands += [] if report["enabled_in"] else [f"{install} --enable"]
    commands += [] if found else [f"{install} --model FOLDER"]
    report["next"] = commands or ["start the web UI and load a model that has eyes"]
    return report


def described(report: dict) -> list:
    """A web UI's report in lines."""
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


def command_for(verb: str, web: WebUI) -> str:
    """A command of ours about a web UI, ready to be pasted."""
    return f"python {shlex.quote(show(ROOT / 'install.py'))} {verb} {shlex.quote(show(web.root))}"


# --- what is put into a web UI, and taken out again -----------------------------------------------------------------


def read_manifest(web: WebUI) -> dict | None:
    """What was put in; None when nothing was.

    Raises:
        InstallError: it cannot be read.
    """
    try:
        return json.loads(web.manifest.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        advice = f"Delete it and {web.name(web.extension_folder(False))}, and install again."
        raise InstallError(f"{web.manifest} is damaged ({error}). {advice}") from error


class Put:
    """Puts the plugin in. What is to be put is decided at once; `begin` writes it down, and `finish` does it.

    A file that is put is known by its content: whatever has other content is the user's.

    Args:
        web: where.
        target: the extension's folder.
        old: the manifest of an earlier installation.
        is_link: link the folder instead of copying it.
    """

    def __init__(self, web: WebUI, target: Path, old: dict | None, is_link: bool) -> None:
        self.web, self.target, self.is_link = web, target, is_link
        self.source = ROOT / "extensions" / EXTENSION
        self.old = old or {"files": {}, "links": {}, "folders": [], "packages": {}, "settings": None}
        self.notes = []
        if not (self.source / "script.py").is_file():
            raise UserError(f"{self.source} is not there: this checkout is not whole.")
        self.files = {}  # in the extension's folder
        if not is_link:
            self.files = {name: self.source / name for name in names_in(self.source)}
            self.files.update({f"pipelines/{name}": ROOT / "pipelines" / name for name in names_in(ROOT / "pipelines")})
        self.outside = {}  # elsewhere: name in the manifest to source
        for source in (self.source / name for name in names_in(self.source) if name.split("/")[0] in FOR_USER_DATA):
            name = web.name(web.user_data / source.relative_to(self.source))
            there = hash_of(web.place(name))
            if there is None or there in self.old["files"].get(name, ()):
                self.outside[name] = source
            elif there != hash_of(source):
                self.notes.append(f"{name} is there with other content and stays as it is")
        if target != web.extension_folder(True) and os.path.lexists(web.extension_folder(True)):
            self.notes.append(f"{web.name(web.extension_folder(True))} is there too; the web UI takes the one in user_data")

    def begin(self, python: str, packages: dict, links: dict, settings: dict | None) -> None:
        """Write down all that will be there, before it is: what is interrupted can be finished, or taken out."""
        inside = {self.web.name(self.target / name): source for name, source in self.files.items()}
        new = {name: [hash_of(source)] for name, source in {**inside, **self.outside}.items()}
        links = {**self.old["links"], **links, **({self.web.name(self.target): str(self.source)} if self.is_link else {})}
        paths = [self.web.manifest, self.target, *map(self.web.place, [*self.outside, *links])]
        missing = {self.web.name(up) for path in paths for up in path.parents if self.web.root != up and not up.exists()}
        self.manifest = {
            "version": project_version(),
            "unfinished": True,
            "extension": self.web.name(self.target),
            "files": {
                name: sorted({*self.old["files"].get(name, []), *new.get(name, [])}) for name in {**self.old["files"], **new}
            },
            "links": links,
            "folders": sorted({*self.old["folders"], *missing}),
            "packages": {**self.old["packages"], **packages},
            "python": python,
            "settings": settings or self.old["settings"],
        }
        self.new = new
        self.links = links
        write_manifest(self.web, self.manifest)

    def finish(self, settings: dict | None) -> None:
        """Put everything in its place."""
        recover(self.target)
        if self.is_link:
            self._link()
        else:
            self._copy()
        for name, source in self.outside.items():
            write(self.web.place(name), source.read_bytes())
        for name, folder in self.links.items():
            if not os.path.lexists(self.web.place(name)):
                make_link(self.web.place(name), Path(folder))
        if settings:
            write(self.web.settings, encode(settings["text"]))
        gone = [name for name in self.manifest["files"] if name not in self.new and hash_of(self.web.place(name)) is None]
        files = {name: self.new.get(name, hashes) for name, hashes in self.manifest["files"].items() if name not in gone}
        own = self.web.name(self.target)  # a link of an earlier installation has become a copy
        links = {name: folder for name, folder in self.links.items() if self.is_link or name != own}
        write_manifest(self.web, {**self.manifest, "unfinished": False, "files": files, "links": links})

    def _copy(self) -> None:
        """Make the new folder beside the old one, with what the user has in there, then change places."""
        stage = stage_of(self.target)
        fresh = stage / "new"
        for name, source in self.files.items():
            write(fresh / name, source.read_bytes())
        for name in names_in(self.target) if not self.target.is_symlink() else ():
            there, known = hash_of(self.target / name), self.manifest["files"].get(self.web.name(self.target / name), ())
            if there in known:
                continue
            kept = name
            while kept in self.files or (fresh / kept).exists() or (kept != name and (self.target / kept).exists()):
                kept += ".yours"
            if kept != name:
                say(f"  note          {name} was changed by you: your version is kept as {kept}")
            write(fresh / kept, (self.target / name).read_bytes())
        if os.path.lexists(self.target):
            os.rename(self.target, stage / "old")
        os.rename(fresh, self.target)
        remove_tree(stage)

    def _link(self) -> None:
        if self.target.is_symlink():
            return
        if self.target.exists():
            strangers = [name for name in names_in(self.target) if self.web.name(self.target / name) not in self.old["files"]]
            if strangers:
                raise UserError(f"{self.target} holds files of yours, such as {strangers[0]!r}. Move them away before --link.")
            stage_of(self.target).mkdir(exist_ok=True)
            os.rename(self.target, stage_of(self.target) / "old")
        make_link(self.target, self.source)
        remove_tree(stage_of(self.target))


def take_out(web: WebUI, manifest: dict) -> list:
    """Remove what the manifest names.

    Returns:
        What is left because the user changed it or put it there, a sentence each.
    """
    left = []
    target = web.place(manifest["extension"])
    recover(target)
    if manifest["settings"]:
        left += disable(web, manifest["settings"])
    for name, folder in manifest["links"].items():
        path = web.place(name)
        if os.path.lexists(path):
            if path.is_symlink() and os.readlink(str(path)) == folder:
                path.unlink()
            elif os.name == "nt" and path.exists() and path.samefile(folder):
                os.rmdir(path)
            else:
                left.append(f"{name} is no link to {folder} any more")
    for path in (web.settings, *map(web.place, manifest["files"])):
        with contextlib.suppress(FileNotFoundError):  # of an interrupted run
            draft_of(path).unlink()
    for name, hashes in manifest["files"].items():
        path = web.place(name)
        there = hash_of(path)
        if there in hashes:
            path.unlink()
        elif there is not None:
            left.append(f"{name} was changed")
    if target.is_dir() and not target.is_symlink():
        for cache in list(target.rglob("__pycache__")):
            remove_tree(cache)
        left += [f"{web.name(target / name)} was put there by somebody else" for name in names_in(target)
                 if web.name(target / name) not in manifest["files"]]  # fmt: skip
        remove_empty(target)
    left += uninstall_packages(manifest)
    for path in (draft_of(web.manifest), web.manifest):
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
    for name in sorted(manifest["folders"], key=len, reverse=True):
        with contextlib.suppress(OSError):
            web.place(name).rmdir()
    return left


def uninstall_packages(manifest: dict) -> list:
    """Remove the packages that were added; what has another version by now stays."""
    there = packages_of(manifest["python"]) if manifest["packages"] else {}
    ours = [name for name, version in manifest["packages"].items() if there.get(name) == version]
    if ours:
        found = ask([manifest["python"], "-m", "pip", "uninstall", "--yes", "--disable-pip-version-check", *ours])
        if found.returncode:
            return [f"the packages {', '.join(ours)} (pip: {last_line(found.stderr)})"]
    return [f"the package {name} is now {there[name]}" for name in manifest["packages"] if name in there and name not in ours]


def stage_of(target: Path) -> Path:
    """Where a folder is prepared: beside its place, one level deeper than the web UI looks for extensions."""
    return target.with_name(EXTENSION + ".part")


def recover(target: Path) -> None:
    """Clear away what an interrupted run left; the old folder goes back when there is no new one yet."""
    stage = stage_of(target)
    if os.path.lexists(stage / "old") and not os.path.lexists(target):
        os.rename(stage / "old", target)
    remove_tree(stage)


def write_manifest(web: WebUI, manifest: dict) -> None:
    write(web.manifest, (json.dumps(manifest, indent=1, ensure_ascii=False) + "\n").encode())


def write(path: Path, content: bytes) -> None:
    """Write a file so that it is whole or absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = draft_of(path)
    draft.write_bytes(content)
    if path.exists():
        shutil.copymode(str(path), str(draft))
    os.replace(draft, path)


def draft_of(path: Path) -> Path:
    """Where a file is written before it takes its place."""
    return path.with_name(path.name + ".part")


def make_link(path: Path, folder: Path) -> None:
    """Link a folder; where symbolic links need a privilege (Windows), by a junction."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.symlink(str(folder), str(path), target_is_directory=True)
    except OSError:
        if os.name != "nt":
            raise
        made = ask(["cmd", "/c", "mklink", "/J", str(path), str(folder)])
        if made.returncode:
            raise InstallError(f"{path} could not be linked to {folder}: {last_line(made.stderr)}") from None


def names_in(folder: Path) -> list:
    """The files of a folder and its subfolders, as names from there; without byte code and without git's own."""
    if not folder.is_dir():
        return []
    files = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    return sorted(path.as_posix() for path in files if not {"__pycache__", ".git"} & set(path.parts))


def hash_of(path: Path) -> str | None:
    """The content of a file as a hash; None when there is no such file."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def remove_tree(folder: Path) -> None:
    if folder.is_dir():
        shutil.rmtree(str(folder))


def remove_empty(folder: Path) -> None:
    """Remove a folder's empty subfolders, and itself when it is empty then."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            with contextlib.suppress(OSError):
                path.rmdir()
    with contextlib.suppress(OSError):
        folder.rmdir()


def project_version() -> str:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    return re.search(r'^version = "(.+)"', text, re.MULTILINE).group(1)


# --- switched on at start -------------------------------------------------------------------------------------------


def enabled_in(web: WebUI) -> str | None:
    """The file that switches the extension on at every start; None when none does."""
    with contextlib.suppress(UserError):  # a list that is not understood
        if web.settings.is_file() and with_extension(decode(web.settings.read_bytes()), True) is None:
            return web.name(web.settings)
    flags = web.user_data / "CMD_FLAGS.txt"
    if flags.is_file():
        lines = [line.strip().rstrip("\\") for line in decode(flags.read_bytes()).splitlines()]
        words = " ".join(line for line in lines if not line.startswith("#")).split()
        if EXTENSION in words[words.index("--extensions") :] if "--extensions" in words else False:
            return web.name(flags)
    return None


def enabling(web: WebUI) -> dict | None:
    """How settings.yaml is to be changed, and what it was; None when the extension is on already."""
    if enabled_in(web):
        return None
    before = decode(web.settings.read_bytes()) if web.settings.is_file() else None
    text = with_extension(before or "", True)
    return {"before": before, "text": text}


def disable(web: WebUI, settings: dict) -> list:
    """Undo `enabling`: the file as it was, or, when it has changed since, without the extension's name."""
    if not web.settings.is_file():
        return []
    there = decode(web.settings.read_bytes())
    if there == settings["text"]:
        text = settings["before"]
    else:
        try:
            text = with_extension(there, False)
        except UserError as error:
            return [str(error)]
        text = there if text is None else text
    if text is None or (not text.strip() and settings["before"] is None):
        web.settings.unlink()
    elif text != there:
        write(web.settings, encode(text))
    return []


def with_extension(text: str, wanted: bool) -> str | None:
    """settings.yaml with or without the extension in `default_extensions`, all else as it is; None when it is so already.

    Raises:
        UserError: the list is written in a way that is not understood here.
    """
    lines = text.splitlines(keepends=True)
    at = next((number for number, line in enumerate(lines) if line.startswith("default_extensions:")), None)
    if at is None:
        end = "\n" if text and not text.endswith("\n") else ""
        return f"{text}{end}default_extensions:\n- {EXTENSION}\n" if wanted else None
    value = lines[at].partition(":")[2].partition(" #")[0].strip()
    if value.startswith("[") and value.endswith("]"):
        items = [item.strip() for item in value[1:-1].split(",") if item.strip()]
        others = [item for item in items if item.strip("'\"") != EXTENSION]
        if (len(others) < len(items)) == wanted:
            return None
        lines[at] = lines[at].replace(value, f"[{', '.join([EXTENSION, *others] if wanted else others)}]", 1)
        return "".join(lines)
    if value not in ("", "null", "~"):
        advice = f"Write {EXTENSION} into its default_extensions, or take it out, by hand."
        raise UserError(f"settings.yaml has a list of extensions that install.py does not understand: {value!r}. {advice}")
    end = at + 1
    while end < len(lines) and re.match(r"\s*(-\s|#|$)", lines[end]):
        end += 1
    items = [number for number in range(at + 1, end) if lines[number].lstrip().startswith("-")]
    ours = [number for number in items if lines[number].partition("-")[2].partition(" #")[0].strip(" \t\r\n'\"") == EXTENSION]
    if bool(ours) == wanted:
        return None
    if wanted:
        indent = re.match(r"\s*", lines[items[0]]).group() if items else ""
        lines[at] = lines[at] if value == "" and lines[at].endswith("\n") else "default_extensions:\n"
        lines.insert(at + 1, f"{indent}- {EXTENSION}\n")
        return "".join(lines)
    gone = {*ours, *([at] if len(items) == len(ours) else [])}
    return "".join(line for number, line in enumerate(lines) if number not in gone)


def decode(content: bytes) -> str:
    return content.decode("utf-8", "surrogateescape")


def encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


# --- the interpreter ------------------------------------------------------------------------------------------------

PROBE = """
import sys
def has(name):
    try:
        __import__(name)
    except ImportError:
        return 0
    return 1
print("%d.%d.%d %d %d %d" % (sys.version_info[:3] + (has("venv"), has("ensurepip"), sys.maxsize > 2**32)))
"""


def probe(python: str | Path) -> dict | None:
    """Ask an interpreter what it is; None when it does not run."""
    try:
        version, *flags = ask([str(python), "-c", PROBE]).stdout.split()
        has_venv, has_ensurepip, is_64_bit = (flag == "1" for flag in flags)
    except (OSError, ValueError):
        return None
    return {"version": version, "has_venv": has_venv and has_ensurepip, "is_64_bit": is_64_bit}


def find_interpreter(name: str | None, folder: Path) -> str:
    """The interpreter to make the environment with: the one named, else the one that runs this file."""
    if name is None:
        # Started by the very environment that may have to be removed: then the Python that it was made with.
        is_inside = Path(sys.prefix).resolve() == folder.resolve()
        return getattr(sys, "_base_executable", sys.executable) if is_inside else sys.executable
    found = shutil.which(os.path.expanduser(name))
    if found is None:
        raise UserError(f"--python {name!r} is not a program that can be run. For example: --python python3.11")
    return found


def check_interpreter(interpreter: str) -> str:
    """Refuse an interpreter that cannot hold the project.

    Returns:
        Its version, such as '3.11.7'.

    Raises:
        UserError: it does not run, is too old, has 32 bits, or has no `venv`.
    """
    found = probe(interpreter)
    if found is None:
        raise UserError(f"{interpreter!r} is not a Python that runs. Name one: --python python3.11")
    version = found["version"]
    parts = tuple(int(part) for part in version.split("."))
    oldest = ".".join(map(str, OLDEST_PYTHON))
    if parts[:2] < OLDEST_PYTHON:
        known = ("python3.11", "python3.12", "python3.13", "python3.10")
        newer = next((name for name in known if shutil.which(name) and probe(name)), None)
        advice = "Install one (python.org, or your system's packages) and name it: --python PATH"
        if newer:
            advice = f"This machine has one: add --python {newer}"
        raise UserError(f"{interpreter} is Python {version}; {oldest} or newer is needed. {advice}")
    if not found["is_64_bit"]:
        raise UserError(f"{interpreter} is a 32-bit Python; PyTorch needs a 64-bit one. Name one: --python PATH")
    if not found["has_venv"]:
        package = "python{}.{}-venv".format(*parts[:2])
        advice = f"On Debian and Ubuntu: apt install {package}. Or name another Python: --python PATH"
        raise UserError(f"{interpreter} cannot make environments (no venv or ensurepip). {advice}")
    return version


# --- pip ------------------------------------------------------------------------------------------------------------


def pip(python: Path, arguments: list, what: str) -> None:
    """Run `pip install` in the environment, condensed on the screen and whole in the log.

    Raises:
        InstallError: pip failed; the message says why, as far as pip's words tell it.
    """
    command = [str(python), "-m", "pip", "install", "--no-input", "--disable-pip-version-check"]
    if NEWER_PIP not in arguments:
        command.append("--progress-bar=raw")
    words, progress = [], Progress(sys.stdout)
    log = python.parent.parent / LOG
    with open(log, "a", encoding="utf-8") as file:
        file.write(f"\n$ {' '.join(command + arguments)}\n")
        process = subprocess.Popen(
            command + arguments,
            cwd=str(ROOT),
            env={**os.environ, "PIP_USER": "0", "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            pass_fds=LOCK,
        )
        with stopping(process):
            for line in process.stdout:
                if not line.startswith("Progress "):
                    file.write(line)
                    words.append(line)
                progress.feed(line)
            status = process.wait()
    progress.end()
    if status:
        raise InstallError(f"pip could not install {what}: {reason(''.join(words))} (all that pip said: {log})")


class Progress:
    """Says what pip is doing: one line that is written over in a terminal, a line now and then elsewhere."""

    EVERY_S = 15

    def __init__(self, stream) -> None:
        self.stream = stream
        self.is_terminal = stream.isatty()
        self.item, self.written_at = "", time.monotonic()

    def feed(self, line: str) -> None:
        """Take one line of pip's output."""
        if re.match(r"Progress \d+ of \d+", line):
            done, total = (int(number) for number in re.findall(r"\d+", line)[:2])
            is_due = total > 20e6 and time.monotonic() - self.written_at > self.EVERY_S
            self.show(f"{self.item}: {100 * done // max(total, 1)} %", is_news=is_due)
            return
        match = re.match(r"\s*(Collecting|Downloading|Using cached|Installing collected packages:)\s+(.*)", line)
        if not match:
            return
        verb, rest = match.groups()
        if verb.startswith("Installing"):
            count = rest.count(",") + 1
            self.show(f"unpacking {count} package{'s' * (count > 1)}", is_news=True)
        elif verb == "Collecting":
            self.show(f"looking for {re.split('[^A-Za-z0-9._-]', rest)[0]}")
        elif not rest.split(" ")[0].endswith(".metadata"):
            self.item = f"{verb.lower()} {rest.rpartition('/')[2]}"
            self.show(self.item, is_news=re.search(r"\((\d{2,}(\.\d+)? MB|[\d.]+ GB)", rest) is not None)

    def show(self, text: str, is_news: bool = False) -> None:
        """Show a line; where lines cannot be written over, only when it is news."""
        if self.is_terminal:
            width = shutil.get_terminal_size().columns - 1
            self.stream.write("\r" + f"      {text}"[:width].ljust(width))
        elif is_news:
            self.stream.write(f"      {text}\n")
            self.written_at = time.monotonic()
        self.stream.flush()

    def end(self) -> None:
        """Wipe the line."""
        if self.is_terminal:
            self.stream.write("\r" + " " * (shutil.get_terminal_size().columns - 1) + "\r")
            self.stream.flush()


# The first that fits counts: without a network pip ends with versions that it could not find or that do not fit together.
REASONS = [
    (
        r"No space left on device|Errno 28\b|not enough space on the disk",
        "the disk is full. Make room and run the same command again",
    ),
    (
        r"Errno 13\b|Permission denied|Read-only file system|Access is denied",
        "a file may not be written. Check who owns the project's folder, or name another one: --venv DIR",
    ),
    (
        r"CERTIFICATE_VERIFY_FAILED|SSLError",
        "the package index showed a certificate that is not trusted here (a company proxy?). Set PIP_CERT to its file",
    ),
    (
        r"name resolution|Name or service not known|getaddrinfo failed|nodename nor servname|Failed to resolve"
        r"|NewConnectionError|Failed to establish a new connection|Network is unreachable|Connection refused"
        r"|ConnectionError|Connect(ion )?[Tt]ime(d )?out|Read timed out|ReadTimeout|ProxyError|Connection broken"
        r"|Remote end closed",
        "no network, or the package index does not answer (pip tried several times). Check the connection (behind a "
        "proxy: set HTTPS_PROXY) and run the same command again; what was downloaded is kept",
    ),
    (
        r"Cannot install .* conflicting dependencies|ResolutionImpossible",
        "the versions contradict each other. Use the constraints.txt of this checkout",
    ),
    (
        r"No matching distribution found|Could not find a version that satisfies",
        "no build for this Python and system. Try another Python: --python python3.11",
    ),
]


def reason(words: str) -> str:
    """Why pip failed, with what to do, from what it said."""
    for pattern, text in REASONS:
        match = re.search(pattern, words)
        if match:
            return f"{text}. pip said: {words[match.start() :].partition(chr(10))[0].strip()[:160]}"
    errors = re.findall(r"^\s*(?:ERROR|error): (.+)$", words, re.MULTILINE)
    return errors[0].strip() if errors else last_line(words)


# --- PyTorch --------------------------------------------------------------------------------------------------------


def install_torch(python: Path, constraints: Path, is_cpu: bool) -> None:
    """Install PyTorch before all else, without gigabytes of CUDA where no GPU would use them.

    Only Linux needs the other index for that: elsewhere the ordinary one has no CUDA in it.
    """
    version = pinned_version(constraints, "torch")
    ordinary = ["torch" + (f"=={version}" if version else ""), "--constraint", str(constraints)]
    if is_cpu and sys.platform == "linux":
        if is_reachable(f"{CPU_INDEX}/torch/"):
            # An index beside the ordinary one: it serves torch, the rest comes from where it always comes from.
            exact = f"torch=={version}+cpu" if version else "torch"
            try:
                return pip(python, [exact, "--extra-index-url", CPU_INDEX, *ordinary[1:]], "PyTorch for the CPU")
            except InstallError as error:
                say(f"      {error}")
                say("      taking PyTorch from the ordinary index instead")
        else:
            say("      PyTorch's index of CPU builds cannot be reached; taking the ordinary one (may be larger)")
    if sys.platform == "win32" and not is_cpu:
        say("      this is PyTorch without CUDA, as the ordinary index has it for Windows; the other: pytorch.org")
    pip(python, ordinary, "PyTorch")


def wants_cpu_torch(is_cpu: bool) -> bool:
    """Whether PyTorch without CUDA will do: because it was asked for, or because there is no NVIDIA GPU."""
    return is_cpu or not (shutil.which("nvidia-smi") or Path("/proc/driver/nvidia/version").exists())


def is_reachable(url: str) -> bool:
    """Whether an address answers soon. In a thread, because looking up a name knows no time limit."""
    answers = []

    def knock() -> None:
        with contextlib.suppress(Exception):  # whatever went wrong, it did not answer
            request = urllib.request.Request(url, method="HEAD")
            with urllib.request.urlopen(request, timeout=CPU_INDEX_TIMEOUT_S) as answer:
                answers.append(answer.status)

    thread = threading.Thread(target=knock, daemon=True)
    thread.start()
    thread.join(CPU_INDEX_TIMEOUT_S)
    return bool(answers)


def pinned_version(constraints: Path, name: str) -> str | None:
    """The version of a `name==version` line; None when the file pins none."""
    match = re.search(rf"^{name}==([^\s;#]+)", constraints.read_text(encoding="utf-8"), re.MULTILINE)
    return match.group(1) if match else None


def check_installed(python: Path, torch_version: str | None) -> str:
    """Import what is large and fragile.

    Returns:
        One line that names the versions.

    Raises:
        InstallError: it does not import, or torch is not the version that the constraints name.
    """
    code = "import torch, transformers; print(torch.__version__, transformers.__version__, torch.cuda.is_available())"
    found = ask([str(python), "-c", code])
    if found.returncode:
        raise InstallError(f"What was installed does not import: {last_line(found.stderr)}")
    torch, transformers, has_gpu = last_line(found.stdout).split()
    if torch_version and torch.partition("+")[0] != torch_version:
        advice = f"Remove {show(python.parent.parent)} and try again."
        raise InstallError(f"torch {torch} was installed but the constraints name {torch_version}. {advice}")
    return f"torch {torch}, transformers {transformers}, {'with' if has_gpu == 'True' else 'without'} a GPU"


# --- processes and words --------------------------------------------------------------------------------------------


def run(command: list, cwd: Path | None = None, **variables: str) -> int:
    """Run a command in the foreground.

    Returns:
        Its exit status (128 and the signal's number when a signal ended it, as in a shell). Ctrl-C reaches the command
        too, so it decides how to end and this waits for it.
    """
    process = subprocess.Popen([str(part) for part in command], cwd=cwd and str(cwd), env={**os.environ, **variables})
    with stopping(process):
        while True:
            try:
                status = process.wait()
                return status if status >= 0 else 128 - status
            except KeyboardInterrupt:
                continue


def ask(command: list, cwd: Path | None = None, **variables: str) -> subprocess.CompletedProcess:
    """Run a command quietly and keep what it says."""
    environment = {**os.environ, **variables}
    return subprocess.run(command, capture_output=True, text=True, errors="replace", cwd=cwd and str(cwd), env=environment)


@contextlib.contextmanager
def stopping(process: subprocess.Popen):
    """Leave no process behind when this one is stopped in the middle."""
    try:
        yield
    except BaseException:
        process.terminate()
        process.wait()
        raise


def show(path: Path) -> str:
    """A path as the user would write it."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def refuse(rest: list) -> None:
    """Refuse further arguments, where there is nobody to pass them on to."""
    if rest:
        raise UserError(f"unrecognized arguments: {' '.join(rest)}. See: python install.py --help")


def last_line(text: str) -> str:
    """The last line of a program's words that says something."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "it said nothing")


def say(text: str) -> None:
    """One line of progress for the user."""
    print(text, flush=True)


class Parser(argparse.ArgumentParser):
    """Reports a wrong argument as every other mistake: in one line."""

    def error(self, message: str) -> None:
        raise UserError(f"{message}. See: python install.py --help")


def parse(arguments: list) -> tuple:
    """Read the command line.

    Returns:
        The options, and the arguments that the verb passes on.
    """
    parser = Parser(prog="install.py", description=__doc__.split("\n\n")[0], allow_abbrev=False)
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", parser_class=Parser)
    for name, (function, flags) in VERBS.items():
        text = function.__doc__.splitlines()[0]
        verb = verbs.add_parser(name, help=text, description=text, allow_abbrev=False)
        for flag in flags:
            verb.add_argument(flag, **FLAGS[flag])
    options, rest = parser.parse_known_args(arguments)
    if options.verb is None:
        parser.error(f"say what to do: {', '.join(VERBS)}")
    return options, [argument for argument in rest if argument != "--"]


def main(arguments: list | None = None) -> int:
    """Run a verb; a mistake or a failure becomes one line on stderr and an exit status."""
    with contextlib.suppress(ValueError):  # only the main thread may do this
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        options, rest = parse(sys.argv[1:] if arguments is None else arguments)
        return VERBS[options.verb][0](options, rest)
    except InstallError as error:
        message, status = str(error), error.status
    except KeyboardInterrupt:
        message, status = "Interrupted. Run the same command again to go on.", 130
    except OSError as error:
        message, status = f"{error}. {advice_for(error, options.verb)}", 1
    print(f"install.py: {message}", file=sys.stderr, flush=True)
    return status


def advice_for(error: OSError, verb: str) -> str:
    """What to do about an error of the file system."""
    if error.errno == errno.ENOSPC:
        return "The disk is full: make room and run the same command again."
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        other = ", or name another one: --venv DIR" if verb in ("demo", "test") else ", and run the same command again"
        return f"The folder may not be written: check who owns it{other}"
    return f"Python {platform.python_version()} on {platform.platform()}."


if __name__ == "__main__":
    sys.exit(main())
