"""The import graph of the project, read from its sources: which module imports which, and where they go in circles.

`python tests/import_graph.py` draws it as text, room by room: an arrow for each import between rooms, and every circle.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("pipelines", "training", "demo", "serving", "extensions/multimodal_vcla", "installer")


def modules(root: Path = ROOT) -> dict[str, Path]:
    """Dotted name to file. The plugin's package is `multimodal_vcla`."""
    found = {}
    for room in ROOMS:
        for file in sorted((root / room).rglob("*.py")):
            parts = file.relative_to(root).with_suffix("").parts
            parts = parts[1:] if parts[0] == "extensions" else parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def graph(root: Path = ROOT) -> dict[str, set[str]]:
    """Module to the modules of the project that it imports anywhere, inside functions too; not those for type checkers only."""
    files = modules(root)
    return {name: {found for found in _imports(name, file, files) if found != name} for name, file in files.items()}


def circles(arrows: dict[str, set[str]]) -> list[list[str]]:
    """The strongly connected components of more than one module (Tarjan)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in sorted(arrows.get(name, ())):
            if other not in index:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:
            component = [stack.pop()]
            while component[-1] != name:
                component.append(stack.pop())
            if len(component) > 1:
                found.append(sorted(component))

    for name in sorted(arrows):
        if name not in index:
            visit(name)
    return found


def _imports(name: str, file: Path, files: dict[str, Path]) -> Iterator[str]:
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    nodes: list[ast.AST] = [ast.parse(file.read_text(encoding="utf-8"))]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            nodes.extend(node.orelse)
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in files)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")
                base = ".".join([*parts[: len(parts) - node.level + 1], *filter(None, [base])])
            for alias in node.names:  # a name of a package is a module of it, or what its __init__ has
                module = f"{base}.{alias.name}"
                if module in files:
                    yield module
                elif base in files:
                    yield base
        nodes.extend(ast.iter_child_nodes(node))


def room_of(module: str) -> str:
    return module.partition(".")[0]


def drawing(arrows: dict[str, set[str]]) -> str:
    between: dict[tuple[str, str], int] = {}
    for name, others in arrows.items():
        for other in others:
            if room_of(name) != room_of(other):
                between[room_of(name), room_of(other)] = between.get((room_of(name), room_of(other)), 0) + 1
    lines = [f"{source:18} --> {target:12} ({count} imports)" for (source, target), count in sorted(between.items())]
    return "\n".join([*lines, *(f"circle: {' <-> '.join(circle)}" for circle in circles(arrows))])


if __name__ == "__main__":
    print(drawing(graph()))
