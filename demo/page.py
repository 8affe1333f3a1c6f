"""`python -m demo page`: serve the chat page. What the page does is in ui.py."""

import argparse
import logging
import os
import signal
import socket
import sys
import threading
from pathlib import Path
from urllib.parse import urlsplit

from pipelines.command_line import precision

from .cli import DEFAULT_MODEL, Parser, add_generation_flags, add_model_flags, generation_config, load_chat, one_line
from .own_folder import own_folder

logger = logging.getLogger(__name__)

FIRST_PORT = 7860  # gradio takes the first free one from here


def main(argv: list[str] | None = None) -> int:
    """Run the page until Ctrl-C; 2 when it cannot be served."""
    parser = Parser(prog="python -m demo page", description="A chat page on which a model answers about pictures.")
    add_model_flags(parser)
    add_generation_flags(parser)
    group = parser.add_argument_group("page")
    group.add_argument("--models", metavar="DIR", help="a folder of model folders: the page has a choice of them")
    group.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 for the whole network (default: %(default)s)"
    )
    group.add_argument("--port", type=int, metavar="N", help="port to listen on (default: the first free one from 7860)")
    group.add_argument("--share", action="store_true", help="also a public address, through gradio's servers")
    group.add_argument("--no-browser", action="store_true", help="do not open a browser window")
    group.add_argument("--no_stream", action="store_true", help="show answers when they are complete")
    group = parser.add_argument_group("server", "instead of a model here")
    group.add_argument("--server", metavar="URL", help="talk to an OpenAI-compatible server that takes pictures, such as vLLM")
    group.add_argument("--server_model", metavar="NAME", help="which of its models (default: its only one)")
    group.add_argument(
        "--api_key_env", metavar="VARIABLE", default="OPENAI_API_KEY", help="where the server's key is (default: %(default)s)"
    )
    args = parser.parse_args(argv)
    if args.server is not None and (args.model or args.models or args.text_model or args.lora_model):
        parser.error("--server and a model of your own exclude each other; give one of them")
    if args.models is not None and not Path(args.models).is_dir():
        parser.error(f"{args.models!r} is not a folder: give the one that the model folders are in with --models")
    model = args.model or args.lora_model or str(DEFAULT_MODEL)
    if args.port is not None and not 0 < args.port < 65536:
        parser.error(f"--port {args.port}: a port is a number from 1 to 65535")
    if not Path(model).is_dir() and model.count("/") != 1:
        parser.error(f"{model!r} is not a folder: give the folder of a model with --model, or a name on the hub")
    if args.port is not None and not _is_free(args.host, args.port):
        parser.error(f"{args.host}:{args.port} cannot be listened on; give another --port, or none")
    if args.server is not None:
        name = args.server_model or urlsplit(args.server).netloc or args.server
    else:
        name = "demo model" if model == str(DEFAULT_MODEL) else Path(model).resolve().name
    with own_folder() as own:
        return _serve(args, name, own)


def _serve(args, name: str, own: Path) -> int:
    # gradio keeps what is uploaded in its own folder: here, so that no picture outlives the page.
    os.environ |= {"GRADIO_TEMP_DIR": str(own), "GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_RUN_HISTORY": "False"}
    # It also asks itself whether it is there, which no proxy can answer.
    besides = os.environ.get("NO_PROXY") or os.environ.get("no_proxy") or ""
    own_names = f"{besides},127.0.0.1,localhost,{args.host}".lstrip(",")
    os.environ |= {"NO_PROXY": own_names, "no_proxy": own_names}
    from .ui import ChatPage

    models, num_at_once = _models(args, name)
    page = ChatPage(models, own, not args.no_stream, num_at_once)
    try:
        address = page.launch(args.host, args.port, args.share, not args.no_browser and _has_display())
    except (OSError, ValueError) as error:
        print(f"python -m demo page: {one_line(error)}", file=sys.stderr)
        return 2
    if args.port is None and not address.rstrip("/").endswith(f":{FIRST_PORT}") and not args.share:
        print(f"Port {FIRST_PORT} is in use: the page is on another one.", file=sys.stderr)
    print(f"The chat page with {name}: {address} (Ctrl-C stops it)", flush=True)
    threading.Thread(target=_load, args=[args, models], daemon=True).start()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the pictures go also when the page is killed
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        page.blocks.close(verbose=False)
    return 0


def _models(args, name: str):
    """The models to choose from, and how many answers one writes at the same time."""
    from .card import QUESTIONS, Card, read_card
    from .models import Models
    from .server import AT_ONCE, open_server, server_generation_config
    from .session import SharedModel

    if args.server is not None:
        card = Card(questions=QUESTIONS)
        return Models([SharedModel(lambda: open_server(args), name, lambda _: server_generation_config(args), card)]), AT_ONCE

    def offer(name: str, args, card: Path, folder: Path | None) -> SharedModel:
        return SharedModel(lambda: load_chat(args), name, lambda chat: generation_config(args, chat), read_card(card), folder)

    first = Path(args.model or args.lora_model or DEFAULT_MODEL)
    is_folder = first.is_dir() and args.lora_model is None
    models = [offer(name, args, first, first if is_folder else None)]
    folders = sorted(folder for folder in Path(args.models).iterdir() if folder.is_dir()) if args.models is not None else []
    alone = {"text_model": None, "vision_model": None, "lora_model": None, "prompt_style": None}
    for folder in folders:
        if folder.resolve() != first.resolve() and not folder.name.startswith("."):
            own = argparse.Namespace(**{**vars(args), **alone, "model": str(folder)})
            models.append(offer(folder.name if folder.name != name else str(folder), own, folder, folder))
    return Models(models), 1


def _load(args, models) -> None:
    """Load before anybody asks; a failure is said here and on the page. Then the doctor looks at what else can be chosen."""
    first = next(iter(models))
    try:
        models.load(first)
    except Exception as error:
        logger.debug("Loading failed.", exc_info=True)
        print(f"{first.name} could not be loaded: {one_line(error)}", file=sys.stderr, flush=True)
    if len(models) > 1:
        import torch

        has_gpu = torch.cuda.is_available()
        models.examine(precision(args, has_gpu)[1], "cuda" if has_gpu else "cpu")


def _is_free(host: str, port: int) -> bool:
    try:
        with socket.create_server((host, port)):
            return True
    except OSError:
        return False


def _has_display() -> bool:
    """Whether there is a desktop: elsewhere "the browser" may be a program in this very terminal."""
    return sys.platform in ("win32", "darwin") or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))
