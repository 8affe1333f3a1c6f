"""All results of some folders as one HTML page that opens from the disk, and the same as JSON."""

import base64
import hashlib
import io
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from pipelines.command_line import Parser
from pipelines.images import ImageError, load_image

from .results import Result

PAGE = Path(__file__).with_name("report.html")
THUMBNAIL_PX = 256


def main(argv: list[str]) -> int:
    """`evaluate report`: one page of several folders."""
    parser = Parser("python -m training evaluate report", description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER", help="what evaluations wrote")
    parser.add_argument("--output_dir", type=Path, metavar="FOLDER", help="where the page goes (default: the first folder)")
    args = parser.parse_args(argv)
    results = find_results(args.folders)
    folder = args.output_dir or args.folders[0]
    folder.mkdir(parents=True, exist_ok=True)
    print(write(results, folder))
    return 0


def find_results(folders: Iterable[Path]) -> list[Result]:
    """The results of folders, by task, data and model.

    Raises:
        FileNotFoundError: there is none.
        ValueError: a result cannot be read, or two are of one task and model.
    """
    folders = list(folders)
    found: dict[tuple[str, str, str], Path] = {}
    results = []
    for file in sorted(file for folder in folders for file in folder.glob("*.result.json")):
        each = Result.open(file)
        key = (each.task, each.data, each.model)
        if key in found:
            raise ValueError(
                f"{str(file)!r} and {str(found[key])!r} are both of {each.model!r} in {each.task!r} on {each.data!r}. "
                "Give one of them another --name and evaluate again, or leave one out."
            )
        found[key] = file
        results.append(each)
    if not results:
        raise FileNotFoundError(f"There are no results in {', '.join(repr(str(folder)) for folder in folders)}.")
    return sorted(results, key=lambda each: (each.task, each.data, each.model))


def write(results: Sequence[Result], folder: Path) -> Path:
    """Write `report.html` and `report.json`; returns the page."""
    figures = [{name: value for name, value in asdict(each).items() if name != "answers"} for each in results]
    _write(folder / "report.json", json.dumps(figures, ensure_ascii=False, indent=1))
    thumbnails: dict[str, str] = {}
    for image in {image for each in results for answer in each.answers for image in answer.images}:
        thumbnails[image] = thumbnail(image)
    data = {"results": [asdict(each) for each in results], "pictures": thumbnails}
    return _write(folder / "report.html", page(PAGE, data))


def page(template: Path, data: object) -> str:
    """A page with its data in it, which runs its own script and nothing else, and asks nobody for anything."""
    text = template.read_text(encoding="utf-8")
    script = text[text.index("<script>") + len("<script>") : text.rindex("</script>")]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # "<" cannot end the element that holds the data, whatever an answer says.
    content = json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")
    return text.replace("SCRIPT_HASH", f"sha256-{digest}", 1).replace("DATA", content, 1)


def thumbnail(image: str) -> str:
    """A small JPEG as a data URI; empty where the picture is not there."""
    try:
        picture = load_image(image if image.startswith("data:") else Path(image), background="white")
    except ImageError:
        return ""
    picture.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    file = io.BytesIO()
    picture.convert("RGB").save(file, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def _write(path: Path, text: str) -> Path:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
    return path
