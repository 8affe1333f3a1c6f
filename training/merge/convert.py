"""`python -m training convert`: a model or an adapter into another layout, tensor by tensor."""

import argparse
import sys
from pathlib import Path

from pipelines.checkpoints.formats import refuse_foreign
from pipelines.checkpoints.meta_llama import is_meta_llama
from pipelines.hub import resolve_folder
from pipelines.registry import converter, find_family

from .command import DTYPES, add_write_options, run_verb
from .convert_adapter import FORMS, convert_adapter
from .folder import LAYOUTS
from .language_models import convert_meta_llama
from .plan import plan_merge
from .write import write_model


def main(argv: list[str] | None = None) -> int:
    """Run the verb; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m training convert",
        description="Write a model or an adapter in another layout. A whole model (webui, transformers, original) becomes "
        "any of these three. An adapter becomes 'release' (what the original code opens) or 'split' (its "
        "convert_ckpt_for_tgwebui.py: a text LoRA for the web UI and a vision half), and with its bases a whole model.",
    )
    parser.add_argument("input", help="model or adapter: folder or hub name")
    parser.add_argument("output_dir", type=Path, help="the folder to make")
    parser.add_argument("--layout", choices=[*LAYOUTS, *FORMS], required=True, help="what to write")
    parser.add_argument("--text_model", help="the language model under an adapter")
    parser.add_argument("--vision_model", help="the vision encoder under an adapter")
    parser.add_argument(
        "--hardlink",
        action="store_true",
        help="link safetensors files whose bytes stay the same instead of copying them; both folders then share these files",
    )
    add_write_options(parser)
    options = parser.parse_args(argv)

    def run() -> None:
        source = resolve_folder(options.input)
        is_adapter = (source / "adapter_config.json").is_file()
        dtype = DTYPES[options.dtype]
        refuse_foreign(source, "convert", has_vision=find_family(source) is not None)
        if is_meta_llama(source):
            if options.layout != LAYOUTS[0] or options.hardlink:
                raise ValueError(f"{str(source)!r} is a language model alone: give --layout {LAYOUTS[0]}, without --hardlink.")
            convert_meta_llama(source, options.output_dir, dtype, options.max_shard_size, options.force)
            print(f"Converted: {options.output_dir}")
            return
        if convert := converter(source):
            if options.hardlink or options.layout in FORMS:
                raise ValueError(
                    f"--hardlink, {' and '.join(FORMS)} are not for this family. Give one of --layout {', '.join(LAYOUTS)}."
                )
            bases = {"text_model": options.text_model, "vision_model": options.vision_model}
            write = {"dtype": dtype, "max_shard_bytes": options.max_shard_size, "force": options.force}
            convert(source, options.output_dir, options.layout, **bases, **write)
            print(f"Converted: {options.output_dir}")
            return
        if options.layout in FORMS:
            _check_form(options, source, is_adapter)
            convert_adapter(source, options.output_dir, options.layout, dtype, options.force)
        else:
            plan = _plan(options, source, is_adapter, dtype)
            write_model(plan, options.layout, options.output_dir, options.max_shard_size, options.force, options.hardlink)
            print("".join(f"{note}\n" for note in plan.notes), end="")
        print(f"Converted: {options.output_dir}")

    return run_verb(run)


def _check_form(options: argparse.Namespace, source: Path, is_adapter: bool) -> None:
    if not is_adapter:
        raise ValueError(
            f"{str(source)!r} is a whole model: which of its weights came from an adapter cannot be told any more, so it cannot "
            f"become {options.layout!r}. Convert the adapter it was merged from, or give one of --layout {', '.join(LAYOUTS)}."
        )
    if options.hardlink:
        raise ValueError(f"--hardlink has nothing to link for {options.layout!r}: its weight files are written anew.")


def _plan(options: argparse.Namespace, source: Path, is_adapter: bool, dtype):
    bases = [base for base in (options.text_model, options.vision_model) if base is not None]
    if not is_adapter:
        if bases:
            raise ValueError(
                f"{str(source)!r} is a whole model: --text_model and --vision_model are for adapters. Leave them out."
            )
        return plan_merge(source, None, [], dtype)
    if options.text_model is None:
        raise ValueError(
            f"{str(source)!r} is an adapter: a whole model needs the models it was trained on. Give --text_model and "
            "--vision_model, or --layout release or split."
        )
    vision_model = None if options.vision_model is None else resolve_folder(options.vision_model)
    return plan_merge(resolve_folder(options.text_model), vision_model, [source], dtype)


if __name__ == "__main__":
    sys.exit(main())
