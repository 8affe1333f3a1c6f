"""The example family of pipelines/README.md, taken from that page, added to a copy of the folder, and run."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PIPELINES = Path(__file__).resolve().parent.parent.parent / "pipelines"


def blocks() -> dict[str, str]:
    """First line of each block of the page to the rest of it; blocks of JSON and output by their language."""
    text = (PIPELINES / "README.md").read_text(encoding="utf-8")
    found = {}
    for language, block in re.findall(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        first, _, rest = block.partition("\n")
        found.update({first: rest} if language == "python" else {language: block})
    return found


@pytest.mark.slow
def test_six_steps_make_a_family(tmp_path):
    shutil.copytree(PIPELINES, tmp_path / "pipelines", ignore=shutil.ignore_patterns("visualcla", "__pycache__"))
    page = blocks()
    files = {name[2:]: code for name, code in page.items() if name.startswith("# ") and name.endswith(".py")}
    assert sorted(files) == ["look.py", "make.py", "pipelines/palette/__init__.py", "pipelines/palette/pipeline.py"]
    for name, code in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(code, encoding="utf-8")
    registry = tmp_path / "pipelines" / "registry.py"
    for table in ("FAMILIES", "MODEL_TYPES"):
        head, opening, tail = registry.read_text(encoding="utf-8").partition(f"{table}: dict[str, str] = {{")
        registry.write_text(f"{head}{opening}\n{page[f'# pipelines/registry.py: {table}']}{tail}", encoding="utf-8")
    run = subprocess.run(
        [sys.executable, "-c", "import runpy; runpy.run_path('make.py'); runpy.run_path('look.py')"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert run.stdout == page["text"]
    assert page["json"].strip() == (tmp_path / "rainbow/vision/config.json").read_text()


def test_every_file_is_named_on_the_page():
    text = (PIPELINES / "README.md").read_text(encoding="utf-8")
    table = {
        name for line in text.splitlines() if line.startswith("| `") for name in re.findall(r"`([\w/.]+)`", line.split("|")[1])
    }
    files = {path.name for path in PIPELINES.glob("*.py")} - {"__init__.py"}
    families = {f"{path.parent.name}/" for path in PIPELINES.glob("*/pipeline.py")}
    assert table == files | families
