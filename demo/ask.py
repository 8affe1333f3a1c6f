"""`python -m demo ask`: one question about pictures, or a conversation in the terminal."""

import json
import os
import sys
from dataclasses import dataclass

from .cli import Parser, add_generation_flags, add_model_flags, generation_config, load_chat, one_line

USAGE = """Type a question. Commands:
  change image:PATH   look at another picture and begin a new conversation
  add image:PATH      look at one more picture and go on
  clear               begin a new conversation about the same pictures
  exit                leave
"""


def main(argv: list[str] | None = None) -> int:
    """Run the command; 0 when it went well, 1 when a question of a pipe was not answered, 2 for a mistake of the user's."""
    parser = Parser("python -m demo ask", description="Ask a model about pictures. Without a question: a conversation.")
    parser.add_argument("question", nargs="?", help="without it a conversation begins")
    parser.add_argument("--json", action="store_true", help="one JSON object per answer: question, images, answer")
    parser.add_argument(
        "--image", "--image_file", dest="images", action="append", default=[], metavar="FILE", help="a picture; once for each"
    )
    add_model_flags(parser)
    add_generation_flags(parser)
    args = parser.parse_args(argv)
    try:
        from pipelines.images import load_image

        for image in args.images:  # before a large model is loaded
            load_image(image)
        chat = load_chat(args)
        config = generation_config(args, chat)
        if args.question is None:
            return 0 if converse(chat, config, args.images, args.json) else 1
        answer(chat, config, [], args.images, args.question, args.json)
    except BrokenPipeError:  # whoever reads the answers has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ValueError, OSError, ImportError, MemoryError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    return 0


def converse(chat, config, images: list[str], as_json: bool = False) -> bool:
    """A conversation on the terminal, or one question per line of a pipe. What goes wrong is told, and the conversation goes on.

    Returns:
        Whether all was well, or a person saw what was not.
    """
    is_typed = sys.stdin.isatty()
    if is_typed:
        print(USAGE)
    turns: list[Turn] = []
    waiting = list(images)  # pictures that the next question brings
    is_well = True
    while True:
        try:
            text = input("> " if is_typed else "").strip()
        except (EOFError, KeyboardInterrupt):
            if is_typed:
                print()
            return is_well or is_typed
        command, _, path = text.partition(":")
        if text == "exit":
            return is_well or is_typed
        if text == "clear":
            waiting = [image for turn in turns for image in turn.images] + waiting
            turns = []
            if is_typed:
                print("A new conversation.")
        elif command in ("change image", "add image"):
            if _can_be_read(path.strip()):
                is_new = command == "change image"
                turns, waiting = ([], [path.strip()]) if is_new else (turns, [*waiting, path.strip()])
            else:
                is_well = False
        elif text:
            try:
                turns.append(answer(chat, config, turns, waiting, text, as_json))
                waiting = []
            except KeyboardInterrupt:
                print("\n(stopped)")
            except BrokenPipeError:
                raise
            except (ValueError, OSError, RuntimeError, MemoryError) as error:
                is_well = False
                print(f"error: {one_line(error)}", file=sys.stderr)


@dataclass(frozen=True)
class Turn:
    """A question, the pictures it brought, and its answer."""

    question: str
    images: list[str]
    answer: str = ""


def answer(chat, config, turns: list[Turn], images: list[str], question: str, as_json: bool = False) -> Turn:
    """Print the answer as it comes, or as JSON once it is whole; gives the new turn."""
    from pipelines.generation import message
    from pipelines.images import load_image
    from pipelines.prompt import ImagePart

    turns = [*turns, Turn(question, images)]
    messages = []
    for turn in turns:
        messages.append(message("user", turn.question, len(turn.images)))
        if turn.answer:
            messages.append(message("assistant", turn.answer))
    parts = [ImagePart.of(load_image(image, background="white")) for turn in turns for image in turn.images]
    printed = ""
    for response in chat.stream(messages, parts, config):
        if not as_json:
            print(response[len(printed) :], end="", flush=True)
        printed = response
    print(
        json.dumps({"question": question, "images": images, "answer": printed}, ensure_ascii=False) if as_json else "",
        flush=True,
    )
    return Turn(question, images, printed)


def _can_be_read(path: str) -> bool:
    from pipelines.images import load_image

    try:
        load_image(path)
    except ValueError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return False
    return True
