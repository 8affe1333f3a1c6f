"""What a training run is told: YAML gives the defaults, flags go on top, an unknown key is refused.

`Recipe` is ours; everything else (`max_steps`, `learning_rate`, ...) is transformers' `TrainingArguments`.
"""

import argparse
import dataclasses
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import yaml
from transformers import HfArgumentParser, TrainingArguments

PARTS = ("vision_model", "visual_resampler", "image_projection_layer", "text_model")
OBJECTIVES = ("conversation", "attributes")
RESULTS = ("model", "adapter")


def _option(default, help: str):
    return field(default=default, metadata={"help": help})


@dataclass
class Recipe:
    """Which model learns what, from which data, and what becomes of it."""

    model: str = field(metadata={"help": "model folder or hub name to start from; a release (adapter) has to be merged first"})
    source: str = field(
        metadata={
            "help": "rows to learn from: a .jsonl file with image paths relative to it, or module:function called with the seed "
            "(a generator, which may be endless)"
        }
    )
    objective: str = _option(
        "conversation",
        "'conversation': the answers, given the conversation; 'attributes': the vision encoder alone tells the values of "
        "`targets` in rows of {'images', 'targets'}",
    )
    num_attribute_values: int = _option(16, "objective 'attributes': each target is in 0..num_attribute_values - 1")
    train_parts: list[str] = field(
        default_factory=lambda: ["visual_resampler", "image_projection_layer"],
        metadata={"help": f"parts trained in full, of {', '.join(PARTS)}"},
    )
    lora_target_modules: str | None = _option(
        None, "regular expression over module names that get LoRA layers; no LoRA without it"
    )
    lora_r: int = _option(8, "rank of the LoRA layers")
    lora_alpha: int = _option(16, "LoRA's scale is lora_alpha / lora_r")
    lora_dropout: float = _option(0.0, "dropout in front of the LoRA layers, 0..1")
    attn_implementation: str | None = _option(
        None, "attention of vision encoder and language model while training; 'eager' is the fastest for short rows on a CPU"
    )
    muon_learning_rate: float | None = _option(
        None, "weight matrices inside the layers learn with Muon at this rate, all else with AdamW; without it AdamW does all"
    )
    compile_layers: bool = _option(
        False,
        "compile the language model's layers: a third less time on a CPU after the first 20 seconds; needs a C++ compiler",
    )
    result: str = _option(
        "model",
        "'model': a whole model folder, LoRA merged; 'adapter': LoRA and the parts trained in full, in the VisualCLA release's "
        "format",
    )
    result_dtype: str = _option("float32", "dtype of the saved weights: float32, float16 or bfloat16")
    sort_window: int = _option(16, "an endless source is sorted by length over so many batches, to pad less; 1 keeps its order")
    overwrite: bool = _option(False, "replace what an earlier run left in output_dir")


@dataclass
class Arguments(TrainingArguments):
    """transformers' own arguments, with the defaults of this project."""

    output_dir: str = _option("outputs/train", "where model/ (or adapter/), config.yaml, loss.png and log.jsonl go")
    save_strategy: str = _option("no", "checkpoints while training: 'no', 'steps', 'epoch'")
    logging_steps: float = _option(20, "steps between two points of the loss curve")
    accelerator_config: dict | str | None = field(
        # Dispatched batches are cut to as many pictures as there are rows.
        default_factory=lambda: {"dispatch_batches": False},
        metadata={"help": "settings of accelerate, as JSON or a file; dispatch_batches must stay false"},
    )
    report_to: list[str] = field(default_factory=lambda: ["none"], metadata={"help": "trackers such as 'tensorboard'"})
    remove_unused_columns: bool = _option(False, "must stay false: the collator needs every column")
    lr_scheduler_type: str = _option("cosine", "learning rate schedule")
    per_device_train_batch_size: int = _option(48, "rows per step and device")
    adam_beta2: float = _option(0.98, "second moment of AdamW")


class _Parser(HfArgumentParser):
    def error(self, message: str) -> NoReturn:
        print(f"training: {message} Each field is explained by: python -m training train --help", file=sys.stderr)
        raise SystemExit(2)


def parse(argv: list[str]) -> tuple[Recipe, Arguments]:
    """Read `--config FILE` and the flags.

    Raises:
        SystemExit: with status 2 and one line on stderr where something is unknown, missing or not allowed.
    """
    parser = _Parser([Recipe, Arguments], prog="python -m training train", allow_abbrev=False)
    parser.add_argument("--config", type=Path, help="YAML file with values for the fields below")
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--config", type=Path)
    file = first.parse_known_args(argv)[0].config
    if file is not None:
        _set_defaults(parser, file)
    try:
        recipe, arguments, _, unknown = parser.parse_args_into_dataclasses(
            argv, return_remaining_strings=True, look_for_args_file=False
        )
    except (ValueError, TypeError, ImportError) as error:  # TrainingArguments checks itself
        parser.error(str(error).splitlines()[0])
    if unknown:
        parser.error(f"Unknown flags {unknown}.")
    for name, allowed in (("objective", OBJECTIVES), ("result", RESULTS)):
        if getattr(recipe, name) not in allowed:
            parser.error(f"{name} is {getattr(recipe, name)!r}; allowed: {', '.join(map(repr, allowed))}.")
    if unknown := [part for part in recipe.train_parts if part not in PARTS]:
        parser.error(f"train_parts has {unknown}; allowed: {', '.join(map(repr, PARTS))}.")
    in_adapter = ("visual_resampler", "image_projection_layer")
    if arguments.fsdp:
        parser.error(
            "fsdp is not supported: the optimizer is made before the model is sharded. Use data parallelism (torchrun)."
        )
    if recipe.result == "adapter" and (whole := [part for part in recipe.train_parts if part not in in_adapter]):
        parser.error(f"train_parts has {whole}, but an adapter holds LoRA for them; in full it holds {in_adapter} only.")
    if recipe.result == "adapter" and recipe.lora_target_modules is None:
        parser.error("result is 'adapter', but there is no lora_target_modules.")
    if recipe.result_dtype not in ("float32", "float16", "bfloat16"):
        parser.error(f"result_dtype is {recipe.result_dtype!r}; allowed: 'float32', 'float16', 'bfloat16'.")
    return recipe, arguments


def resolved(recipe: Recipe, arguments: Arguments) -> str:
    """The configuration as YAML: every field of the recipe, and the arguments that are not transformers' defaults."""
    defaults = {item.name: item.default for item in dataclasses.fields(TrainingArguments)}
    given = {
        name: value
        for name, value in arguments.to_dict().items()
        if name in defaults and value != defaults[name] and not name.startswith("_")
    }
    return yaml.safe_dump({**dataclasses.asdict(recipe), **given}, allow_unicode=True, sort_keys=False)


def _set_defaults(parser: _Parser, file: Path) -> None:
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        parser.error(f"cannot read the configuration {str(file)!r}: {' '.join(str(error).split())}.")
    if not isinstance(values, dict):
        parser.error(f"{str(file)!r} is not a configuration: it holds {type(values).__name__}, not keys with values.")
    known = {action.dest for action in parser._actions} - {"help", "config"}
    if unknown := [key for key in values if key not in known]:
        parser.error(f"{str(file)!r} has unknown keys {unknown}.")
    defaults = {action.dest: action.default for action in parser._actions}
    if empty := [key for key, value in values.items() if value is None and defaults[key] is not None]:
        parser.error(f"{str(file)!r} has keys without a value: {empty}. Give one, or leave the key out.")
    lists = {action.dest for action in parser._actions if action.nargs in ("+", "*")}
    values = {key: [value] if key in lists and isinstance(value, str) else value for key, value in values.items()}
    parser.set_defaults(**values)
    for action in parser._actions:
        if action.dest in values:
            action.required = False
