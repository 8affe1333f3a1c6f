"""`python -m demo batch`: a file of questions and a folder of pictures in, a file of answers out.

Questions are JSON lines or a JSON list (also under "annotations", as LRV-Instruction has it): objects with "question" and "image" (a
file name or a list of them), or "image_id", whose picture is found by its stem. Without either it is asked about no picture. Answers
are JSON lines in the order of the questions: the question's own keys, "answer" and "model_id"; where there is no answer, "error". What
a question has under these names itself, such as the answer that is right, stands under "reference_answer" and the like.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from .cli import Parser, add_generation_flags, add_model_flags, generation_config, load_chat, one_line

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif", ".heic")
OURS = ("answer", "error", "model_id")
MAX_NAMED = 3


@dataclass(frozen=True)
class Question:
    """A row of the file.

    Attributes:
        row: its keys and values.
        images: the files of its pictures, in order.
    """

    row: dict[str, Any]
    images: tuple[Path, ...]

    @property
    def text(self) -> str:
        return self.row["question"]

    @property
    def written(self) -> dict[str, Any]:
        """What is written again beside the answer."""
        return {f"reference_{key}" if key in OURS else key: value for key, value in self.row.items()}


def main(argv: list[str] | None = None) -> int:
    """Run the command; 0 when every question was answered, 1 when some were not, 2 for a mistake of the user's."""
    parser = Parser(
        "python -m demo batch",
        description="Answer a file of questions. Stopped, the same command goes on where it was; nothing is asked twice.",
    )
    parser.add_argument("questions", type=Path, help='JSON lines or a JSON list of {"image" or "image_id", "question"}')
    parser.add_argument("--images", type=Path, default=Path(), metavar="FOLDER", help="where the pictures are (default: here)")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="JSON lines to write, or to go on with")
    parser.add_argument("--batch_size", type=int, default=4, help="questions answered at once (default: 4)")
    add_model_flags(parser)
    add_generation_flags(parser)
    args = parser.parse_args(argv)
    if args.batch_size < 1:
        parser.error(f"--batch_size is {args.batch_size}, but a batch holds at least 1 question")
    try:
        questions = read_questions(args.questions, args.images)
        num_done, num_failed = resume(args.output, questions, args.batch_size)
        if num_done < len(questions):
            num_failed += _answer_all(args, questions, num_done)
    except (ValueError, OSError, ImportError, MemoryError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped. The same command goes on where this one was.", file=sys.stderr)
        return 130
    print(f"{len(questions) - num_failed} of {len(questions)} questions are answered in {args.output}", file=sys.stderr)
    return 1 if num_failed else 0


def read_questions(file: Path, folder: Path) -> list[Question]:
    """All rows of a file, with their pictures found.

    Raises:
        FileNotFoundError: the file, or a picture, is not there.
        ValueError: a row is no question.
    """
    rows = list(_rows(file))
    if not rows:
        raise ValueError(f"{str(file)!r} holds no question.")
    stems: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.suffix.lower() in SUFFIXES:
            stems.setdefault(path.stem, []).append(path)
    questions, missing = [], []
    for number, row in rows:
        if not isinstance(row, dict) or not isinstance(row.get("question"), str):
            raise ValueError(f'{str(file)!r}, row {number}: there is no text under "question".')
        if any("\ud800" <= letter <= "\udfff" for letter in row["question"]):
            raise ValueError(f"{str(file)!r}, row {number}: half a character in the question. Was its text cut?")
        given = next((row[key] for key in ("image", "image_id") if row.get(key) is not None), [])
        images = []
        for name in map(str, given if isinstance(given, list) else [given]):
            path = folder / name
            found = [path] if path.is_file() else stems.get(name, [path])
            if len(found) > 1:
                raise ValueError(f"{str(file)!r}, row {number}: {name!r} may be {' or '.join(each.name for each in found)}.")
            (path,) = found
            images.append(path)
            missing += [] if path.is_file() else [name]
        questions.append(Question(row, tuple(images)))
    if missing:
        named = ", ".join(map(repr, missing[:MAX_NAMED])) + (" ..." if len(missing) > MAX_NAMED else "")
        raise FileNotFoundError(
            f"{len(missing)} pictures are not in {str(folder)!r}: {named}. Give their folder with --images."
        )
    return questions


def _rows(file: Path) -> Iterator[tuple[int, Any]]:
    """(number, row); JSON as a whole first, then line by line."""
    text = file.read_text(encoding="utf-8-sig")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        content = None
    if isinstance(content, dict) and "question" not in content:
        content = content.get("annotations")
    if isinstance(content, (list, dict)):
        yield from enumerate(content if isinstance(content, list) else [content], start=1)
        return
    for number, line in enumerate(text.split("\n"), start=1):  # alone: U+2028 and U+0085 stand in texts
        if line.strip():
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{str(file)!r}, line {number} is no JSON ({error}).") from error


def resume(output: Path, questions: list[Question], batch_size: int) -> tuple[int, int]:
    """How far an earlier run came.

    What it wrote behind its last whole batch is dropped from the file, so that a seed gives the same answers as without a stop.

    Returns:
        The number of questions that are done, and of those among them without an answer.

    Raises:
        ValueError: the file answers other questions.
    """
    if not output.exists():
        output.parent.mkdir(parents=True, exist_ok=True)
        return 0, 0
    lines = output.read_bytes().splitlines(keepends=True)  # bytes: at line ends alone
    if lines and not lines[-1].endswith(b"\n"):  # half a line of a run that was killed
        lines.pop()
    answers = []
    for number, (line, question) in enumerate(zip_longest(lines, questions), start=1):
        if line is None:
            break
        answer = _parsed(line)
        is_answer = "model_id" in answer and ("answer" in answer or "error" in answer)
        if question is None or not is_answer or any(answer.get(key) != value for key, value in question.written.items()):
            raise ValueError(f"{str(output)!r}, line {number} answers another question. Give another --output.")
        answers.append(answer)
    num_done = len(answers) if len(answers) == len(questions) else len(answers) // batch_size * batch_size
    partial = output.with_name(f".{output.name}.partial")
    partial.write_bytes(b"".join(lines[:num_done]))
    partial.replace(output)
    return num_done, sum("error" in answer for answer in answers[:num_done])


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return answer if isinstance(answer, dict) else {}


def _answer_all(args, questions: list[Question], num_done: int) -> int:
    """Answer the rest, batch by batch, each written before the next begins; the number that could not be answered."""
    from tqdm import tqdm

    chat = load_chat(args)
    config = generation_config(args, chat)
    model_id = Path(args.model or args.lora_model or "demo").name
    num_failed = 0
    with (
        open(args.output, "a", encoding="utf-8", errors="backslashreplace") as file,
        tqdm(total=len(questions), initial=num_done, unit="question", disable=None) as progress,
    ):
        for first in range(num_done, len(questions), args.batch_size):
            batch = questions[first : first + args.batch_size]
            if args.seed is not None:
                from transformers import set_seed

                set_seed(args.seed + first)
            for question, answer in zip(batch, answer_batch(chat, config, batch), strict=True):
                num_failed += "error" in answer
                file.write(json.dumps({**question.written, **answer, "model_id": model_id}, ensure_ascii=False) + "\n")
            file.flush()
            progress.update(len(batch))
    return num_failed


def answer_batch(chat, config, batch: list[Question]) -> list[dict[str, str]]:
    """{"answer"} or {"error"} for each question. A question that cannot be answered takes no other one along.

    Raises:
        MemoryError: the batch does not fit.
    """
    conversations, errors = {}, {}
    for place, question in enumerate(batch):
        try:
            conversations[place] = _conversation(question)
        except (ValueError, OSError) as error:
            errors[place] = {"error": one_line(error)}
    texts = chat.answer_each(list(conversations.values()), config)
    answers = {
        place: {"error": one_line(text)} if isinstance(text, Exception) else {"answer": text}
        for place, text in zip(conversations, texts, strict=True)
    }
    return [{**errors, **answers}[place] for place in range(len(batch))]


def _conversation(question: Question):
    from pipelines.base import ImagePart
    from pipelines.generation import message
    from pipelines.images import load_image

    parts = [ImagePart.of(load_image(path, background="white")) for path in question.images]
    return [message("user", question.text, len(parts))], parts


if __name__ == "__main__":
    sys.exit(main())
