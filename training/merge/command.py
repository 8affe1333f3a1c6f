"""`python -m training merge`: a text model, a vision model and adapters become one folder that opens as it is."""

import argparse
import re
import sys
from pathlib import Path

import torch

from pipelines.checkpoints.formats import refuse_foreign
from pipelines.hub import resolve_folder
from pipelines.registry import converter

from .folder import LAYOUTS
from .language_models import apply_delta
from .plan import plan_merge
from .write import write_model

DTYPES = {"auto": None, "float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "KI": 2**10, "MI": 2**20, "GI": 2**30}


def main(argv: list[str] | None = None) -> int:
    """Run the verb; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m training merge",
        description="Merge LoRA adapters into a language model and a vision encoder, tensor by tensor (well under 1.5 GB of "
        "memory for a 7B model), and write one folder. A killed merge goes on when the same command runs again.",
    )
    parser.add_argument("--text_model", required=True, help="language model, or a whole model: folder or hub name")
    parser.add_argument("--vision_model", help="CLIP or SigLIP model: folder or hub name; not needed when text_model has eyes")
    parser.add_argument(
        "--lora_model", default="", help="adapters, separated by commas, applied in this order: folders or hub names"
    )
    parser.add_argument(
        "--delta",
        metavar="FOLDER",
        help="weights minus those of --text_model, as Vicuna v0 and LLaVA 1 were published; gives an ordinary language model",
    )
    parser.add_argument("--output_dir", required=True, type=Path, help="the folder to make")
    parser.add_argument(
        "--layout",
        choices=LAYOUTS,
        default="webui",
        help="webui: language model at the root, eyes in vision/ (default); transformers: one composite checkpoint; original: "
        "what the family's original code opens",
    )
    add_write_options(parser)
    parser.add_argument(
        "--verify",
        action="store_true",
        help="afterwards compare the logits of the folder with those of base and adapters (loads whole models, in fp32)",
    )
    options = parser.parse_args(argv)

    def run() -> None:
        vision_model = None if options.vision_model is None else resolve_folder(options.vision_model)
        adapters = [resolve_folder(name.strip()) for name in options.lora_model.split(",") if name.strip()]
        text_model = resolve_folder(options.text_model)
        if options.delta is not None:
            if adapters or vision_model or options.verify:
                raise ValueError(
                    "--delta makes a language model: leave --vision_model, --lora_model and --verify for the next merge."
                )
            write = (DTYPES[options.dtype], options.max_shard_size, options.force)
            apply_delta(text_model, resolve_folder(options.delta), options.output_dir, *write)
            print(f"Merged: {options.output_dir}")
            return
        for path in (text_model, *([] if vision_model is None else [vision_model]), *adapters):
            refuse_foreign(path, "merge")
        if _convert(options, text_model, vision_model, adapters):
            return
        plan = plan_merge(text_model, vision_model, adapters, DTYPES[options.dtype])
        write_model(plan, options.layout, options.output_dir, options.max_shard_size, options.force)
        print("\n".join([*plan.notes, f"Merged: {options.output_dir}"]))
        if options.verify:
            from .verify import verify

            print(verify(options.output_dir, plan, vision_model))

    return run_verb(run)


def _convert(options: argparse.Namespace, text_model: Path, vision_model: Path | None, adapters: list[Path]) -> bool:
    """Merge a model of a family that writes its layouts itself; False when none of what was given is of one."""
    bases = {"vision_model": vision_model}
    if convert := converter(text_model):  # a whole model
        path, bases["lora_model"], rest = text_model, adapters[0] if adapters else None, adapters[1:]
    elif adapters and (convert := converter(adapters[0])):  # what was published over a language model
        path, bases["text_model"], rest = adapters[0], text_model, adapters[2:]
        bases["lora_model"] = adapters[1] if len(adapters) > 1 else None
    else:
        return False
    if rest:
        raise ValueError(f"{str(rest[0])!r} is one adapter too many for this family. Merge one after the other.")
    write = {"dtype": DTYPES[options.dtype], "max_shard_bytes": options.max_shard_size, "force": options.force}
    convert(path, options.output_dir, options.layout, **bases, **write)
    print(f"Merged: {options.output_dir}")
    if options.verify:
        from .verify import verify_converted

        print(verify_converted(options.output_dir, path, **bases))
    return True


def add_write_options(parser: argparse.ArgumentParser) -> None:
    """The options of every verb that writes a model."""
    parser.add_argument("--dtype", choices=DTYPES, default="auto", help="of the weights; auto: the language model's (default)")
    parser.add_argument(
        "--max_shard_size", type=size_of, default="2GB", help="of a weight file, as 500MB, 2GB, 1GiB (default 2GB)"
    )
    parser.add_argument("--force", action="store_true", help="replace a model that is in output_dir already")


def size_of(text: str) -> int:
    """A size in bytes.

    >>> size_of("1.5GB"), size_of("2MiB")
    (1500000000, 2097152)
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]I?)?B?", text.strip().upper())
    if match is None or not (size := int(float(match[1]) * _UNITS[match[2] or ""])):
        raise argparse.ArgumentTypeError(f"{text!r} is no size. Write it as 500MB, 2GB or 1GiB.")
    return size


def run_verb(run) -> int:
    """Call a verb's work; a user's mistake becomes one line on stderr and exit status 2."""
    try:
        run()
    except (OSError, ValueError, ImportError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted. The same command goes on where this one stopped.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
