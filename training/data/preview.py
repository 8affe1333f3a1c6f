"""`python -m training data preview FILE --model FOLDER`: rows as the model is taught them, in the terminal or as a page."""

import argparse
import base64
import html
import io
import itertools
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from pipelines.images import ImageError, load_image

from .encode import Encoded, RowEncoder
from .formats import Skipped
from .rows import IGNORED, Row, RowError
from .survey import DATA, open_data

GREEN, GREY, RESET = "\x1b[32m", "\x1b[90m", "\x1b[0m"
THUMBNAIL_PX = 320
PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; background: #fff; }}
article {{ border: 1px solid #ccc; border-radius: 6px; padding: 1rem; margin: 1rem 0; }}
h2 {{ font-size: 1rem; margin: 0 0 .5rem; }} pre {{ white-space: pre-wrap; overflow-wrap: anywhere; }}
img {{ max-height: 12rem; margin-right: .5rem; border: 1px solid #ccc; }}
mark {{ background: #bfe8c0; color: #063; }} .end {{ border-left: 3px solid #063; }} .picture {{ color: #777; }} .wrong {{ color: #a00; }}
</style>
<h1>{title}</h1>
<p>What the model reads, row by row. <mark>Marked</mark>: what it learns to say; <mark class="end">&nbsp;{eos}</mark>: where it learns to
stop; <span class="picture">grey</span>: pictures.</p>
{rows}
</html>
"""


@dataclass(frozen=True)
class Run:
    """Neighbouring tokens of one kind: "prompt", "taught", "picture", or "end" (an end that is taught by its label alone)."""

    kind: str
    text: str
    num_tokens: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help=DATA)
    parser.add_argument("--model", required=True, help="a model folder, for its processor")
    parser.add_argument("--rows", type=int, default=5, help="how many")
    parser.add_argument("--first", type=int, default=1, help="the number of the first one")
    parser.add_argument("--max_length", type=int, help="tokens of a row; by default the model's context")
    parser.add_argument("--html", type=Path, help="write a page with the pictures instead")


def run(arguments: argparse.Namespace) -> int:
    """Show rows; status 1 where one of them is wrong.

    Raises:
        FileNotFoundError, ValueError: the data or the model cannot be opened.
    """
    from .processor import load_processor

    encoder = RowEncoder(load_processor(arguments.model), arguments.max_length)
    data = open_data(arguments.file)
    places = [(one, index) for one in data for index in range(len(one))]
    shown, wrong = [], 0
    for one, index in itertools.islice(places, arguments.first - 1, arguments.first - 1 + arguments.rows):
        place = one.place(index)
        try:
            row = one.row(index)
            shown.append((place, row, encoder(row, place)))
        except Skipped as reason:
            shown.append((place, None, f"gives no row: {reason}"))
        except (RowError, FileNotFoundError, ImageError) as error:
            wrong += 1
            shown.append((place, None, str(error).removeprefix(f"{place}: ")))
    if not shown:
        raise ValueError(f"{str(arguments.file)!r} has {len(places)} rows, none from number {arguments.first} on.")
    if arguments.html is None:
        for entry in shown:
            print(in_terminal(encoder, *entry, sys.stdout.isatty()))
    else:
        arguments.html.write_text(page(encoder, str(arguments.file), shown), encoding="utf-8")
        print(f"{len(shown)} rows in {arguments.html}")
    return 1 if wrong else 0


def runs(encoder: RowEncoder, encoded: Encoded) -> Iterator[Run]:
    """The tokens of a row in runs of one kind, in reading order."""
    kinds = []
    for token, label in zip(encoded.ids, encoded.labels, strict=True):
        is_end_by_label = label not in (IGNORED, token)
        kinds.append("end" if is_end_by_label else "taught" if label == token else "prompt")
    kinds = ["picture" if is_image else kind for kind, is_image in zip(kinds, encoder.is_image(encoded.ids), strict=True)]
    at = 0
    for kind, group in itertools.groupby(kinds):
        count = len(list(group))
        yield Run(kind, _text(encoder, encoded.ids[at : at + count]), count)
        at += count


def _text(encoder: RowEncoder, ids: list[int]) -> str:
    first = encoder.tokenizer.convert_ids_to_tokens(ids[0])
    text = encoder.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return f" {text}" if first.startswith(("▁", "Ġ")) and not text.startswith(" ") else text


def in_terminal(encoder: RowEncoder, place: str, row: Row | None, encoded: Encoded | str, is_coloured: bool) -> str:
    """A row as text: what is taught in green (or in «»), the end that is taught by its label as the name of EOS."""
    if isinstance(encoded, str):
        return f"== {place}\n{encoded}\n"
    before, after = (GREEN, RESET) if is_coloured else ("«", "»")
    eos = encoder.tokenizer.eos_token
    text = ""
    for part in runs(encoder, encoded):
        if part.kind == "picture":
            picture = f"[picture, {part.num_tokens} tokens]"
            text += f"{GREY}{picture}{RESET}" if is_coloured else picture
        elif part.kind == "prompt":
            text += part.text
        elif part.kind == "taught":
            text += before + part.text + after
        else:
            text += before + eos + after + part.text
    return (
        f"== {place}: {len(encoded.ids)} tokens, {encoded.num_supervised} supervised, {len(row['images'])} pictures\n{text}\n"
    )


def page(encoder: RowEncoder, title: str, shown: list[tuple[str, Row | None, Encoded | str]]) -> str:
    """The rows as a page that holds everything, pictures included."""
    articles = []
    for place, row, encoded in shown:
        if isinstance(encoded, str):
            articles.append(f'<article><h2>{html.escape(place)}</h2><p class="wrong">{html.escape(encoded)}</p></article>')
            continue
        pictures = "".join(f'<img alt="picture {n}" src="{_thumbnail(picture)}">' for n, picture in enumerate(row["images"], 1))
        body = ""
        for part in runs(encoder, encoded):
            text = html.escape(part.text)
            if part.kind == "picture":
                body += f'<span class="picture">[picture, {part.num_tokens} tokens]</span>'
            elif part.kind == "prompt":
                body += text
            elif part.kind == "taught":
                body += f"<mark>{text}</mark>"
            else:
                body += f'<mark class="end">{html.escape(encoder.tokenizer.eos_token)}</mark>{text}'
        numbers = f"{len(encoded.ids)} tokens, {encoded.num_supervised} supervised"
        articles.append(f"<article><h2>{html.escape(place)}: {numbers}</h2>{pictures}<pre>{body}</pre></article>")
    return PAGE.format(title=html.escape(title), eos=html.escape(encoder.tokenizer.eos_token), rows="\n".join(articles))


def _thumbnail(picture) -> str:
    image = load_image(picture, background="white")
    image.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")
