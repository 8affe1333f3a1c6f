"""install.py webui, uninstall, doctor: on made-up web UIs, with a small stand-in for the project and for their Python."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HAS = {"torch": "2.9.1+cu128", "transformers": "5.6.2", "accelerate": "1.13.0", "safetensors": "0.7.0", "pillow": "12.1.0"}
HAS |= {"sentencepiece": "0.2.1", "gradio": "4.37.2+custom.20"}
STUB = """
import json, os, sys
arguments = sys.argv[2:]
if arguments[0] == "-c":
    print(json.dumps(json.load(open(sys.argv[1] + ".packages"))) if "metadata" in arguments[1] else "3.11.7 1 1 1")
elif arguments[1] == "pip":
    with open(sys.argv[1] + ".calls", "a", encoding="utf-8") as calls:
        calls.write(json.dumps([open(word).read() if word.endswith("held.txt") else word for word in arguments[2:]]) + "\\n")
    packages = json.load(open(sys.argv[1] + ".packages"))
    if "--dry-run" in arguments:
        print(json.dumps({"install": [{"metadata": {"name": "SentencePiece", "version": "0.2.1"}}]}))
    elif arguments[2] == "install":
        packages.update(sentencepiece="0.2.1", **json.loads(os.environ.get("STUB_MOVES", "{}")))
    else:
        del packages["sentencepiece"]
    json.dump(packages, open(sys.argv[1] + ".packages", "w"))
else:
    os.execv(sys.executable, [sys.executable, *arguments])
"""
pytestmark = pytest.mark.skipif(os.name == "nt", reason="links and the stand-in for Python need a Unix")


class Killed(BaseException):
    """The process ends here."""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """install.py as a module, for a project of a few files."""
    spec = importlib.util.spec_from_file_location("install", ROOT / "install.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    project = tmp_path / "项目 project"
    plugin = project / "extensions" / "multimodal_vcla"
    write(plugin / "script.py", "params = {}\n")
    write(plugin / "hooks.py", "# hooks\n")
    write(plugin / "__pycache__" / "hooks.cpython-311.pyc", "byte code")
    write(plugin / "presets" / "VisualCLA.yaml", "temperature: 0.5\n")
    write(plugin / "instruction-templates" / "VisualCLA.yaml", "instruction_template: x\n")
    write(project / "pipelines" / "__init__.py", "")
    write(project / "pipelines" / "visualcla" / "pipeline.py", "# eyes\n")
    shutil.copy(ROOT / "pyproject.toml", project)
    monkeypatch.setattr(module, "ROOT", project)
    for name in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return module


@pytest.fixture
def web(tmp_path):
    """A web UI of the one-click installer, as far as install.py looks at it."""
    return make_webui(tmp_path / "我的 web ui")


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def make_webui(root: Path, environment: str = "installer_files/env") -> Path:
    write(root / "server.py", "# the web UI\n")
    write(root / "modules" / "extensions.py", "")
    write(root / "extensions" / "example" / "script.py", "")
    write(root / "user_data" / "extensions" / "place-your-extensions-here.txt", "")
    write(root / "user_data" / "presets" / "Top-P.yaml", "top_p: 0.95\n")
    write(root / "user_data" / "instruction-templates" / "Alpaca.yaml", "x")
    write(root / "user_data" / "models" / "place-your-models-here.txt", "")
    write(root / "user_data" / "CMD_FLAGS.txt", "# Add persistent flags here\n# --listen --api\n")
    make_python(root / environment / "bin" / "python")
    return root


def make_python(path: Path, **packages: str) -> Path:
    stub = write(path.parent / "stub.py", STUB)
    write(path, f'#!/bin/sh\nexec "{sys.executable}" -IS "{stub}" "$0" "$@"\n').chmod(0o755)
    write(path.with_name(path.name + ".packages"), json.dumps({**HAS, **packages}))
    return path


def make_model(folder: Path) -> Path:
    write(folder / "config.json", '{"model_type": "llama", "hidden_size": 64}')
    write(folder / "vision" / "config.json", '{"model_type": "visualcla", "text_config": {"hidden_size": 64}}')
    return folder


def snapshot(root: Path) -> dict[str, object]:
    """Every entry of a tree with its content; the stand-in for Python notes its calls, so it is left out."""
    found = {}
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name != "installer_files"]
        for name in folders + files:
            path = Path(folder, name)
            kind = (
                os.readlink(path) if path.is_symlink() else None if path.is_dir() else (path.read_bytes(), path.stat().st_mode)
            )
            found[path.relative_to(root).as_posix()] = kind
    return found


def fails(install, capsys, *arguments: object, status: int = 2) -> str:
    """What a mistake is answered with: one line."""
    capsys.readouterr()
    assert install.main(list(map(str, arguments))) == status
    error = capsys.readouterr().err
    assert error.startswith("install.py: ") and error.count("\n") == 1, error
    return error


# --- in and out


def test_plugin_and_pipelines_land_in_the_extensions_own_folder(install, web, capsys):
    before = snapshot(web)
    assert install.main(["webui", str(web)]) == 0
    place = "user_data/extensions/multimodal_vcla"
    files = {name for name, content in snapshot(web).items() if name not in before and content is not None}
    inside = ["script.py", "hooks.py", "presets/VisualCLA.yaml", "instruction-templates/VisualCLA.yaml"]
    inside += ["pipelines/__init__.py", "pipelines/visualcla/pipeline.py"]
    assert files == {
        *(f"{place}/{name}" for name in inside),
        f"{place}.json",
        "user_data/presets/VisualCLA.yaml",
        "user_data/instruction-templates/VisualCLA.yaml",
    }
    output = capsys.readouterr().out
    assert "nothing is missing" in output and "Start the web UI with --extensions multimodal_vcla" in output
    assert "of an unknown version" in output and "tested with v4.7" in output
    assert f"uninstall '{web}'" in output


@pytest.mark.parametrize("flags", [[], ["--enable"], ["--system"], ["--link"], ["--model"], ["--enable", "--link", "--model"]])
@pytest.mark.parametrize("tree", ["plain", "linked user_data", "user_data elsewhere", "bare user_data"])
def test_uninstall_leaves_every_byte_as_it_was(install, web, tmp_path, flags, tree):
    everywhere = [] if tree != "user_data elsewhere" else ["--user-data-dir", str(tmp_path / "elsewhere")]
    if tree in ("linked user_data", "user_data elsewhere"):
        (web / "user_data").rename(tmp_path / "elsewhere")
    if tree == "linked user_data":
        (web / "user_data").symlink_to(tmp_path / "elsewhere")
    if tree == "bare user_data":
        shutil.rmtree(web / "user_data")
        write(web / "user_data" / "settings.yaml", "mode: chat")
    model = make_model(tmp_path / "模型 7b")
    arguments = [word for flag in flags for word in ([flag, str(model)] if flag == "--model" else [flag])]
    before = snapshot(tmp_path)
    for _ in range(2):  # repeating changes nothing
        assert install.main(["webui", str(web), *everywhere, *arguments]) == 0
    write(tmp_path / "x" / "y", "")  # the snapshots see what they should see
    assert snapshot(tmp_path) != before
    shutil.rmtree(tmp_path / "x")
    user_data = tmp_path / "elsewhere" if everywhere else web / "user_data"
    if "--model" in flags:
        assert (user_data / "models" / "模型 7b" / "config.json").is_file()
    if "--enable" in flags:
        assert "- multimodal_vcla" in (user_data / "settings.yaml").read_text()
    base = web if "--system" in flags else user_data
    assert (base / "extensions" / "multimodal_vcla" / "script.py").is_file()
    assert (base / "extensions" / "multimodal_vcla").is_symlink() == ("--link" in flags)
    assert install.main(["uninstall", str(web), *everywhere]) == 0
    assert snapshot(tmp_path) == before


def test_dry_run_changes_nothing(install, web, tmp_path, capsys):
    model = make_model(tmp_path / "model")
    before = snapshot(tmp_path)
    assert install.main(["webui", str(web), "--dry-run", "--enable", "--model", str(model)]) == 0
    assert snapshot(tmp_path) == before
    output = capsys.readouterr().out
    for words in ("presets/VisualCLA.yaml", "models/model -> ", "user_data/settings.yaml", "Nothing was changed"):
        assert words in output


def test_byte_code_of_a_run_goes_too(install, web):
    before = snapshot(web)
    install.main(["webui", str(web)])
    write(web / "user_data/extensions/multimodal_vcla/pipelines/__pycache__/base.cpython-313.pyc", "")
    assert install.main(["uninstall", str(web)]) == 0
    assert snapshot(web) == before


def test_uninstall_leaves_what_the_user_changed_and_says_so(install, web, capsys):
    install.main(["webui", str(web), "--enable"])
    extension = web / "user_data/extensions/multimodal_vcla"
    write(extension / "hooks.py", "# mine\n")
    write(extension / "pipelines" / "llava" / "pipelines.py", "# dropped in\n")
    write(web / "user_data/presets/VisualCLA.yaml", "temperature: 1\n")
    write(web / "user_data/settings.yaml", "mode: chat\ndefault_extensions:\n- gallery\n- multimodal_vcla\nseed: 3\n")
    capsys.readouterr()
    assert install.main(["uninstall", str(web)]) == 0
    output = capsys.readouterr().out
    left = [name for name in snapshot(extension) if not (extension / name).is_dir()]
    assert sorted(left) == ["hooks.py", "pipelines/llava/pipelines.py"]
    assert (web / "user_data/settings.yaml").read_text() == "mode: chat\ndefault_extensions:\n- gallery\nseed: 3\n"
    assert (web / "user_data/presets/VisualCLA.yaml").read_text() == "temperature: 1\n"
    for words in ("hooks.py was changed", "presets/VisualCLA.yaml was changed", "llava/pipelines.py was put there by somebody"):
        assert words in output


def test_model_link_that_became_something_else_stays(install, web, tmp_path, capsys):
    install.main(["webui", str(web), "--model", str(make_model(tmp_path / "model"))])
    (web / "user_data/models/model").unlink()
    write(web / "user_data/models/model/config.json", "{}")
    assert install.main(["uninstall", str(web)]) == 0
    assert "models/model is no link to" in capsys.readouterr().out
    assert (web / "user_data/models/model/config.json").is_file()


# --- updates


def update_project(install) -> None:
    plugin = install.ROOT / "extensions" / "multimodal_vcla"
    (plugin / "hooks.py").rename(plugin / "better_hooks.py")
    write(plugin / "script.py", "params = {'new': 1}\n")
    write(plugin / "presets" / "VisualCLA.yaml", "temperature: 0.7\n")
    project = install.ROOT / "pyproject.toml"
    write(project, project.read_text().replace('version = "0.1.0"', 'version = "0.2.0"'))


def test_second_install_brings_an_older_one_up_to_date(install, web):
    before = snapshot(web)
    install.main(["webui", str(web), "--enable"])
    update_project(install)
    assert install.main(["webui", str(web)]) == 0
    updated = snapshot(web)
    extension = "user_data/extensions/multimodal_vcla"
    assert f"{extension}/hooks.py" not in updated and f"{extension}/better_hooks.py" in updated
    assert updated["user_data/presets/VisualCLA.yaml"][0] == b"temperature: 0.7\n"
    manifest = json.loads(updated[f"{extension}.json"][0])
    assert (manifest["version"], manifest["unfinished"]) == ("0.2.0", False)
    assert install.main(["uninstall", str(web)]) == 0
    assert snapshot(web) == before


def test_update_keeps_what_the_user_has_in_there(install, web, capsys):
    install.main(["webui", str(web)])
    extension = web / "user_data/extensions/multimodal_vcla"
    for version in ("mine", "mine again"):
        write(extension / "script.py", version)
        write(extension / "pipelines" / "llava" / "weights.bin", "large")
        write(web / "user_data/presets/VisualCLA.yaml", "temperature: 1\n")
        update_project(install) if version == "mine" else None
        assert install.main(["webui", str(web)]) == 0
    assert (extension / "script.py").read_text() == "params = {'new': 1}\n"
    assert (extension / "script.py.yours").read_text() == "mine"
    assert (extension / "script.py.yours.yours").read_text() == "mine again"
    assert (extension / "pipelines" / "llava" / "weights.bin").read_text() == "large"
    assert (web / "user_data/presets/VisualCLA.yaml").read_text() == "temperature: 1\n"
    output = capsys.readouterr().out
    assert "your version is kept as script.py.yours" in output and "stays as it is" in output


def test_users_own_files_of_the_same_name_are_theirs(install, web):
    write(web / "user_data/presets/VisualCLA.yaml", "temperature: 0.5\n")  # the same content, but there before us
    write(web / "user_data/instruction-templates/VisualCLA.yaml", "other")
    before = snapshot(web)
    install.main(["webui", str(web)])
    install.main(["uninstall", str(web)])
    after = snapshot(web)
    assert after["user_data/instruction-templates/VisualCLA.yaml"] == before["user_data/instruction-templates/VisualCLA.yaml"]
    assert after == before


@pytest.mark.parametrize("flags", [("--link",), ()])
def test_copy_becomes_a_link_and_back(install, web, flags):
    before = snapshot(web)
    install.main(["webui", str(web), *({"--link"} - set(flags))])
    assert install.main(["webui", str(web), *flags]) == 0
    assert (web / "user_data/extensions/multimodal_vcla").is_symlink() == bool(flags)
    source = snapshot(install.ROOT)
    assert install.main(["uninstall", str(web)]) == 0
    assert snapshot(web) == before and snapshot(install.ROOT) == source


# --- interruptions

OPERATIONS = ("mkdir", "replace", "rename", "unlink", "rmdir", "symlink")


def run_until(install, monkeypatch, number: int, arguments: list[str]) -> bool:
    """Run, and die before the file system is changed for the `number`th time; whether it came to that."""
    count = 0

    def dying(operation):
        def call(*args, **kwargs):
            nonlocal count
            count += 1
            if count == number:
                raise Killed
            return operation(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        for name in OPERATIONS:
            patch.setattr(os, name, dying(getattr(os, name)))
        try:
            install.main(arguments)
        except Killed:
            return True
    return False


@pytest.mark.parametrize("was_installed", [False, True])
def test_killed_install_can_be_finished_or_taken_out(install, web, tmp_path, monkeypatch, was_installed):
    monkeypatch.setattr(install, "packages_of", lambda python: HAS)
    original = snapshot(web)
    arguments = ["webui", str(web), "--enable", "--model", str(make_model(tmp_path / "model"))]
    if was_installed:
        install.main(["webui", str(web)])
        update_project(install)
    shutil.copytree(web, tmp_path / "start", symlinks=True)
    install.main(arguments)
    whole = snapshot(web)
    for number in range(1, 500):
        outcomes = []
        for second in (arguments, ["uninstall", str(web)]):
            shutil.rmtree(web)
            shutil.copytree(tmp_path / "start", web, symlinks=True)
            was_killed = run_until(install, monkeypatch, number, arguments)
            status = install.main(second)
            outcomes.append((status, snapshot(web)))
        assert outcomes[0] == (0, whole), number
        (status, after) = outcomes[1]
        assert after == original and status in (0, 2), number  # 2: it had put nothing in yet
        if not was_killed:
            break
    assert number > 15


def test_killed_uninstall_can_be_finished(install, web, tmp_path, monkeypatch):
    monkeypatch.setattr(install, "packages_of", lambda python: HAS)
    original = snapshot(web)
    install.main(["webui", str(web), "--enable", "--model", str(make_model(tmp_path / "model"))])
    shutil.copytree(web, tmp_path / "start", symlinks=True)
    for number in range(1, 500):
        shutil.rmtree(web)
        shutil.copytree(tmp_path / "start", web, symlinks=True)
        was_killed = run_until(install, monkeypatch, number, ["uninstall", str(web)])
        if not was_killed:
            break
        install.main(["uninstall", str(web)])
        assert snapshot(web) == original, number
    assert number > 10


def test_folder_that_may_not_be_written_is_one_line_and_changes_nothing(install, web, monkeypatch, capsys):
    before = snapshot(web)

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied", "user_data/extensions")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", refuse)
        error = fails(install, capsys, "webui", web, status=1)
    assert "may not be written: check who owns it" in error and "--venv" not in error
    assert snapshot(web) == before


# --- what stands in the way


def test_another_extension_of_the_same_name_is_left_alone(install, web, capsys):
    script = write(web / "user_data/extensions/multimodal_vcla/script.py", "# not ours\n")
    before = snapshot(web)
    for flags in ([], ["--link"], ["--system"]):  # in user_data it would hide ours in extensions/
        assert "was not put there by install.py" in fails(install, capsys, "webui", web, *flags)
    assert "put there by hand: delete it" in fails(install, capsys, "uninstall", web)
    assert snapshot(web) == before and script.is_file()
    shutil.move(web / "user_data/extensions/multimodal_vcla", web / "extensions")
    assert "was not put there by install.py" in fails(install, capsys, "webui", web, "--system")
    assert install.main(["webui", str(web)]) == 0
    assert "extensions/multimodal_vcla is there too; the web UI takes the one in user_data" in capsys.readouterr().out


def test_other_place_is_told(install, web, capsys):
    install.main(["webui", str(web)])
    error = fails(install, capsys, "webui", web, "--system")
    assert "It is installed in user_data/extensions/multimodal_vcla. Take it out first: python " in error


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["webui"], "arguments are required: DIR"),
        (["webui", "{tmp}"], "is no text-generation-webui: server.py and modules/extensions.py are not there"),
        (["webui", "{tmp}/outer"], "Did you mean"),
        (["webui", "{tmp}/old"], "has no folder 'user_data'. It is too old"),
        (["webui", "{web}", "--user-data-dir", "{tmp}/none"], "has no folder 'none'"),
        (["webui", "{web}", "--modle", "x"], "unrecognized arguments: --modle x"),
        (["webui", "{web}", "--model", "{tmp}"], "is no model folder: it has no config.json"),
        (["webui", "{web}", "--python", "no-such-python"], "'no-such-python' is not a program"),
        (["webui", "{tmp}/nopython"], "The web UI's Python was not found (looked in installer_files/env"),
        (["uninstall", "{web}"], "Nothing in"),
        (["doctor", "{tmp}/none"], "is not a folder"),
    ],
)
def test_mistakes_are_one_line(install, web, tmp_path, capsys, arguments, words):
    make_webui(tmp_path / "outer" / "app")
    shutil.rmtree(make_webui(tmp_path / "old") / "user_data")
    shutil.rmtree(make_webui(tmp_path / "nopython") / "installer_files")
    before = snapshot(tmp_path)
    assert words in fails(install, capsys, *(word.format(web=web, tmp=tmp_path) for word in arguments))
    assert snapshot(tmp_path) == before


def test_name_of_a_model_that_is_taken(install, web, tmp_path, capsys):
    write(web / "user_data/models/model/config.json", "{}")
    assert "is another model" in fails(install, capsys, "webui", web, "--model", make_model(tmp_path / "model"))
    assert install.main(["webui", str(web), "--model", str(web / "user_data/models/model")]) == 0  # there already


# --- the web UI's Python and its packages


@pytest.mark.parametrize("environment", ["installer_files/env", "venv", ".venv", "portable_env"])
def test_python_of_the_web_ui_is_found(install, tmp_path, environment):
    web = install.WebUI(str(make_webui(tmp_path / "web ui", environment)))
    assert web.find_python(None) == str(web.root / environment / "bin" / "python")


def test_active_environment_counts_when_it_is_a_web_uis(install, web, tmp_path, monkeypatch, capsys):
    shutil.rmtree(web / "installer_files")
    other = make_python(tmp_path / "other" / "bin" / "python", gradio="6.31.0")
    monkeypatch.setenv("VIRTUAL_ENV", str(tmp_path / "other"))
    fails(install, capsys, "webui", web)
    monkeypatch.setenv("CONDA_PREFIX", str(make_python(tmp_path / "conda" / "bin" / "python").parent.parent))
    found = install.WebUI(str(web))
    assert found.find_python(None) == str(tmp_path / "conda" / "bin" / "python")
    assert found.find_python(str(other)) == str(other)
    monkeypatch.delenv("CONDA_PREFIX")
    assert install.main(["webui", str(web), "--python", str(other)]) == 0
    assert found.find_python(None) == str(other)  # what was named once is known


def test_conda_environment_named_textgen_is_found(install, web, tmp_path):
    shutil.rmtree(web / "installer_files")
    python = make_python(tmp_path / "conda" / "envs" / "textgen" / "bin" / "python")
    write(tmp_path / ".conda" / "environments.txt", f"{tmp_path}/conda\n{python.parent.parent}\n")
    assert install.WebUI(str(web)).find_python(None) == str(python)


def python_with(web: Path, **packages: str | None) -> Path:
    python = web / "installer_files/env/bin/python"
    found = {name: version for name, version in {**HAS, **packages}.items() if version is not None}
    write(python.with_name("python.packages"), json.dumps(found))
    return python


@pytest.mark.parametrize(
    ("packages", "words"),
    [
        ({"torch": None, "transformers": None}, "has no torch. It is a portable one"),
        ({"transformers": "4.57.6"}, "has transformers 4.57.6; 5.6 or newer is needed. No version of the web UI is moved here"),
        ({"pillow": "10.4.0"}, "has pillow 10.4.0; 11.3 or newer is needed"),
    ],
)
def test_web_ui_that_cannot_carry_the_plugin_is_refused(install, web, capsys, packages, words):
    python_with(web, **packages)
    before = snapshot(web)
    assert words in fails(install, capsys, "webui", web)
    assert snapshot(web) == before


def test_only_what_is_missing_is_installed_with_everything_else_held(install, web, capsys):
    python = python_with(web, sentencepiece=None)
    assert install.main(["webui", str(web)]) == 0
    assert "packages      sentencepiece 0.2.1" in capsys.readouterr().out
    plan, done = (json.loads(line) for line in python.with_name("python.calls").read_text().splitlines())
    for call in (plan, done):
        assert call[0] == "install" and call[-1] == "sentencepiece>=0.2"
        held = call[call.index("--constraint") + 1].split()
        assert held == [f"{name}=={version}" for name, version in HAS.items() if name != "sentencepiece"]
    assert ("--dry-run" in plan) and ("--dry-run" not in done)
    assert install.main(["uninstall", str(web)]) == 0
    assert json.loads(python.with_name("python.calls").read_text().splitlines()[-1])[-1] == "sentencepiece"
    assert "sentencepiece" not in install.packages_of(python)


def test_package_that_has_moved_on_stays(install, web, capsys):
    python_with(web, sentencepiece=None)
    install.main(["webui", str(web)])
    python_with(web, sentencepiece="0.3.0")
    assert install.main(["uninstall", str(web)]) == 0
    assert "left: the package sentencepiece is now 0.3.0" in capsys.readouterr().out


def test_moved_version_is_an_error(install, web, capsys, monkeypatch):
    python_with(web, sentencepiece=None)
    monkeypatch.setenv("STUB_MOVES", '{"torch": "2.13.0"}')
    assert "pip moved what was there: torch 2.9.1+cu128 -> 2.13.0" in fails(install, capsys, "webui", web, status=1)
    assert json.loads((web / "user_data/extensions/multimodal_vcla.json").read_text())["unfinished"]


def make_wheel(folder: Path, name: str, version: str, needs: str = "") -> None:
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}.py", "")
        needed = f"Requires-Dist: {needs}\n" if needs else ""
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needed}")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


@pytest.mark.slow
def test_real_pip_moves_nothing(install, web, tmp_path, monkeypatch, capsys):
    """A plain venv; of the packages there are newer ones, which the missing package would like to have."""
    shutil.rmtree(web / "installer_files")
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    for name, version in HAS.items():
        make_wheel(wheels, name, version.partition("+")[0])
    make_wheel(wheels, "sentencepiece", "0.2.9", needs="numpy>=2")
    for version in ("2.0.0", "2.2.6"):
        make_wheel(wheels, "numpy", version)
    make_wheel(wheels, "torch", "9.9")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    subprocess.run([sys.executable, "-m", "venv", web / "venv"], check=True)
    python = web / "venv/bin/python"
    present = [f"{name}=={version.partition('+')[0]}" for name, version in HAS.items() if name != "sentencepiece"]
    subprocess.run([python, "-m", "pip", "install", "-q", *present, "numpy==2.0.0"], check=True)
    before = install.packages_of(python)
    assert install.main(["webui", str(web)]) == 0
    assert install.packages_of(python) == {**before, "sentencepiece": "0.2.9"}
    assert install.main(["uninstall", str(web)]) == 0
    assert install.packages_of(python) == before


# --- switched on at start


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "default_extensions:\n- multimodal_vcla\n"),
        ("mode: chat", "mode: chat\ndefault_extensions:\n- multimodal_vcla\n"),
        ("default_extensions:\n- a\nseed: 1\n", "default_extensions:\n- multimodal_vcla\n- a\nseed: 1\n"),
        ("default_extensions:  # mine\n  # two\n  - a\n", "default_extensions:  # mine\n  - multimodal_vcla\n  # two\n  - a\n"),
        ("default_extensions: []\n", "default_extensions: [multimodal_vcla]\n"),
        ("default_extensions: [a, 'b']\n", "default_extensions: [multimodal_vcla, a, 'b']\n"),
        ("default_extensions: null\nx: 1\n", "default_extensions:\n- multimodal_vcla\nx: 1\n"),
        ("default_extensions:\n- multimodal_vcla_2\n", "default_extensions:\n- multimodal_vcla\n- multimodal_vcla_2\n"),
    ],
)
def test_settings_keep_all_else(install, before, after):
    yaml = pytest.importorskip("yaml")
    assert install.with_extension(before, True) == after
    assert install.with_extension(after, True) is None
    assert yaml.safe_load(after)["default_extensions"][0] == "multimodal_vcla"
    undone = install.with_extension(after, False)
    assert (yaml.safe_load(undone) or {}).get("default_extensions") == (
        (yaml.safe_load(before) or {}).get("default_extensions") or ([] if "[]" in before else None)
    )
    assert install.with_extension(undone, False) is None


def test_list_that_is_not_understood_is_not_touched(install, web, capsys):
    write(web / "user_data/settings.yaml", "default_extensions: [a,\n  b]\n")
    before = snapshot(web)
    assert "does not understand: '[a,'" in fails(install, capsys, "webui", web, "--enable")
    assert snapshot(web) == before
    assert install.main(["webui", str(web)]) == 0


@pytest.mark.parametrize("flags", ["--extensions gallery multimodal_vcla --api", "--api \\\n--extensions multimodal_vcla"])
def test_flags_that_switch_it_on_are_enough(install, web, flags, capsys):
    write(web / "user_data/CMD_FLAGS.txt", f"# flags\n{flags}\n")
    assert install.main(["webui", str(web), "--enable"]) == 0
    assert not (web / "user_data/settings.yaml").exists()
    assert "Start the web UI and load" in capsys.readouterr().out


def test_flags_of_a_comment_do_not_count(install, web):
    write(web / "user_data/CMD_FLAGS.txt", "# --extensions multimodal_vcla\n")
    assert install.enabled_in(install.WebUI(str(web))) is None


# --- doctor


def doctor(install, capsys, *arguments: object) -> tuple[int, str]:
    capsys.readouterr()
    status = install.main(["doctor", *map(str, arguments)])
    return status, capsys.readouterr().out


@pytest.fixture
def real_pipelines(install):
    """The doctor's core is the project's own."""
    shutil.rmtree(install.ROOT / "pipelines")
    shutil.copytree(ROOT / "pipelines", install.ROOT / "pipelines", ignore=shutil.ignore_patterns("__pycache__"))


def test_doctor_says_what_a_web_ui_holds(install, web, tmp_path, capfd, real_pipelines, monkeypatch):
    monkeypatch.setattr(install, "run", lambda command, cwd: print(command[-1]) or 0)
    status, output = doctor(install, capfd, web)
    assert status == 1
    for words in ("of an unknown version", "installer_files/env/bin/python", "torch 2.9.1+cu128", "loaders: Transformers"):
        assert words in output
    for words in ("plugin: not installed; not switched on", "missing: the plugin", "models with eyes: none"):
        assert words in output
    assert f"next: python {install.shlex.quote(str(install.ROOT / 'install.py'))} webui '{web}'\n" in output
    install.main(["webui", str(web), "--enable", "--model", str(make_model(tmp_path / "seeing"))])
    write(web / "user_data/presets/VisualCLA.yaml", "temperature: 1\n")
    (web / "user_data/extensions/multimodal_vcla/pipelines/__init__.py").unlink()
    status, output = doctor(install, capfd, web)
    assert status == 1
    for words in ("0.1.0 in user_data/extensions/multimodal_vcla, by install.py", "switched on in user_data/settings.yaml"):
        assert words in output
    for words in (
        "changed by you: user_data/presets/VisualCLA.yaml",
        "missing: user_data/extensions/multimodal_vcla/pipelines",
    ):
        assert words in output
    assert "models with eyes: seeing" in output and str(web / "user_data/models/seeing") in output


@pytest.mark.slow
def test_doctor_for_programs(install, web, tmp_path, capfd, real_pipelines):
    model = make_model(tmp_path / "model")
    install.main(["webui", str(web), "--enable", "--model", str(model)])
    status, output = doctor(install, capfd, web, model, "--json")
    found = json.loads(output)
    (report,) = found["webuis"]
    assert status == 1 and report["missing"] == [] and report["next"] == ["start the web UI and load a model that has eyes"]
    assert report["packages"]["torch"] == "2.9.1+cu128" and report["models_with_eyes"] == [str(web / "user_data/models/model")]
    assert [item["family"] for item in found["models"]] == ["visualcla", "visualcla"]
    assert all("weights" in " ".join(item["missing"]) for item in found["models"])


def test_version_is_what_git_says(install, web):
    if shutil.which("git") is None:
        pytest.skip("there is no git")
    git = ["git", "-C", str(web), "-c", "user.name=x", "-c", "user.email=x@example.invalid"]
    for command in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "x"], ["tag", "v4.7.3"]):
        subprocess.run([*git, *command], check=True, capture_output=True)
    assert install.WebUI(str(web)).version() == "v4.7.3"
