"""`python -m training new`: a model to begin with, of any language model and a vision encoder, its connector untrained."""

import argparse
import inspect
import shutil
from pathlib import Path

from pipelines.hub import resolve_folder
from pipelines.registry import FAMILIES, family, parts_of, save_model

from .merge.command import run_verb


def main(argv: list[str] | None = None) -> int:
    """Run the verb; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m training new",
        description="Put a vision encoder before a language model that never saw a picture: image tokens, prompt, processor and an "
        "untrained connector, as one folder that opens at once. It answers about pictures once its connector is trained.",
    )
    parser.add_argument(
        "--family", required=True, help="how pictures reach the language model: visualcla (a resampler), llava (a projector)"
    )
    parser.add_argument(
        "--text_model",
        required=True,
        help="any causal language model of transformers: folder or hub name; or a GGUF file, which needs the package gguf",
    )
    parser.add_argument(
        "--vision_model",
        required=True,
        help="a CLIP or SigLIP model: folder or hub name; for visualcla also a VisualCLA model, whose resampler comes along",
    )
    parser.add_argument("--output_dir", required=True, type=Path, help="the folder to make")
    parser.add_argument(
        "--num_query_tokens", type=int, help="tokens that a picture costs in the prompt (visualcla; default 64)"
    )
    parser.add_argument("--num_layers", type=int, help="layers of the resampler (visualcla; default 6, 0 for none)")
    parser.add_argument("--seed", type=int, default=0, help="of the untrained weights (default %(default)s)")
    options = parser.parse_args(argv)
    return run_verb(lambda: _make(options))


def _make(options: argparse.Namespace) -> None:
    folder = options.output_dir
    if folder.exists():
        raise ValueError(f"{str(folder)!r} exists. Give another --output_dir.")
    make = getattr(family(options.family), "new_model", None) if options.family in FAMILIES else None
    if make is None:
        able = [name for name in FAMILIES if hasattr(family(name), "new_model")]
        raise ValueError(f"--family {options.family!r} cannot be begun anew; allowed: {', '.join(able)}.")
    sizes = {name: getattr(options, name) for name in ("num_query_tokens", "num_layers") if getattr(options, name) is not None}
    if unknown := sorted(set(sizes) - set(inspect.signature(make).parameters)):
        raise ValueError(f"--{unknown[0]} is not for {options.family}; leave it out.")
    if any(size < 0 for size in sizes.values()) or sizes.get("num_query_tokens") == 0:
        raise ValueError(f"sizes are numbers above 0, but {sizes} were given.")
    model, processor = make(options.text_model, options.vision_model, seed=options.seed, **sizes)
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(partial, ignore_errors=True)
    save_model(model, processor, partial)
    if not options.text_model.endswith(".gguf"):
        pieces = resolve_folder(options.text_model) / "tokenizer.model"
        if pieces.is_file():
            shutil.copyfile(pieces, partial / "tokenizer.model")
    partial.rename(folder)
    parts = parts_of(model)
    for part, prefixes in parts.items():
        size = sum(value.numel() for name, value in model.named_parameters() if name.startswith(tuple(prefixes)))
        print(f"{part}: {size / 1e6:.1f} M parameters{' (to be trained)' if part == 'connector' else ''}")
    print(f"Made: {folder}. It opens, and knows nothing of pictures yet:")
    print(f'  python -m demo ask --model {folder} --image photo.jpg "What is this?"')
    print(
        "Next, its connector learns from pictures with captions, then all of it from questions and answers (docs/training.md):"
    )
    print(
        f"  python -m training train --preset {options.family}_pretrain --model {folder} --source rows.jsonl --output_dir stage1"
    )
