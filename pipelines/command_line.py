"""What every command that runs a model shares: which model, how it is loaded, how a mistake is told."""

import argparse
import logging
import os
import sys
from pathlib import Path
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """argparse whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: {message}. See {self.prog} --help", file=sys.stderr)
        raise SystemExit(2)


def add_model_flags(parser: argparse.ArgumentParser, default: str = "") -> None:
    """Flags of the original's inference script, and what came since.

    Args:
        parser: gets them.
        default: what is said of a command that has a model of its own.
    """
    group = parser.add_argument_group("model")
    group.add_argument(
        "--model",
        "--visualcla_model",
        dest="model",
        metavar="FOLDER",
        help=f"a whole model in any layout, a hub name, or the file it was published as{default}",
    )
    group.add_argument(
        "--text_model", metavar="FOLDER", help="the language model, where --model (or an unmerged release) does not hold it"
    )
    group.add_argument("--vision_model", metavar="FOLDER", help="the vision encoder, likewise")
    group.add_argument("--lora_model", metavar="PATH", help="the unmerged release, or an adapter for --model")
    group.add_argument("--dtype", choices=["auto", "float32", "float16", "bfloat16"], default="auto", help="of the weights")
    group.add_argument("--prompt_style", help="which of the family's prompts, where it has several (docs/families.md)")
    bits = group.add_mutually_exclusive_group()
    bits.add_argument("--load_in_8bit", action="store_true", help="quantise the language model to 8 bits")
    bits.add_argument("--load_in_4bit", action="store_true", help="quantise the language model to 4 bits")
    group.add_argument("--gpus", help='which GPUs to use, such as "0,1" (default: CUDA_VISIBLE_DEVICES, else 0)')
    group.add_argument("--only_cpu", action="store_true", help="use no GPU")


def load_chat(args: argparse.Namespace, default: Path | None = None):
    """The `ChatModel` that the flags ask for.

    Args:
        args: with the flags of `add_model_flags`.
        default: the model where no flag names one.

    Raises:
        FileNotFoundError, ValueError, ImportError: files are missing or do not fit; the message says what to do.
        MemoryError: it would not fit.
    """
    os.environ["CUDA_VISIBLE_DEVICES"] = "" if args.only_cpu else args.gpus or os.environ.get("CUDA_VISIBLE_DEVICES", "0")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it misses a kernel of its own also where nothing is quantised
    import torch
    from transformers.utils import logging as transformers_logging

    from pipelines import load_model
    from pipelines.generation import ChatModel
    from pipelines.hub import resolve_folder
    from pipelines.memory import check_memory

    transformers_logging.set_verbosity_error()  # what it says of settings and progress is not for whoever asks a question
    transformers_logging.disable_progress_bar()
    has_gpu = torch.cuda.is_available()
    dtype, bits = precision(args, has_gpu)
    bases = {"text_model": args.text_model, "vision_model": args.vision_model}
    bases = {name: folder for name, folder in bases.items() if folder is not None}
    if args.model is None and bases:
        if len(bases) < 2 or args.lora_model is None:
            raise ValueError(
                "Without --model, --text_model, --vision_model and --lora_model belong together: the first two are what the release "
                "in --lora_model was trained on."
            )
        name, adapter = args.lora_model, None
    else:
        name, adapter = args.model or default, args.lora_model
        if name is None:
            raise ValueError("No model was given. Name its folder: --model FOLDER")
    folders = [resolve_folder(folder) for folder in (name, *bases.values())]
    check_memory(folders, bits, "cuda" if has_gpu else "cpu")
    if adapter is not None:
        bases["lora_model"] = adapter
    if args.prompt_style is not None:
        bases["prompt_style"] = args.prompt_style
    model, processor = load_model(
        name,
        **bases,
        dtype=getattr(torch, dtype),
        device_map="auto" if has_gpu else None,
        load_in_8bit=args.load_in_8bit,
        load_in_4bit=args.load_in_4bit,
    )
    return ChatModel(model, processor)


def precision(args: argparse.Namespace, has_gpu: bool) -> tuple[str, int]:
    """What the flags ask for: the dtype of the weights, and in how many bits the language model's are."""
    dtype = args.dtype if args.dtype != "auto" else ("float16" if has_gpu else "float32")
    return dtype, 8 if args.load_in_8bit else 4 if args.load_in_4bit else 32 if dtype == "float32" else 16


def one_line(error: BaseException) -> str:
    """An error for the user's eyes; what a file says of itself in it cannot steer the terminal."""
    text = "".join(letter if letter.isprintable() else " " for letter in str(error))
    return " ".join(text.split()) or type(error).__name__
