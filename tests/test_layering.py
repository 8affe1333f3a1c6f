"""The import arrows between the rooms: who may know whom. The walker reads sources and imports nothing."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import import_graph
import pytest

from pipelines.registry import FAMILIES

ROOT = Path(__file__).resolve().parent.parent
PLUGIN = "extensions/multimodal_vcla"
FORBIDDEN = {
    "pipelines": {"gradio", "modules", "extensions", "multimodal_vcla", "training", "demo", "installer", "serving"},
    "training": {"gradio", "modules", "extensions", "multimodal_vcla", "demo", "installer"},
    "demo": {"modules", "extensions", "multimodal_vcla", "training", "installer"},
    "serving": {"gradio", "modules", "extensions", "multimodal_vcla", "training", "demo", "installer"},
    PLUGIN: {"training", "demo", "installer", "serving"},
}
IN_ONE_FILE = {PLUGIN: {"gradio", "modules"}}
ONLY_IN = {"demo": {"gradio": {"ui.py", "handlers.py"}}}  # where the components stand, and what happens when they are used
ONLY_INSIDE_FUNCTIONS = {"pipelines": {"peft", "bitsandbytes"}}  # the web UI has them, but need not load them
STANDARD_LIBRARY_ONLY = {"install.py": False, "installer": False, f"{PLUGIN}/script.py": True}  # path: at top level only
BESIDES = {"install.py": {"installer"}}  # what is allowed there all the same


def imported(source: str, at_top_level: bool = False) -> Iterator[tuple[int, str]]:
    """Line and top-level name of each absolute import; relative ones cannot leave their room."""
    nodes = [ast.parse(source)]
    while nodes:
        node = nodes.pop()
        if at_top_level and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in (
            "import_module",
            "__import__",
        ):
            names = [arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant) and arg.value[:1] != "."]
        yield from ((node.lineno, name.partition(".")[0]) for name in names)
        nodes.extend(ast.iter_child_nodes(node))


def violations(root: Path) -> list[str]:
    """Each import that goes against an arrow, as 'file:line imports name'."""
    found = []

    def look(file: Path, is_wrong, at_top_level: bool = False) -> set[str]:
        names = list(imported(file.read_text(encoding="utf-8"), at_top_level))
        found.extend(f"{file.relative_to(root).as_posix()}:{line} imports {name}" for line, name in names if is_wrong(name))
        return {name for _, name in names}

    for room, forbidden in FORBIDDEN.items():
        users = {}
        for file in sorted((root / room).rglob("*.py")):
            for name in look(file, forbidden.__contains__):
                users.setdefault(name, []).append(file.name)
            look(file, ONLY_INSIDE_FUNCTIONS.get(room, set()).__contains__, at_top_level=True)
        several = sorted(name for name in IN_ONE_FILE.get(room, ()) if len(users.get(name, ())) > 1)
        found += [
            f"{room}/{file}: imports {name}"
            for name, files in ONLY_IN.get(room, {}).items()
            for file in users.get(name, ())
            if file not in files
        ]
        found += [f"{room}: {name} is imported in several files: {', '.join(users[name])}" for name in several]
    for name, at_top_level in STANDARD_LIBRARY_ONLY.items():
        allowed = sys.stdlib_module_names | BESIDES.get(name, set())
        for file in sorted((root / name).rglob("*.py")) if (root / name).is_dir() else [root / name]:
            if file.exists():
                look(file, lambda module, allowed=allowed: module not in allowed, at_top_level)
    return found


def test_imports_keep_the_arrows():
    assert violations(ROOT) == []


def tree(root: Path, files: dict[str, str]) -> Path:
    """Write a small made-up project."""
    for name, source in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(source, encoding="utf-8")
    return root


@pytest.mark.parametrize(
    ("file", "source", "name"),
    [
        ("pipelines/a.py", "import gradio as gr", "gradio"),
        ("pipelines/b/c.py", "def f():\n    from modules.shared import model", "modules"),
        ("pipelines/a.py", "from training.data import rows", "training"),
        ("pipelines/a.py", "import importlib\nimportlib.import_module('demo.world')", "demo"),
        ("pipelines/a.py", "try:\n    import peft\nexcept ImportError:\n    peft = None", "peft"),
        ("training/a.py", "import os, extensions.multimodal_vcla", "extensions"),
        ("training/a.py", "__import__('demo')", "demo"),
        ("demo/a.py", "from training import train", "training"),
        ("demo/a.py", "import multimodal_vcla.hooks", "multimodal_vcla"),
        ("demo/a.py", "import gradio", "gradio"),
        (f"{PLUGIN}/a.py", "from demo import world", "demo"),
        (f"{PLUGIN}/script.py", "if True:\n    import torch", "torch"),
        ("pipelines/a.py", "from installer import words", "installer"),
        ("pipelines/a.py", "from serving import embed", "serving"),
        ("serving/a.py", "from training import merge", "training"),
        (f"{PLUGIN}/a.py", "def f():\n    from installer.project import ROOT", "installer"),
        ("install.py", "def f():\n    import yaml", "yaml"),
        ("installer/a.py", "def f():\n    import yaml", "yaml"),
        ("installer/a.py", "from pipelines import doctor", "pipelines"),
    ],
)
def test_import_against_an_arrow_is_found(tmp_path, file, source, name):
    (found,) = violations(tree(tmp_path, {file: source}))
    assert found.startswith(f"{file}:") and found.endswith(f" imports {name}")


@pytest.mark.parametrize(("room", "name"), [(room, name) for room, names in IN_ONE_FILE.items() for name in sorted(names)])
def test_second_file_with_the_same_need_is_found(tmp_path, room, name):
    source = f"import {name}"
    tree(tmp_path, {f"{room}/a.py": source})
    assert violations(tmp_path) == []
    (found,) = violations(tree(tmp_path, {f"{room}/deeper/b.py": source}))
    assert found == f"{room}: {name} is imported in several files: a.py, b.py"


def test_allowed_imports_are_no_violations(tmp_path):
    allowed = {
        "pipelines/a.py": "import torch\nfrom . import demo\nfrom .training import x\ndef load():\n    import peft",
        "training/a.py": "import datasets\nfrom pipelines import visualcla\nimport peft",
        "demo/ui.py": "import gradio\nfrom pipelines import visualcla",
        f"{PLUGIN}/ui.py": "import gradio",
        f"{PLUGIN}/script.py": "import importlib.util\ndef setup():\n    import multimodal_vcla, torch",
        "install.py": "import os\nfrom installer import command_line",
        "installer/a.py": "from __future__ import annotations\nimport json\nfrom . import words\nfrom .words import say",
    }
    assert violations(tree(tmp_path, allowed)) == []


# --- circles and families --------------------------------------------------------------------------------------------

FAMILY_NEUTRAL = ("training", "demo", "multimodal_vcla", "serving")
MAY_NAME_A_FAMILY = ("training.train.presets", "demo.recipes")
"""Where a family is named on purpose: presets, and how the shipped model was made."""


def named_families(arrows: dict[str, set[str]], families: set[str]) -> list[str]:
    """Each import of a family from a room that serves all of them."""
    return sorted(
        f"{name} imports {other}"
        for name, others in arrows.items()
        for other in others
        if import_graph.room_of(name) in FAMILY_NEUTRAL
        and not name.startswith(MAY_NAME_A_FAMILY)
        and other.split(".")[:1] == ["pipelines"]
        and other.split(".")[1:2] and other.split(".")[1] in families
    )  # fmt: skip


def test_a_circle_is_found_also_inside_functions(tmp_path):
    files = {
        "pipelines/__init__.py": "",
        "pipelines/a.py": "def f():\n    from .b import x",
        "pipelines/b.py": "from . import c",
        "pipelines/c.py": "if TYPE_CHECKING:\n    from .b import x\nimport pipelines.a",
        "pipelines/d.py": "from .a import f",
    }
    arrows = import_graph.graph(tree(tmp_path, files))
    assert import_graph.circles(arrows) == [["pipelines.a", "pipelines.b", "pipelines.c"]]
    assert "circle: pipelines.a <-> pipelines.b <-> pipelines.c" in import_graph.drawing(arrows)


def test_a_family_named_where_all_are_served_is_found(tmp_path):
    files = {
        "pipelines/visualcla/__init__.py": "",
        "pipelines/base.py": "",
        "training/a.py": "from pipelines import visualcla, base",
        "demo/recipes/b.py": "import pipelines.visualcla",
    }
    arrows = import_graph.graph(tree(tmp_path, files))
    assert named_families(arrows, {"visualcla"}) == ["training.a imports pipelines.visualcla"]


def test_no_module_imports_itself_in_a_circle():
    arrows = import_graph.graph()
    assert len(arrows) > 100
    assert import_graph.circles(arrows) == [], import_graph.drawing(arrows)


def test_rooms_that_serve_every_family_name_none():
    assert named_families(import_graph.graph(), set(FAMILIES)) == []
