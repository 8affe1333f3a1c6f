"""The saved chat: whole, readable, and nothing in it runs or is fetched."""

import re
from html.parser import HTMLParser

import pytest
from PIL import Image

pytest.importorskip("mdtex2html", reason="mdtex2html is not installed")
pytest.importorskip("nh3", reason="nh3 is not installed")

from demo.export import export_html, to_safe_html
from demo.session import Picture, Session

HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg onload=alert(1)><script>alert(1)</script></svg>",
    "<math><annotation-xml encoding='text/html'><img src=x onerror=alert(1)></annotation-xml></math>",
    "<math><mtext><table><mglyph><style><img src=x onerror=alert(1)></style></mglyph></table></mtext></math>",
    "$\\text{<img src=x onerror=alert(1)>}$",
    "`</code><script>alert(1)</script>`",
    "```\n</code></pre><script>alert(1)</script>\n```",
    "[link](javascript:alert(1)) <a href='data:text/html,<script>alert(1)</script>'>link</a>",
    "![far](http://192.0.2.1/x.png) <iframe src=http://192.0.2.1></iframe> <link rel=stylesheet href=//192.0.2.1>",
    "<style>body { display: none }</style><base href=http://192.0.2.1><meta http-equiv=refresh content='0;url=http://192.0.2.1'>",
    "<form action=http://192.0.2.1><input autofocus onfocus=alert(1)></form>",
    "</article></body><script>alert(1)</script>",
]
HARMLESS = set(
    [
        "a",
        "article",
        "blockquote",
        "body",
        "br",
        "code",
        "del",
        "div",
        "em",
        "figcaption",
        "figure",
        "h1",
        "h2",
        "h3",
        "head",
        "hr",
        "html",
        "img",
        "li",
        "meta",
        "ol",
        "p",
        "pre",
        "strong",
    ]
)
HARMLESS |= set(
    [
        "style",
        "table",
        "tbody",
        "td",
        "th",
        "thead",
        "title",
        "tr",
        "ul",
        "math",
        "mfrac",
        "mi",
        "mn",
        "mo",
        "mrow",
        "msup",
        "mtext",
    ]
)


class Elements(HTMLParser):
    """Every start tag with its attributes."""

    def __init__(self, text: str):
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def chat(tmp_path, question: str, answer: str, *pictures: Image.Image) -> Session:
    session = Session()
    for number, picture in enumerate(pictures):
        picture.save(tmp_path / f"{number}.png")
    session.ask(question, [Picture.open(tmp_path / f"{number}.png", tmp_path) for number in range(len(pictures))])
    session.turns[-1].answer = answer
    return session


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_leaves_only_harmless_elements(tmp_path, text):
    page = export_html(chat(tmp_path, text, text, Image.new("RGB", (8, 8))), text)
    elements = Elements(page).found
    assert {tag for tag, _ in elements} <= HARMLESS
    assert [tag for tag, _ in elements].count("style") == 1 and [tag for tag, _ in elements].count("body") == 1
    for tag, attributes in elements:
        assert not [name for name in attributes if name.startswith("on")]
        assert tag == "img" or "src" not in attributes
        assert attributes.get("src", "data:image/").startswith("data:image/")
        assert re.match("https?:|mailto:|$", attributes.get("href") or "")


def test_words_inside_forbidden_elements_stay_readable():
    assert "alert(1)" in to_safe_html("<script>alert(1)</script>")


def test_maths_become_mathml():
    html = to_safe_html("So $x^2$, \\(y\\) and\n\n$$\\frac{a}{b}$$")
    assert html.count("<math") == 3 and "<msup>" in html and "<mfrac>" in html and "$" not in html


def test_lone_dollar_sign_stays_a_dollar_sign():
    assert to_safe_html("It costs $5.").strip() == "<p>It costs $5.</p>"


def test_wrong_latex_stays_as_it_was_written():
    assert "$\\frac{$" in to_safe_html("See $\\frac{$ there")


def test_markdown_becomes_html():
    html = to_safe_html("**b**\nnext\n\n```python\nif a < b: print('$x$')\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |")
    assert "<strong>b</strong><br>" in html and "<table>" in html
    assert "if a &lt; b: print('$x$')" in html and "<math" not in html


def test_very_much_latex_is_still_exported():
    assert "$x$" in to_safe_html("$x$ " * 3000) or "<math" in to_safe_html("$x$ " * 3000)


def test_pictures_are_inside_and_numbered_over_the_chat(tmp_path):
    session = chat(tmp_path, "What?", "This.", Image.new("RGB", (8, 8), "red"), Image.new("RGBA", (9, 9), (0, 255, 0, 128)))
    Image.new("RGB", (900, 700), "blue").save(tmp_path / "large.png")
    session.ask("And?", [Picture.open(tmp_path / "large.png", tmp_path)])
    page = export_html(session, "A chat")
    assert re.findall(r'src="data:image/(\w+);base64,', page) == ["png", "png", "webp"]
    assert re.findall("<figcaption>(.*?)</figcaption>", page) == ["Picture 1", "Picture 2", "Picture 3"]
    assert "<title>A chat</title>" in page


def test_failed_turn_is_exported_with_its_error(tmp_path):
    session = chat(tmp_path, "What?", "")
    session.turns[-1].error = "No answer: <b>full</b>"
    assert "No answer: &lt;b&gt;full&lt;/b&gt;" in export_html(session, "A chat")


def test_page_forbids_scripts_and_fetching(tmp_path):
    (policy,) = [
        attributes["content"]
        for tag, attributes in Elements(export_html(chat(tmp_path, "?", "!"), "")).found
        if "http-equiv" in attributes
    ]
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
