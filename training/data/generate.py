"""`python -m training data generate`: LRV's positive and negative instructions from dense captions, written by a language model.

Every reply is kept beside the rows as soon as it is there, so a stopped run goes on where it was.
"""

import argparse
import hashlib
import json
import os
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..judge import AnswerBook, Client, ServerError, add_server_flags, agreed
from .instructions import KINDS, prompt, read_reply, usable
from .rows import RowError, check_row, clean, make_row
from .sets import portable_path

NUM_AT_ONCE = 8
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
FORM = '{"IMAGE_ID": [{"caption": "red lamp on desk", "bbox": [x, y, width, height]}, ...]}'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--captions", type=Path, required=True, metavar="FILE", help=f"dense captions: {FORM}; bbox may be left out"
    )
    parser.add_argument(
        "--images",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="pictures, named IMAGE_ID or IMAGE_ID.jpg, .jpeg, .png, .webp",
    )
    parser.add_argument(
        "--kinds",
        nargs="+",
        choices=KINDS,
        default=list(KINDS),
        help="positive; negative: nonexistent (elements), existent (objects with wrong attributes), knowledge (default: all)",
    )
    parser.add_argument("--pictures", type=int, metavar="N", help="only the first N pictures of the file, to try it out")
    add_server_flags(parser, "writer")
    parser.add_argument("--temperature", type=float, default=1.0, help="of the writer (%(default)s)")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="the .jsonl file of rows")


def run(arguments: argparse.Namespace) -> int:
    """Generate; status 1 where replies are lacking or of no use, which the same command asks for again.

    Raises:
        FileNotFoundError, ValueError: captions or pictures cannot be read; the server is not there.
    """
    output = arguments.output
    if output.suffix.lower() != ".jsonl":
        raise ValueError(f"--output is {str(output)!r}; rows are written to a .jsonl file.")
    captions = read_captions(arguments.captions)
    if arguments.pictures is not None:
        if arguments.pictures < 1:
            raise ValueError(f"--pictures is {arguments.pictures}; it is at least 1.")
        captions = dict(list(captions.items())[: arguments.pictures])
    pictures = find_pictures(captions, arguments.images)
    client = Client.of(arguments.server, arguments.server_model, arguments.api_key_env)
    output.parent.mkdir(parents=True, exist_ok=True)
    book = AnswerBook(output.with_name(f"{output.stem}.replies.jsonl"))
    asked = {
        _key(client.model, image, text): (text, kind, image)
        for image, each in captions.items()
        for kind in arguments.kinds
        for text in [prompt(KINDS[kind], each)]
    }
    left = {key: entry for key, entry in asked.items() if book.get(key) is None}
    if left:
        longest = sum(KINDS[kind].max_reply_tokens for _, kind, _ in left.values())
        if not agreed(client, (text for text, _, _ in left.values()), longest, arguments.price, arguments.yes):
            return 0
    failed = _ask(client, left, book, arguments.temperature) if left else []
    left_out: Counter[str] = Counter()
    rows, counts = [], Counter()
    for key, (_, kind, image) in asked.items():
        if (reply := book.get(key)) is None:
            continue
        for question, answer, task in usable(read_reply(KINDS[kind], reply), left_out):
            meta = {"task": task, "kind": kind, "image_id": image, "written_by": client.model}
            row = make_row([(clean(question), clean(answer))], [portable_path(pictures[image], output)], meta=meta)
            try:
                check_row(row, f"{kind} instruction about {image!r}", output.parent)
            except RowError as error:
                left_out[error.reason] += 1
                continue
            rows.append(row)
            counts[kind] += 1
    for reason, count in left_out.most_common():
        print(f"{count} entries left out: {reason}")
    if failed:
        print(
            f"{len(failed)} of {len(asked)} replies are lacking; the same command asks for them. The last: {failed[-1]}",
            file=sys.stderr,
        )
    if not rows:
        print(f"training: no instruction came; {str(output)!r} was not written.", file=sys.stderr)
        return 1
    partial = output.with_name(f".{output.name}.partial")
    with partial.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    os.replace(partial, output)
    parts = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    spent = f"{client.num_prompt_tokens:,} + {client.num_reply_tokens:,} tokens spent" if left else "nothing was left to ask"
    print(f"{len(rows)} rows in {output} ({parts}); {spent}. Check them: python -m training data validate {output}")
    return 1 if failed else 0


def read_captions(path: Path) -> dict[str, list[Mapping[str, Any]]]:
    """Dense captions by picture.

    Raises:
        ValueError: the file cannot be read, or has another form; the message says where.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read the captions {str(path)!r} ({' '.join(str(error).split())}).") from error
    if not isinstance(values, dict) or not values:
        raise ValueError(f"{str(path)!r} holds no captions by picture: {FORM}")
    for image, captions in values.items():
        if not isinstance(captions, list) or not captions:
            raise ValueError(f"{str(path)!r}, picture {image!r}: {str(captions)[:60]} is no list of captions: {FORM}")
        for number, each in enumerate(captions, 1):
            place = f"{str(path)!r}, picture {image!r}, caption {number}"
            if not isinstance(each, dict) or not isinstance(each.get("caption"), str) or not each["caption"].strip():
                raise ValueError(f"{place}: {str(each)[:60]} has no text under 'caption': {FORM}")
            box = each.get("bbox")
            if box is not None and not (isinstance(box, list) and len(box) == 4 and all(map(_is_number, box))):
                raise ValueError(f"{place}: bbox is {box!r}; it is [x, y, width, height].")
    return values


def find_pictures(captions: Mapping[str, Any], folder: Path) -> dict[str, Path]:
    """The file of each picture.

    Raises:
        FileNotFoundError: some are not there; all are counted, one is named.
    """
    found, absent = {}, []
    for image in captions:
        names = [folder / image, *(folder / f"{image}{suffix}" for suffix in SUFFIXES)]
        path = next((name for name in names if name.is_file()), None)
        if path is None:
            absent.append(image)
        else:
            found[image] = path
    if absent:
        raise FileNotFoundError(
            f"{len(absent)} of {len(captions)} pictures are not in {str(folder)!r}, such as {absent[0]!r} ({', '.join(SUFFIXES)}). "
            "Give their folder: --images FOLDER"
        )
    return found


def _ask(client: Client, left: Mapping[str, tuple[str, str, str]], book: AnswerBook, temperature: float) -> list[str]:
    """Fill the book; returns why replies are lacking.

    Raises:
        ServerError: not one of many requests in a row was answered.
    """
    from tqdm import tqdm

    failed: list[str] = []
    in_a_row = 0
    with tqdm(total=len(left), unit="reply", disable=None) as bar:

        def done(key: str, reply: "str | ServerError") -> None:
            nonlocal in_a_row
            bar.update()
            _, kind, image = left[key]
            if isinstance(reply, ServerError):
                in_a_row += 1
                failed.append(f"{kind} instructions about {image!r}: {reply}")
                if in_a_row >= 2 * NUM_AT_ONCE or len(failed) == len(left):
                    raise reply
                return
            in_a_row = 0
            try:
                read_reply(KINDS[kind], reply)
            except ValueError as error:
                failed.append(f"{kind} instructions about {image!r}: {error}")
            else:
                book.put({key: reply})

        client.ask_all(((key, _request(entry, temperature)) for key, entry in left.items()), done, NUM_AT_ONCE)
    return failed


def _request(entry: tuple[str, str, str], temperature: float) -> dict[str, Any]:
    text, kind, _ = entry
    messages = [{"role": "user", "content": text}]
    return {
        "messages": messages,
        "max_tokens": KINDS[kind].max_reply_tokens,
        "temperature": temperature,
        "refuses_cut": True,
    }


def _key(model: str, image: str, text: str) -> str:
    return hashlib.sha256(json.dumps([model, image, text]).encode()).hexdigest()


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
