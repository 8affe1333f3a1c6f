"""Made-up web UIs for the tests of the installer: as much of one as it looks at, with stand-ins for Python and for us."""

import json
import os
import shutil
import sys
from pathlib import Path

from installer import command_line, project

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


def make_checkout(folder: Path, monkeypatch) -> Path:
    """A project of a few files, which the installer takes for its own from now on."""
    checkout = folder / "项目 project"
    plugin = checkout / "extensions" / "multimodal_vcla"
    write(plugin / "script.py", "params = {}\n")
    write(plugin / "hooks.py", "# hooks\n")
    write(plugin / "__pycache__" / "hooks.cpython-311.pyc", "byte code")
    write(plugin / "presets" / "VisualCLA.yaml", "temperature: 0.5\n")
    write(plugin / "instruction-templates" / "VisualCLA.yaml", "instruction_template: x\n")
    write(checkout / "pipelines" / "__init__.py", "")
    write(checkout / "pipelines" / "visualcla" / "pipeline.py", "# eyes\n")
    for name in ("install.py", "pyproject.toml"):
        shutil.copy(ROOT / name, checkout)
    monkeypatch.setattr(project, "ROOT", checkout)
    for name in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(folder))
    return checkout


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


def fails(capsys, *arguments: object, status: int = 2) -> str:
    """What a mistake is answered with: one line."""
    capsys.readouterr()
    assert command_line.main(list(map(str, arguments))) == status
    error = capsys.readouterr().err
    assert error.startswith("install.py: ") and error.count("\n") == 1, error
    return error


def update_project(checkout) -> None:
    plugin = checkout / "extensions" / "multimodal_vcla"
    (plugin / "hooks.py").rename(plugin / "better_hooks.py")
    write(plugin / "script.py", "params = {'new': 1}\n")
    write(plugin / "presets" / "VisualCLA.yaml", "temperature: 0.7\n")
    project = checkout / "pyproject.toml"
    write(project, project.read_text().replace('version = "0.1.0"', 'version = "0.2.0"'))


def python_with(web: Path, **packages: str | None) -> Path:
    python = web / "installer_files/env/bin/python"
    found = {name: version for name, version in {**HAS, **packages}.items() if version is not None}
    write(python.with_name("python.packages"), json.dumps(found))
    return python
