"""A chat as one HTML page that needs nothing else: pictures inside, maths as MathML, nothing that runs.

Markdown and LaTeX become HTML by mdtex2html, which lets any HTML through. So nh3 keeps only what is listed here, and the
page's own Content-Security-Policy forbids the browser to run or to fetch anything.
"""

import base64
import html
from pathlib import Path

import mdtex2html
import nh3

from .session import Picture, Session, Turn
from .texts import TEXTS

MAPS_CSS = Path(__file__).with_name("maps.css")
_MATHML = [
    "math",
    "menclose",
    "mfrac",
    "mi",
    "mn",
    "mo",
    "mover",
    "mpadded",
    "mphantom",
    "mroot",
    "mrow",
    "mspace",
    "msqrt",
    "mstyle",
    "msub",
    "msubsup",
    "msup",
    "mtable",
    "mtd",
    "mtext",
    "mtr",
    "munder",
    "munderover",
]
_MATHML_ATTRIBUTES = [
    "columnalign",
    "columnlines",
    "columnspacing",
    "depth",
    "display",
    "displaystyle",
    "fence",
    "form",
    "height",
    "largeop",
    "linebreak",
    "linethickness",
    "lspace",
    "mathvariant",
    "maxsize",
    "minsize",
    "movablelimits",
    "notation",
    "rowlines",
    "rowspacing",
    "rspace",
    "scriptlevel",
    "separator",
    "stretchy",
    "symmetric",
    "voffset",
    "width",
]
_TAGS = [
    "a",
    "b",
    "blockquote",
    "br",
    "code",
    "dd",
    "del",
    "div",
    "dl",
    "dt",
    "em",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "hr",
    "i",
    "li",
    "ol",
    "p",
    "pre",
    "s",
    "strong",
    "sub",
    "sup",
    "table",
    "tbody",
    "td",
    "th",
    "thead",
    "tr",
    "u",
    "ul",
]
_ATTRIBUTES = {"a": {"href"}, "td": {"align"}, "th": {"align"}} | {tag: set(_MATHML_ATTRIBUTES) for tag in _MATHML}
_FORMULA = {"div": {"blockformula"}}
_MARKDOWN = ["fenced_code", "tables", "nl2br", "sane_lists"]

_PAGE = """<!DOCTYPE html>
<html lang="{language}">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="multimodal-vcla">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ max-width: 46rem; margin: 2rem auto; padding: 0 1rem; font: 16px/1.55 system-ui, sans-serif; }}
h1 {{ font-size: 1.1rem; font-weight: 600; }}
article {{ margin: 1.2rem 0; padding: .1rem 1rem; border-radius: .8rem; overflow-wrap: anywhere; overflow-x: auto; }}
.question {{ background: #6b8cff2e; margin-left: 12%; }}
.answer {{ background: #8080801f; margin-right: 12%; }}
.error {{ color: #c0392b; }}
figure {{ display: inline-block; margin: .8rem .6rem 0 0; }}
figcaption {{ font-size: .8rem; opacity: .7; }}
img {{ max-width: 100%; max-height: 22rem; border-radius: .4rem; }}
pre {{ overflow-x: auto; padding: .6rem; border-radius: .4rem; background: #8080802e; }}
table {{ border-collapse: collapse; }} td, th {{ border: 1px solid #80808080; padding: .2rem .6rem; }}
.blockformula {{ text-align: center; margin: .6rem 0; }}
.looks {{ margin: .6rem 0; font-size: .9rem; }}
{maps}
</style>
</head>
<body>
<h1>{title}</h1>
{turns}
</body>
</html>
"""


def export_html(session: Session, title: str) -> str:
    """The whole chat as one page, in the session's language."""
    texts = TEXTS[session.language]
    numbers = {id(picture): number for number, picture, _ in session.numbered()}
    figures = [[_figure(p, texts["picture"].format(numbers[id(p)])) for p in turn.pictures] for turn in session.turns]
    looked = [_looks(index, turn, texts) for index, turn in enumerate(session.turns)]
    turns = "\n".join(map(_turn, session.turns, figures, looked))
    language = {"zh": "zh-CN"}.get(session.language, session.language)
    maps = MAPS_CSS.read_text(encoding="utf-8") if any(looked) else ""
    return _PAGE.format(language=language, title=html.escape(title), turns=turns, maps=maps)


def to_safe_html(text: str) -> str:
    """Markdown with LaTeX to HTML in which nothing runs and nothing is fetched; tags that are not known go, their text stays."""
    try:
        converted = mdtex2html.convert(text, extensions=_MARKDOWN)
        is_maths = mdtex2html.convError not in converted and mdtex2html.incomplete not in converted
    except Exception:  # on almost-LaTeX its parser raises almost anything, on very much of it RecursionError
        is_maths = False
    if not is_maths:  # a lone dollar sign, for example
        converted = mdtex2html.md2html(text, extensions=_MARKDOWN)
    return nh3.clean(
        converted,
        tags={*_TAGS, *_MATHML},
        clean_content_tags=set(),
        attributes=_ATTRIBUTES,
        allowed_classes=_FORMULA,
        url_schemes={"http", "https", "mailto"},
        link_rel="noopener noreferrer nofollow",
    )


def _looks(index: int, turn: Turn, texts: dict[str, str]) -> str:
    """What an answer looked at, where that is known, to be unfolded."""
    if turn.looks is None:  # without torch, too, a chat can be saved
        return ""
    from .maps import turn_maps

    maps = turn_maps(turn, texts, f"maps{index}")
    if not maps:
        return ""
    note = html.escape(texts["looks info"])
    return f'<details class="looks"><summary>{html.escape(texts["looked at"])}</summary>{maps}<p>{note}</p></details>'


def _turn(turn: Turn, figures: list[str], looks: str) -> str:
    question = f'<article class="question">{"".join(figures)}{to_safe_html(turn.question)}</article>'
    answer = f'<article class="answer">{to_safe_html(turn.answer)}</article>' if turn.answer else ""
    error = f'<article class="error">{html.escape(turn.error)}</article>' if turn.error else ""
    return "\n".join(filter(None, (question, answer, looks, error)))


def _figure(picture: Picture, caption: str) -> str:
    kind = picture.preview.suffix.removeprefix(".")
    data = base64.b64encode(picture.preview.read_bytes()).decode("ascii")
    caption = html.escape(caption)
    return f'<figure><img src="data:image/{kind};base64,{data}" alt="{caption}"><figcaption>{caption}</figcaption></figure>'
