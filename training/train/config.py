"""What a training run is told: a preset, then a YAML file give the defaults, flags go on top, an unknown key is refused.

`Recipe` is ours; everything else (`max_steps`, `learning_rate`, ...) is transformers' `TrainingArguments`.
"""

import argparse
import dataclasses
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import yaml
from transformers import HfArgumentParser, TrainingArguments
from transformers.integrations import is_tensorboard_available

from . import launch

OBJECTIVES = ("conversation", "attributes")
PROMPTS = ("chat", "plain")
RESULTS = ("model", "adapter")
DTYPES = ("float32", "float16", "bfloat16")
PRESETS = Path(__file__).resolve().parent.parent / "presets"
NOT_OF_THE_RUN = ("overwrite", "resume_from_checkpoint", "disable_tqdm")
"""Fields that say nothing about what is learnt."""


def _option(default, help: str):
    return field(default=default, metadata={"help": help})


@dataclass
class Recipe:
    """Which model learns what, from which data, and what becomes of it."""

    model: str = field(metadata={"help": "model folder or hub name to start from; a release (adapter) has to be merged first"})
    source: str = field(
        metadata={
            "help": "rows to learn from: a file of rows with image paths relative to it, a mixture (.yaml), shards "
            "('shards/*.tar'), or module:function called with the seed (a generator, which may be endless)"
        }
    )
    held_out: float = _option(
        0.0, "share of the pictures of a file of rows that is kept to judge by (a mixture says its own); for eval_strategy"
    )
    num_answers: int = _option(4, "held-out pictures that are asked about at each evaluation, in answers.jsonl and answers.png")
    objective: str = _option(
        "conversation",
        "'conversation': the answers, given the conversation; 'attributes': the vision encoder alone tells the values of "
        "`targets` in rows of {'images', 'targets'}",
    )
    prompt: str = _option(
        "chat", "'chat': the model's chat template; 'plain': pictures and answers with nothing around them, for captions"
    )
    num_attribute_values: int = _option(16, "objective 'attributes': each target is in 0..num_attribute_values - 1")
    train_parts: list[str] = field(
        default_factory=lambda: ["connector"],
        metadata={
            "help": "what is trained in full: vision, connector, language, or modules by the ends of their names; each may have a "
            "learning rate of its own (connector=1e-3; in YAML {connector: 1e-3, language: 2e-5})"
        },
    )
    lora_target_modules: list[str] = field(
        default_factory=list,
        metadata={
            "help": "what gets LoRA layers: part=pattern (language=q_proj|v_proj) with a regular expression over the ends of module "
            "names, or part=all-linear; without a part the expression is over whole names"
        },
    )
    lora_r: int = _option(8, "rank of the LoRA layers")
    lora_alpha: int = _option(16, "LoRA's scale is lora_alpha / lora_r")
    lora_dropout: float = _option(0.0, "dropout in front of the LoRA layers, 0..1")
    dtype: str = _option("float32", "of the weights that stay as they are; what learns is float32. Others need bf16 or fp16")
    load_in_4bit: bool = _option(False, "quantise the language model to 4 bits while training (QLoRA); needs dtype bfloat16")
    max_length: int | None = _option(
        None, "tokens of a row at most; a picture is never cut (default: the tokenizer's or the context's)"
    )
    packing: bool = _option(
        False, "several rows in one sequence of max_length tokens, kept apart; a step is then of sequences, and needs max_steps"
    )
    packing_max_pictures: int | None = _option(None, "pictures of a packed sequence at most (default: any number)")
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
    shard: bool = _option(
        False,
        "divide the language model's layers between all processes of torchrun (FSDP2's fully_shard): weights, gradients, optimizer",
    )
    result: str = _option(
        "model", "'model': a whole model folder, LoRA merged; 'adapter': LoRA and the parts trained in full, in PEFT's format"
    )
    release_format: str | None = _option(
        None, "a family's name, such as visualcla: besides adapter/, release/ holds what the family's original code opens"
    )
    result_dtype: str = _option("float32", "dtype of the saved weights: float32, float16 or bfloat16")
    sort_window: int = _option(16, "an endless source is sorted by length over so many batches, to pad less; 1 keeps its order")
    overwrite: bool = _option(False, "replace what an earlier run left in output_dir")


@dataclass
class Arguments(TrainingArguments):
    """transformers' own arguments, with the defaults of this project."""

    output_dir: str = _option("outputs/train", "where model/ (or adapter/), config.yaml, loss.png, log.jsonl, checkpoints go")
    save_strategy: str = _option("steps", "checkpoints while training: 'no', 'steps', 'epoch'")
    save_total_limit: int | None = _option(2, "checkpoints that are kept")
    logging_steps: float = _option(20, "steps between two points of the loss curve")
    accelerator_config: dict | str | None = field(
        # Dispatched batches are cut to as many pictures as there are rows.
        default_factory=lambda: {"dispatch_batches": False},
        metadata={"help": "settings of accelerate, as JSON or a file; dispatch_batches must stay false"},
    )
    report_to: list[str] = field(
        default_factory=lambda: ["tensorboard"] if is_tensorboard_available() else ["none"],
        metadata={"help": "trackers: tensorboard (the default where it is installed), wandb, none"},
    )
    remove_unused_columns: bool = _option(False, "must stay false: the collator needs every column")
    prediction_loss_only: bool = _option(True, "an evaluation keeps the loss and no logits")
    logging_nan_inf_filter: bool = _option(False, "must stay false: a loss that is not finite ends the run")
    lr_scheduler_type: str = _option("cosine", "learning rate schedule")
    per_device_train_batch_size: int = _option(8, "rows per step and device")
    adam_beta2: float = _option(0.98, "second moment of AdamW")


class _Parser(HfArgumentParser):
    def error(self, message: str) -> NoReturn:
        print(f"training: {message} Each field is explained by: python -m training train --help", file=sys.stderr)
        raise SystemExit(2)


def presets() -> dict[str, Path]:
    """Name of each preset to its file."""
    return {path.stem: path for path in sorted(PRESETS.glob("*.yaml"))}


def parse(argv: list[str]) -> tuple[Recipe, Arguments]:
    """Read `--preset NAME`, `--config FILE` and the flags.

    Raises:
        SystemExit: with status 2 and one line on stderr where something is unknown, missing or not allowed.
    """
    parser = _Parser([Recipe, Arguments], prog="python -m training train", allow_abbrev=False)
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for each in (parser, first):
        each.add_argument("--preset", metavar="NAME", help=f"a recipe that comes with the project: {', '.join(presets())}")
        each.add_argument("--config", type=Path, help="YAML file with values for the fields below, on top of the preset's")
    given = first.parse_known_args(argv)[0]
    if given.preset is not None:
        if given.preset not in presets():
            parser.error(f"Unknown preset {given.preset!r}. Available: {', '.join(presets())}.")
        _set_defaults(parser, presets()[given.preset])
    if given.config is not None:
        _set_defaults(parser, given.config)
    try:
        recipe, arguments, _, unknown = parser.parse_args_into_dataclasses(
            argv, return_remaining_strings=True, look_for_args_file=False
        )
    except (ValueError, TypeError, ImportError) as error:  # TrainingArguments checks itself
        parser.error(str(error).splitlines()[0])
    if unknown:
        parser.error(f"Unknown flags {unknown}.")
    if reason := _contradiction(recipe, arguments) or launch.contradiction(arguments):
        parser.error(reason)
    return recipe, arguments


def _contradiction(recipe: Recipe, arguments: Arguments) -> str | None:
    """What is not allowed, in a sentence."""
    allowed = (("objective", OBJECTIVES), ("prompt", PROMPTS), ("result", RESULTS), ("result_dtype", DTYPES), ("dtype", DTYPES))
    for name, values in allowed:
        if getattr(recipe, name) not in values:
            return f"{name} is {getattr(recipe, name)!r}; allowed: {', '.join(map(repr, values))}."
    for part in recipe.train_parts:
        _, has_rate, rate = part.partition("=")
        if has_rate and not _is_rate(rate):
            return f"train_parts has {part!r}; a learning rate is a number above 0, as in connector=1e-3."
    if not 0 <= recipe.held_out < 1:
        return f"held_out is {recipe.held_out}; it is a share from 0 to below 1."
    if recipe.shard and arguments.world_size < 2:
        return "shard divides the model between processes, but there is one: torchrun --nproc_per_node N -m training train ..."
    if recipe.shard and (
        recipe.load_in_4bit or recipe.muon_learning_rate or arguments.fp16 or recipe.objective != "conversation"
    ):
        return "shard goes with AdamW (no muon_learning_rate), bf16 or float32, no 4 bits, and conversations."
    if arguments.deepspeed_plugin is not None and (recipe.shard or recipe.muon_learning_rate is not None):
        return "deepspeed divides the optimizer: it goes without shard and muon_learning_rate."
    if arguments.n_gpu > 1:
        return (
            f"{arguments.n_gpu} GPUs are there: torchrun --nproc_per_node {arguments.n_gpu} -m training train ... uses all of them, "
            "CUDA_VISIBLE_DEVICES=0 in front of the command one."
        )
    if arguments.logging_nan_inf_filter or arguments.remove_unused_columns or not arguments.prediction_loss_only:
        return "logging_nan_inf_filter and remove_unused_columns must stay false, prediction_loss_only true."
    if recipe.result == "adapter" and not recipe.lora_target_modules:
        return "result is 'adapter', but there is no lora_target_modules."
    if recipe.release_format and recipe.result != "adapter":
        return "release_format writes an adapter: give --result adapter."
    if recipe.load_in_4bit and recipe.result != "adapter":
        return (
            "load_in_4bit trains an adapter over the quantised model: give --result adapter, and merge it into the whole one."
        )
    if (recipe.dtype != "float32" or recipe.load_in_4bit) and not (arguments.bf16 or arguments.fp16):
        return f"dtype is {recipe.dtype!r} with load_in_4bit {recipe.load_in_4bit}: what learns is float32, so give --bf16 or --fp16."
    if recipe.packing and (recipe.max_length is None or arguments.max_steps < 1 or recipe.objective != "conversation"):
        return "packing needs --max_length, the tokens of a sequence, and --max_steps; it is for conversations."
    if recipe.packing_max_pictures is not None and (not recipe.packing or recipe.packing_max_pictures < 1):
        return f"packing_max_pictures is {recipe.packing_max_pictures}: at least 1, and for packing alone."
    if recipe.packing and arguments.per_device_train_batch_size != 1:
        return "packing makes batches of one sequence: give --per_device_train_batch_size 1, and gradient_accumulation_steps."
    if arguments.load_best_model_at_end:
        return (
            "load_best_model_at_end is not supported: the last weights are the result. Start again from a checkpoint instead."
        )
    return None


def resolved(recipe: Recipe, arguments: Arguments) -> str:
    """The whole configuration as YAML, also what equals a default: it gives the same run by itself."""
    names = {item.name for item in dataclasses.fields(arguments) if item.init}
    values = dataclasses.asdict(recipe) | {name: value for name, value in arguments.to_dict().items() if name in names}
    values["accelerator_config"] = arguments.accelerator_config
    kept = {
        name: value
        for name, value in values.items()
        if value is not None and name not in NOT_OF_THE_RUN and not name.endswith("_token") and name[0] != "_"
    }
    return yaml.safe_dump(_plain(kept), allow_unicode=True, sort_keys=False)


def differences(recipe: Recipe, arguments: Arguments, file: Path) -> list[str]:
    """Fields in which a run differs from the one whose configuration lies in a file."""
    stored, own = yaml.safe_load(file.read_text(encoding="utf-8")), yaml.safe_load(resolved(recipe, arguments))
    return sorted(key for key in stored.keys() | own.keys() if stored.get(key) != own.get(key))


def _is_rate(text: str) -> bool:
    try:
        return float(text) > 0
    except ValueError:
        return False


def _plain(value: Any) -> Any:
    value = value.to_dict() if hasattr(value, "to_dict") else value
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, bool | int | float) else str(value)


def _set_defaults(parser: _Parser, file: Path) -> None:
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        parser.error(f"cannot read the configuration {str(file)!r}: {' '.join(str(error).split())}.")
    if not isinstance(values, dict):
        parser.error(f"{str(file)!r} is not a configuration: it holds {type(values).__name__}, not keys with values.")
    known = {action.dest for action in parser._actions} - {"help", "config", "preset"}
    if unknown := [key for key in values if key not in known]:
        parser.error(f"{str(file)!r} has unknown keys {unknown}.")
    defaults = {action.dest: action.default for action in parser._actions}
    if empty := [key for key, value in values.items() if value is None and defaults[key] is not None]:
        parser.error(f"{str(file)!r} has keys without a value: {empty}. Give one, or leave the key out.")
    lists = {action.dest for action in parser._actions if action.nargs in ("+", "*")}
    values = {key: _as_list(value) if key in lists else value for key, value in values.items()}
    parser.set_defaults(**values)
    for action in parser._actions:
        if action.dest in values:
            action.required = False


def _as_list(value: Any) -> list[str]:
    """A list as people write it: `language`, `[connector, language]`, `{connector: 1e-3, language: 2e-5}`."""
    if isinstance(value, dict):
        return [str(key) if item is None else f"{key}={item}" for key, item in value.items()]
    return value if isinstance(value, list) else [value]
