"""Builds the README and the pages that it leads to as a site of plain HTML, which needs no server:

python docs/build_site.py --output site
"""

import argparse
import html
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from urllib.parse import unquote, urlsplit

import markdown
from markdown.extensions.toc import TocExtension, slugify_unicode

ROOT = Path(__file__).resolve().parent.parent
FIRST = "README.md"
EXTENSIONS = ["fenced_code", "tables", TocExtension(slugify=slugify_unicode), "sane_lists"]
LINK = re.compile(r'(<(?:a|img)\b[^>]*?\b(?:href|src)=")([^"]*)(")')
PAGE = """<!DOCTYPE html>
<html lang="{language}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --edge: #8884; --soft: #8882; }}
body {{ margin: 0 auto; max-width: 72rem; padding: 1rem; font: 16px/1.55 system-ui, sans-serif; display: flex; gap: 2.5rem; }}
nav {{ flex: 0 0 13rem; font-size: .9rem; }}
nav a {{ display: block; padding: .2rem .5rem; border-radius: .3rem; text-decoration: none; }}
nav [aria-current] {{ background: var(--soft); font-weight: 600; }}
main {{ flex: 1; min-width: 0; overflow-wrap: anywhere; }}
h1, h2, h3 {{ line-height: 1.25; }}
img {{ max-width: 100%; }}
code {{ background: var(--soft); border-radius: .25rem; padding: .1rem .25rem; font-size: .9em; }}
pre {{ background: var(--soft); border-radius: .4rem; padding: .7rem; overflow-x: auto; }}
pre code {{ background: none; padding: 0; }}
table {{ border-collapse: collapse; display: block; overflow-x: auto; }}
th, td {{ border: 1px solid var(--edge); padding: .25rem .6rem; text-align: left; vertical-align: top; }}
@media (max-width: 60rem) {{ body {{ display: block; }} nav a {{ display: inline-block; }} }}
</style>
</head>
<body>
<nav>{navigation}</nav>
<main>{content}</main>
</body>
</html>
"""


def build(root: Path, output: Path) -> list[str]:
    """Write the site: the first page, every page that one of them links to, and the files that they show.

    Args:
        root: of the project.
        output: a folder that does not exist yet, or a site that was built before; it appears whole or not at all.

    Returns:
        The pages, in the order in which they are met.

    Raises:
        ValueError: a link leads nowhere, or `output` is something else.
    """
    if output.exists() and not (output / "index.html").is_file():
        raise ValueError(f"{str(output)!r} is there and is no site. Give another folder with --output.")
    pages: dict[str, str] = {}
    files: set[str] = set()
    waiting = [FIRST]
    while waiting:
        page = waiting.pop(0)
        if page in pages:
            continue
        source = (root / page).read_text(encoding="utf-8")
        pages[page] = markdown.markdown(
            source.partition("\n---\n")[2] if source.startswith("---\n") else source, extensions=EXTENSIONS
        )
        for _, target, _ in LINK.findall(pages[page]):
            if path := _inside(root, page, target):
                (waiting.append if path.endswith(".md") else files.add)(path)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent) as folder:
        site = Path(folder) / "site"
        titles = {page: _title(content, page) for page, content in pages.items()}
        for page, content in pages.items():
            _write(site / _address(page), _page(root, page, content, titles))
        for file in sorted(files):
            (site / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / file, site / file)
        if output.exists():
            shutil.rmtree(output)
        site.rename(output)
    return list(pages)


def _inside(root: Path, page: str, target: str) -> str | None:
    """The file of the project that a link of a page leads to; None for other places, folders and the page itself."""
    parts = urlsplit(html.unescape(target))
    if parts.scheme or parts.netloc or not parts.path:
        return None
    path = (root / page).parent / unquote(parts.path)
    if not path.exists() or not path.resolve().is_relative_to(root.resolve()):
        raise ValueError(f"{page}: the link {target!r} leads nowhere.")
    return path.resolve().relative_to(root.resolve()).as_posix() if path.is_file() else None


def _address(page: str) -> str:
    return "index.html" if page == FIRST else f"{page.removesuffix('.md')}.html"


def _page(root: Path, page: str, content: str, titles: dict[str, str]) -> str:
    here = Path(_address(page)).parent

    def relative(path: str) -> str:
        return Path(os.path.relpath(_address(path) if path in titles else path, here)).as_posix()

    def lead(link: re.Match) -> str:
        path = _inside(root, page, link[2])
        fragment = urlsplit(link[2]).fragment
        return link[0] if path is None else f"{link[1]}{relative(path)}{f'#{fragment}' if fragment else ''}{link[3]}"

    current = ' aria-current="page"'
    navigation = "".join(
        f'<a href="{relative(other)}"{current if other == page else ""}>{html.escape(title)}</a>'
        for other, title in titles.items()
    )
    language = "zh-CN" if page.endswith("_zh.md") else "en"
    return PAGE.format(
        language=language, title=html.escape(titles[page]), navigation=navigation, content=LINK.sub(lead, content)
    )


def _title(content: str, page: str) -> str:
    found = re.search(r"<h1[^>]*>(.*?)</h1>", content, re.DOTALL)
    title = html.unescape(re.sub(r"<[^>]+>", "", found[1])) if found else page
    return f"{title}（中文）" if page.endswith("_zh.md") else title


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def main(argv: list[str] | None = None) -> int:
    """Build it; 2 after a mistake."""
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("--output", type=Path, default=Path("site"), help="folder to write (default: %(default)s)")
    options = parser.parse_args(argv)
    try:
        pages = build(ROOT, options.output)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{len(pages)} pages: {options.output / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
