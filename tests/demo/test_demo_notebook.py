"""The notebook, top to bottom, on the small checkpoints: every cell as it stands but for the names of the weights."""

import contextlib
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from merging import RELEASE, TEXT, VISION

ROOT = Path(__file__).resolve().parent.parent.parent
NOTEBOOK = ROOT / "notebooks/visualcla_inference.ipynb"


def as_python(source: str) -> str:
    """A cell without Jupyter: "!command {name}" runs in a shell, "%cd" must not be reached."""
    source = re.sub(r"^(\s*)!(.*)$", lambda m: f"{m[1]}shell(f{m[2]!r})", source, flags=re.MULTILINE)
    return re.sub(r"^(\s*)%cd .*$", r"\1raise AssertionError", source, flags=re.MULTILINE)


def shell(command: str) -> None:
    done = subprocess.run(command, shell=True, text=True, capture_output=True)
    print(done.stdout)
    assert done.returncode == 0, done.stderr


@pytest.mark.browser  # a page is served, and the lowest versions have none of its packages
def test_notebook_runs_top_to_bottom(tmp_path, monkeypatch):
    pytest.importorskip("gradio")
    monkeypatch.chdir(ROOT)
    cells = ["".join(cell["source"]) for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
    names = {
        "TEXT_MODEL": str(TEXT),
        "VISION_MODEL": str(VISION),
        "LORA_MODEL": str(RELEASE),
        "MERGED": str(tmp_path / "merged"),
    }
    scope = {"shell": shell, "sys": sys}
    said = []
    try:
        for number, cell in enumerate(cells):
            with contextlib.redirect_stdout(io.StringIO()) as output:
                exec(compile(as_python(cell), f"cell {number + 1}", "exec"), scope)
            said.append(output.getvalue())
            if number == 0:
                assert set(names) < set(scope)
                scope.update(names)
    finally:
        if "page" in scope:
            scope["page"].kill()
    assert (tmp_path / "merged/vision/config.json").is_file()
    assert all(said[number].strip() for number in (2, 3, 4)), said
    assert re.search(r"The chat page with merged: http://127\.0\.0\.1:\d+/", said[5])
    assert scope["page"].poll() is not None


def test_notebook_is_kept_without_outputs():
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in cells if cell["cell_type"] == "code")
