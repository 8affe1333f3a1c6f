"""`python -m training evaluate TASK DATA ...`: ask, score, show. And what is done with results: report, judge, votes, tally."""

import argparse
import fnmatch
import hashlib
import importlib
import sys
from pathlib import Path

from pipelines.command_line import Parser, add_model_flags, load_chat, one_line
from pipelines.doctor import versions

from ..judge import AnswerBook
from . import report
from .models import Answerer, LocalModel, Recorded, fingerprint_of
from .results import Result, result
from .run import ask_all
from .tasks import TASKS, ImageFolder, Task

PROG = "python -m training evaluate"
VERBS = {
    "report": ("report", "the page of several folders of results, to compare runs"),
    "judge": ("gavie", "have a judge (any OpenAI-compatible server) score answers: GAVIE, or an examiner"),
    "votes": ("votes", "a page on which people vote for answers, not knowing whose they are"),
    "tally": ("tally", "count what people voted"),
}
"""Instead of a task -> (module with `main(argv) -> int`, a line for the user)."""

ALL = "all"


def main(argv: list[str]) -> int:
    """Run the command; 0 when every question was answered, 1 when some were not, 2 for a mistake of the user's."""
    try:
        if argv[:1] and argv[0] in VERBS:
            return importlib.import_module(f".{VERBS[argv[0]][0]}", __package__).main(argv[1:])
        return evaluate(argv)
    except (ValueError, OSError, ImportError, MemoryError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped. The same command goes on where this one was.", file=sys.stderr)
        return 130


def evaluate(argv: list[str]) -> int:
    """Ask and score one task, or all whose data a folder holds."""
    args = _parser().parse_args(argv)
    if args.max_new_tokens is not None and args.max_new_tokens < 1:
        raise ValueError(f"--max_new_tokens is {args.max_new_tokens}, but an answer has at least 1.")
    if args.batch_size < 1:
        raise ValueError(f"--batch_size is {args.batch_size}, but a batch holds at least 1 question.")
    chosen = find_tasks(args.task, args.data)
    who = _answerer(args)
    args.output_dir.mkdir(parents=True, exist_ok=True)
    book = AnswerBook(args.output_dir / "answers.jsonl")
    num_failed = 0
    for task, data in chosen:
        if args.max_new_tokens is not None:
            task.max_new_tokens = args.max_new_tokens
        questions = task.read(data, ImageFolder(args.images or (data if data.is_dir() else data.parent)))
        if args.limit is not None:
            questions = questions[: args.limit]
        how = _how(task, args.by, who)
        answers = ask_all(task, questions, who, how, book)
        settings = {
            "fingerprint": who.fingerprint,
            "data_sha256": _digest(data),
            "questions": len(questions),
            "by": how,
            "max_new_tokens": task.max_new_tokens,
            **_versions(who),
        }
        made = result(task, data.name, who.name, settings, questions, answers)
        made.save(args.output_dir)
        num_failed += sum(bool(answer.error) for answer in made.answers)
        print(summary(made))
    page = report.write(report.find_results([args.output_dir]), args.output_dir)
    print(f"\n{page}", file=sys.stderr)
    return 1 if num_failed else 0


def find_tasks(name: str, data: Path) -> list[tuple[Task, Path]]:
    """The task of that name with its data; for "all" every task whose published file names are in a folder.

    Raises:
        FileNotFoundError: the data is not there, or no file in the folder is known.
        ValueError: there is no such task.
    """
    if not data.exists():
        raise FileNotFoundError(f"{str(data)!r} is not there. Give the task's data file or folder.")
    if name != ALL:
        return [(TASKS[name], data)]
    if not data.is_dir():
        raise ValueError(f"{str(data)!r} is no folder; 'all' looks for the data of every task in one.")
    found: list[tuple[Task, Path]] = []
    for file in sorted(data.iterdir()):
        task = next(
            (task for task in TASKS.values() if any(fnmatch.fnmatch(file.name.lower(), pattern) for pattern in task.files)),
            None,
        )
        if task is not None and file.is_file():
            found.append((task, file))
        elif file.is_dir() and file.name.lower() in ("mme", "mme_benchmark", "mme_benchmark_release_version"):
            found.append((TASKS["mme"], file))
        elif file.is_file():
            print(f"{file.name}: the data of no task by its name; left out", file=sys.stderr)
    if not found:
        known = "; ".join(f"{task.name}: {', '.join(task.files)}" for task in TASKS.values() if task.files)
        raise FileNotFoundError(f"{str(data)!r} holds no file that is published under the name of a task's data. {known}")
    return found


def summary(made: Result) -> str:
    """What the terminal shows of a result."""
    lines = [f"{made.title}, {made.model}: {len(made.answers)} answers"]
    if failed := [answer for answer in made.answers if answer.error]:
        lines.append(f"  {len(failed)} without an answer; {failed[0].id}: {failed[0].error}")
    width = max(map(len, made.figures), default=0)
    lines += [f"  {name:{width}}  {figure}" for name, figure in made.figures.items()]
    for label, values in made.by.items():
        lines.append(f"  by {label}: " + "; ".join(f"{value} {figure.value:.1%}" for value, figure in values.items()))
    if made.hallucination:
        figures = made.hallucination["all"]
        lines.append("  " + "; ".join(f"{name} {figure.value:.1%}" for name, figure in figures.items()))
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    width = max(map(len, (*TASKS, *VERBS)))
    tasks = "\n".join(f"  {task.name:{width}}  {task.about}" for task in TASKS.values())
    verbs = "\n".join(f"  {name:{width}}  {about}" for name, (_, about) in VERBS.items())
    parser = Parser(
        PROG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage=f"{PROG} TASK DATA --output_dir FOLDER (--model FOLDER | --server URL | --predictions FILE) [flags]",
        description="How well a model sees. Answers are the likeliest ones; what is answered is kept: stopped, the same command goes on.",
        epilog=f"tasks:\n{tasks}\n  {ALL:{width}}  every task whose data a folder holds\n\ninstead of a task:\n{verbs}\n",
    )
    parser.add_argument("task", choices=[*TASKS, ALL], metavar="TASK", help="see below")
    parser.add_argument("data", type=Path, metavar="DATA", help="the task's data, as it is published")
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="where the pictures are (default: beside the data)")
    parser.add_argument("--output_dir", type=Path, required=True, metavar="FOLDER", help="answers, results and the page")
    parser.add_argument("--name", help="of the model, on the page")
    parser.add_argument("--limit", type=int, help="only so many questions, from the first one on")
    parser.add_argument("--by", choices=["likelihood", "letter"], help="how options are chosen (default: by likelihood)")
    parser.add_argument("--max_new_tokens", type=int, help="longest answer (default: the task's own)")
    parser.add_argument("--batch_size", type=int, default=16, help="questions answered at once (default: %(default)s)")
    parser.add_argument("--predictions", type=Path, metavar="FILE", help="score answers that were given before")
    parser.add_argument("--server", metavar="URL", help="an OpenAI-compatible server, such as http://127.0.0.1:5000/v1")
    parser.add_argument("--server_model", metavar="NAME", help="which of the server's models")
    parser.add_argument(
        "--api_key_env", metavar="VARIABLE", default="OPENAI_API_KEY", help="where the server's key is (%(default)s)"
    )
    add_model_flags(parser)
    return parser


def _answerer(args: argparse.Namespace) -> Answerer:
    given = [name for name in ("model", "lora_model", "server", "predictions") if getattr(args, name) is not None]
    if not given or len(set(given) - {"lora_model"}) > 1:
        raise ValueError("Say who answers, by one of --model FOLDER, --server URL, --predictions FILE.")
    if args.predictions is not None:
        return Recorded(args.predictions, args.name)
    if args.server is not None:
        from .server import Server

        return Server(args.server, args.server_model, args.api_key_env, args.name)
    chat = load_chat(args)
    from pipelines.hub import resolve_folder

    parts = [args.model or args.lora_model, args.text_model, args.vision_model, args.lora_model if args.model else None]
    bits = 8 if args.load_in_8bit else 4 if args.load_in_4bit else 0
    folders = [resolve_folder(part) for part in parts if part is not None]
    fingerprint = fingerprint_of(*folders, dtype=str(chat.model.dtype), bits=bits, prompt_style=args.prompt_style)
    return LocalModel(chat, args.name or Path(args.model or args.lora_model).name, fingerprint, args.batch_size)


def _how(task: Task, by: str | None, who: Answerer) -> str:
    if isinstance(who, Recorded):
        return "recorded"
    if not task.by_options:
        if by is not None:
            raise ValueError(f"{task.name} has no options to choose from: leave --by out.")
        return "text"
    return by or "likelihood"


def _versions(who: Answerer) -> dict[str, str]:
    """Of what decides about answers that are given here; a server and a file of answers do not say theirs."""
    own = isinstance(who, LocalModel)
    return {name: version for name, version in versions().items() if version is not None and (own or name == "python")}


def _digest(data: Path) -> str:
    digest = hashlib.sha256()
    for file in (
        [data] if data.is_file() else sorted(file for file in data.rglob("*") if file.suffix in (".txt", ".json", ".jsonl"))
    ):
        digest.update(file.read_bytes())
    return digest.hexdigest()
