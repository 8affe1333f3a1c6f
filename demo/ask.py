"""`python -m demo ask`: one question about pictures, or a conversation in the terminal."""

import sys

from .cli import Parser, add_generation_flags, add_model_flags, generation_config, load_model, one_line

USAGE = """Type a question. Commands:
  change image:PATH   look at another picture and begin a new conversation
  add image:PATH      look at one more picture and go on
  clear               begin a new conversation about the same pictures
  exit                leave
"""


def main(argv: list[str] | None = None) -> int:
    """Run the command; 0 when it went well, 2 for a mistake of the user's."""
    parser = Parser("python -m demo ask", description="Ask a model about pictures. Without a question: a conversation.")
    parser.add_argument("question", nargs="?", help="without it a conversation begins")
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
        model, config = load_model(args), generation_config(args)
        if args.question is None:
            converse(model, config, args.images)
        else:
            answer(model, config, args.images, args.question, [])
    except (ValueError, OSError, ImportError, MemoryError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    return 0


def converse(model, config, images: list[str]) -> None:
    """A conversation on the terminal. What goes wrong is told, and the conversation goes on."""
    print(USAGE)
    history: list[dict] = []
    while True:
        try:
            text = input("> ").strip()
        except (EOFError, KeyboardInterrupt):
            print()
            return
        command, _, path = text.partition(":")
        if text == "exit":
            return
        if text == "clear":
            history = []
            print("A new conversation.")
        elif command in ("change image", "add image"):
            images, history = _other_images(command, path.strip(), images, history)
        elif text:
            try:
                answer(model, config, images, text, history)
            except KeyboardInterrupt:
                print("\n(stopped)")
            except (ValueError, OSError, RuntimeError, MemoryError) as error:
                print(f"error: {one_line(error)}", file=sys.stderr)


def answer(model, config, images: list[str], question: str, history: list[dict]) -> None:
    """Print the answer as it comes; `history` grows by the turn once it is whole."""
    from pipelines.visualcla import chat_in_stream

    printed = ""
    for response, _ in chat_in_stream(model, images, question, history, config):
        print(response[len(printed) :], end="", flush=True)
        printed = response
    print()


def _other_images(command: str, path: str, images: list[str], history: list[dict]) -> tuple[list[str], list[dict]]:
    from pipelines.images import load_image

    try:
        load_image(path)
    except ValueError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return images, history
    return ([path], []) if command == "change image" else ([*images, path], history)
