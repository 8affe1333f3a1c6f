"""The site that docs/build_site.py makes of the README and the pages it leads to."""

import importlib.util
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def builder():
    spec = importlib.util.spec_from_file_location("build_site", ROOT / "docs/build_site.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_page_is_reached_and_every_link_of_the_site_leads_somewhere(builder, tmp_path):
    pages = builder.build(ROOT, tmp_path / "site")
    assert set(pages) >= {"README_zh.md", *(f"docs/{file.name}" for file in (ROOT / "docs").glob("*.md"))}
    contents = {file: file.read_text(encoding="utf-8") for file in (tmp_path / "site").rglob("*.html")}
    assert len(contents) == len(pages)
    for file, content in contents.items():
        assert content.count("aria-current") == 2  # in the style, and at this page
        assert not re.search(r"<(script|link|iframe)\b", content)
        for target in re.findall(r'(?:href|src)="([^"]*)"', content):
            parts = urlsplit(target)
            if parts.scheme:
                continue
            led = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            assert led.exists() or (ROOT / led.relative_to(tmp_path / "site")).is_dir(), f"{file}: {target}"
            if parts.fragment:
                assert f'id="{parts.fragment}"' in contents[led], f"{file}: {target}"


def test_a_dead_link_is_named_and_no_site_appears(builder, tmp_path):
    (tmp_path / "README.md").write_text("# One\n\n[two](two.md)", encoding="utf-8")
    with pytest.raises(ValueError, match=r"README.md: the link 'two.md' leads nowhere"):
        builder.build(tmp_path, tmp_path / "site")
    (tmp_path / "two.md").write_text("# Two & more\n\n[back](README.md#one) [far](https://example.org/x.md)", encoding="utf-8")
    assert builder.build(tmp_path, tmp_path / "site") == ["README.md", "two.md"]
    two = (tmp_path / "site/two.html").read_text(encoding="utf-8")
    assert (
        '<a href="index.html#one">back</a>' in two
        and "https://example.org/x.md" in two
        and "<title>Two &amp; more</title>" in two
    )
    assert builder.build(tmp_path, tmp_path / "site") == ["README.md", "two.md"]  # in place of the one before


def test_a_folder_that_is_no_site_is_left_alone(builder, tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    assert builder.main(["--output", str(tmp_path)]) == 2
    assert "is no site" in capsys.readouterr().err and (tmp_path / "mine.txt").read_text() == "mine"
