"""What every command of the demo shares: the shipped model, and how it answers."""

import argparse
from pathlib import Path

from pipelines import command_line
from pipelines.command_line import Parser, one_line

__all__ = ["DEFAULT_MODEL", "Parser", "add_generation_flags", "add_model_flags", "generation_config", "load_chat", "one_line"]

DEFAULT_MODEL = Path(__file__).parent / "model"
"""The shipped model of the tiny world."""
MAX_BEAMS = 16


def add_model_flags(parser: argparse.ArgumentParser) -> None:
    """Which model; the shipped one when none is named."""
    command_line.add_model_flags(parser, "; the shipped model of the tiny world when absent")


def load_chat(args: argparse.Namespace):
    """The `ChatModel` that the flags ask for; see `pipelines.command_line.load_chat`."""
    return command_line.load_chat(args, DEFAULT_MODEL)


def add_generation_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("answer")
    group.add_argument("--max_new_tokens", type=int, help="longest answer in tokens (default: 512)")
    group.add_argument(
        "--temperature",
        type=float,
        help="0 always takes the likeliest token (default: 0 for the shipped model, else as the family's original samples)",
    )
    group.add_argument(
        "--num_beams", type=int, choices=range(1, MAX_BEAMS + 1), metavar="N",
        help="answers looked at side by side, the likeliest taken; not streamed (default: 1)",
    )  # fmt: skip
    group.add_argument("--seed", type=int, help="makes sampled answers repeatable")


def generation_config(args: argparse.Namespace, chat):
    """How to answer, from the flags: the shipped model answers by its likeliest tokens, others as their original samples."""
    from transformers import GenerationConfig

    if args.seed is not None:
        from transformers import set_seed  # takes as long to import as all the rest: it brings peft and bitsandbytes

        set_seed(args.seed)
    beams = {"num_beams": args.num_beams} if args.num_beams is not None else {}
    is_shipped = args.text_model is None and Path(args.model or DEFAULT_MODEL).resolve() == DEFAULT_MODEL.resolve()
    temperature = args.temperature if args.temperature is not None else 0.0 if is_shipped else None
    if temperature == 0.0:
        return GenerationConfig(do_sample=False, max_new_tokens=args.max_new_tokens or 512, **beams)
    settings = {"max_new_tokens": 512, **(chat.pipeline.sampling or chat.model.generation_config.to_diff_dict())}
    settings |= {"temperature": temperature, "do_sample": True} if temperature is not None else {}
    settings |= {"max_new_tokens": args.max_new_tokens} if args.max_new_tokens is not None else {}
    return GenerationConfig(**settings | beams)
