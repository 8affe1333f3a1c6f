"""`python -m training train`: one stage of training, from a model folder to a model folder or an adapter."""

import copy
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset
from transformers import PreTrainedModel

from pipelines.hub import resolve_folder
from pipelines.registry import load_model, pipeline_of, save_model

from ..data import open_source
from ..data.collator import BatchError, ConversationCollator
from ..data.packing import OnePack, PackedRows, PackingCollator
from ..data.processor import limit_length
from ..data.source import split_by_picture
from ..merge.convert_adapter import convert_adapter
from .adapter import RELEASE, check_adapter, check_release, merge_lora, save_adapter
from .callbacks import Answers, Interrupt, Log, Pace, rows_with_pictures
from .card import write_card
from .config import Arguments, Recipe, differences, parse, resolved
from .optimizer import MuonWithAdamW
from .parts import Group, add_lora, choose_parameters, learning_parameters, memory_bytes
from .sharding import ShardedTrainer, gather_layers, shard_layers
from .trainer import GIB, STAGING, PartsTrainer, Placed, TrainingError, checkpoints
from .vision import AttributeClassifier, AttributeCollator

CONFIG = "config.yaml"


class Interrupted(Exception):
    """The run was stopped by its user, and saved."""


def main(argv: list[str]) -> int:
    recipe, arguments = parse(argv)
    try:
        run = Run(recipe, arguments)
        if run.is_main:
            print("\n".join(run.plan()))
        result = run.train()
        if run.is_main:
            print(result)
    except Interrupted as stopped:
        print(stopped, file=sys.stderr)
        return 130
    except KeyboardInterrupt:
        print("Stopped at once. The same command goes on from the last checkpoint.", file=sys.stderr)
        return 130
    except (OSError, ValueError, ImportError) as error:
        text = str(error).splitlines()[-1] if isinstance(error, BatchError) else " ".join(str(error).split())
        print(f"training: {text}", file=sys.stderr)
        return 2
    return 0


class Run:
    """A training run: opened and checked on creation, then trained and saved by `train`.

    Raises:
        FileNotFoundError, ValueError: the model or the data cannot be opened, or do not fit the recipe.
    """

    def __init__(self, recipe: Recipe, arguments: Arguments):
        self.recipe, self.arguments = recipe, arguments
        self.folder = Path(arguments.output_dir)
        self.result = self.folder / recipe.result
        self.is_main = arguments.process_index == 0
        self.checkpoint = self._checkpoint()
        self.rows, self.held_out = self._open_rows()
        torch.manual_seed(arguments.seed)
        self.model, self.processor = self._load()
        self.lora = add_lora(self.model, recipe)
        self.groups = choose_parameters(self.model, recipe.train_parts)
        if recipe.result == "adapter":
            check_adapter(self.model, self.groups)
        if recipe.release_format:
            check_release(self.model, recipe.release_format, self.groups, resolve_folder(recipe.model))
        if recipe.compile_layers:
            for layer in self.model.get_decoder().layers:
                layer.compile(dynamic=True)
        self.memory_gib = memory_bytes(self.model) / GIB
        if recipe.shard:
            shard_layers(self.model, self.groups, arguments.device)
        self.asked, self.eval_collator = self._asked(), None
        self.learner, self.collator = self._objective()

    def _asked(self) -> Any:
        """The processor with the prompt that is learnt."""
        if self.recipe.prompt == "chat":
            return self.processor
        asked = copy.copy(self.processor)
        asked.chat_template = plain_template(pipeline_of(self.model, self.processor).image_mark)
        return asked

    def _checkpoint(self) -> str | None:
        """The checkpoint to go on from: the newest of this very run.

        Raises:
            ValueError: the folder holds another run, or a result.
        """
        if self.arguments.resume_from_checkpoint:
            return self.arguments.resume_from_checkpoint
        name, config, overwrite = str(self.folder), self.folder / CONFIG, self.recipe.overwrite
        if self.result.exists() and not overwrite:
            raise ValueError(f"{str(self.result)!r} exists: this run is over. Give another --output_dir, or --overwrite true.")
        others = differences(self.recipe, self.arguments, config) if config.is_file() else []
        if others and not overwrite:
            raise ValueError(
                f"{name!r} holds another run, which differs in {', '.join(others[:5])}. Give another --output_dir, or --overwrite true."
            )
        if others or self.result.exists():
            return None
        found = checkpoints(self.folder)
        return str(found[-1]) if found else None

    def _open_rows(self) -> tuple[Dataset, Dataset | None]:
        recipe, arguments = self.recipe, self.arguments
        rows = open_source(recipe.source, arguments.seed, arguments.train_batch_size, recipe.sort_window)
        if not hasattr(rows, "__len__") and arguments.max_steps < 1:
            raise ValueError(f"The source {recipe.source!r} may be endless: say when to stop with --max_steps.")
        held_out = getattr(rows, "held_out", None)
        if recipe.held_out:
            rows, held_out = split_by_picture(rows, recipe.held_out)
        if arguments.eval_strategy != "no" and held_out is None:
            raise ValueError(
                "eval_strategy is set, but there are no held-out rows to judge by. Give --held_out 0.05, or a mixture with held_out as "
                "source, or leave eval_strategy out."
            )
        return rows, held_out

    def _load(self) -> tuple[PreTrainedModel, Any]:
        recipe = self.recipe
        options = {}
        if recipe.load_in_4bit:
            from transformers import BitsAndBytesConfig

            compute = torch.bfloat16 if self.arguments.bf16 else torch.float16
            options["quantization_config"] = BitsAndBytesConfig(
                load_in_4bit=True, bnb_4bit_compute_dtype=compute, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True
            )
            if torch.cuda.is_available():
                options["device_map"] = {"": self.arguments.local_process_index}
        model, processor = load_model(recipe.model, dtype=getattr(torch, recipe.dtype), **options)
        if processor is None:
            raise ValueError(f"{recipe.model!r} holds no processor. Give a model folder with tokenizer and image processor.")
        limit_length(processor, getattr(model.config.get_text_config(), "max_position_embeddings", None))
        if recipe.attn_implementation:
            for part in model.modules():
                if isinstance(part, PreTrainedModel) and not any(
                    isinstance(inner, PreTrainedModel) for inner in part.modules() if inner is not part
                ):
                    part.set_attn_implementation(recipe.attn_implementation)
        return model, processor

    def plan(self) -> list[str]:
        """What is about to happen, in lines."""
        arguments, total = self.arguments, sum(parameter.numel() for parameter in self.model.parameters())
        lines = list(getattr(self.rows, "report", ()))
        lines += [f"{self.recipe.model}: {_millions(total)} parameters, of which learn:"]
        for group in self.groups:
            rate = arguments.learning_rate if group.rate is None else group.rate
            lines.append(f"  {group.name}: {_millions(group.size)} at learning rate {rate:g}")
        batch = arguments.train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size
        size = f"{len(self.rows)} rows" if hasattr(self.rows, "__len__") else "a stream of rows"
        unit = "sequences of rows" if self.recipe.packing else "rows"
        lines.append(f"{size}, {len(self.held_out or ())} held out; {self.num_steps} steps of {batch} {unit}")
        lines.append(f"weights, gradients and optimizer take about {self.memory_gib:.2f} GiB; rows come on top")
        if self.recipe.shard:
            lines.append(
                f"the layers are divided between {arguments.world_size} processes; answers are not shown while it learns"
            )
        if self.checkpoint:
            lines.append(f"goes on from {self.checkpoint}")
        return lines

    @property
    def num_steps(self) -> int:
        """Optimizer steps of the whole run."""
        arguments = self.arguments
        if arguments.max_steps > 0:
            return arguments.max_steps
        per_pass = -(-len(self.rows) // (arguments.train_batch_size * arguments.world_size))
        return int(-(-per_pass // arguments.gradient_accumulation_steps) * arguments.num_train_epochs)

    def train(self) -> Path:
        """Train, save, and return the folder of the result.

        Raises:
            Interrupted: the user has stopped it.
            TrainingError: the loss is not finite, or no row is left to learn from.
        """
        if self.is_main:
            self._claim_folder()
        trainer = self.make_trainer()
        interrupt, log = Interrupt(), Log(self.folder)
        for callback in (log, interrupt, Pace()):
            trainer.add_callback(callback)
        is_asked = self.recipe.num_answers and not self.recipe.shard and self.recipe.objective == "conversation"
        if self.arguments.eval_strategy != "no" and is_asked:
            shown = rows_with_pictures(self.held_out, self.recipe.num_answers)
            trainer.add_callback(Answers(self.folder, self.model, self.asked, shown))
        try:
            trainer.train(resume_from_checkpoint=self.checkpoint)
        finally:
            interrupt.restore()
        if interrupt.is_asked and trainer.state.global_step < trainer.state.max_steps:
            raise Interrupted(
                f"Stopped after step {trainer.state.global_step} of {trainer.state.max_steps}, and saved. The same command goes on "
                "from there."
            )
        if self.recipe.shard:
            gather_layers(self.model)
        if trainer.is_world_process_zero():
            self._save(log)
        return self.result

    def make_trainer(self) -> PartsTrainer:
        """What goes through the steps."""
        return (ShardedTrainer if self.recipe.shard else PartsTrainer)(
            groups=self.groups,
            model=self.learner,
            args=self.arguments,
            train_dataset=self.rows,
            eval_dataset=self.held_out if self.arguments.eval_strategy != "no" else None,
            data_collator=self.collator,
            eval_collator=self.eval_collator,
            optimizers=(self._optimizer(), None),
        )

    def _claim_folder(self) -> None:
        """Write the configuration; what another run has left, or one that is to be made anew, goes."""
        self.folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self.folder / STAGING, ignore_errors=True)
        if self.checkpoint is None:
            for old in (*checkpoints(self.folder), self.result):
                shutil.rmtree(old, ignore_errors=True)
            for old in (*self.folder.glob("answers*"), self.folder / "log.jsonl"):
                old.unlink(missing_ok=True)
        partial = self.folder / f".{CONFIG}"
        partial.write_text(resolved(self.recipe, self.arguments), encoding="utf-8")
        partial.rename(self.folder / CONFIG)

    def _save(self, log: Log) -> None:
        self.model.eval()
        base = resolve_folder(self.recipe.model)
        partial = self.folder / f".{self.recipe.result}"
        shutil.rmtree(partial, ignore_errors=True)
        if self.recipe.result == "adapter":
            save_adapter(self.model, self.processor, self.recipe, self.lora, self.groups, partial)
        else:
            merge_lora(self.lora)
            save_model(self.model.to(getattr(torch, self.recipe.result_dtype)), self.processor, partial)
        if (base / "tokenizer.model").is_file() and not (partial / "tokenizer.model").exists():
            shutil.copyfile(base / "tokenizer.model", partial / "tokenizer.model")
        write_card(partial, self, log.points)
        shutil.rmtree(self.result, ignore_errors=True)
        partial.rename(self.result)
        if self.recipe.release_format:
            convert_adapter(self.result, self.folder / RELEASE, RELEASE, None, force=True)

    def _optimizer(self) -> torch.optim.Optimizer | None:
        """None: what the arguments say."""
        if self.recipe.muon_learning_rate is None:
            return None
        if rated := [group.name for group in self.groups if group.rate is not None]:
            raise ValueError(
                f"muon_learning_rate is given, so {rated} cannot have rates of their own. Leave one of the two out."
            )
        arguments = self.arguments
        return MuonWithAdamW(
            learning_parameters(self.learner).items(),
            self.recipe.muon_learning_rate,
            arguments.learning_rate,
            (arguments.adam_beta1, arguments.adam_beta2),
            arguments.weight_decay,
        )

    def _objective(self) -> tuple[nn.Module, Any]:
        recipe = self.recipe
        if recipe.objective == "conversation":
            pipeline = pipeline_of(self.model, self.processor)
            collator = ConversationCollator(
                self.asked, recipe.max_length, stop_strings=pipeline.stop_strings, rows_together=pipeline.rows_together
            )
            if not recipe.packing:
                return self.model, Placed(collator)
            if pipeline.embedding_width is None:
                raise ValueError("packing is for models whose pictures are embeddings in the prompt. Leave it out.")
            packing = PackingCollator(collator, recipe.max_length, recipe.packing_max_pictures)
            self.rows, self.eval_collator = PackedRows(self.rows, packing, self.arguments.seed), Placed(collator)
            return self.model, OnePack(packing)
        targets = next(iter(self.rows))["targets"]
        resampler = getattr(self.model, "visual_resampler", None)
        use_resampler = resampler is not None and any(parameter.requires_grad for parameter in resampler.parameters())
        sizes = (len(targets), len(targets[0]), recipe.num_attribute_values)
        classifier = AttributeClassifier(self.model, *sizes, use_resampler)
        before = {id(parameter) for group in self.groups for parameter in group.parameters.values()}
        own = {name: each for name, each in learning_parameters(classifier).items() if id(each) not in before}
        self.groups.append(Group("head", None, own))
        return classifier, AttributeCollator(self.processor)


def plain_template(image_mark: str) -> str:
    """A chat template that writes pictures and answers, and nothing else: what the originals learn captions with."""
    return (
        "{{- bos_token | default('', true) -}}"
        "{%- for message in messages -%}"
        "{%- if message.content is string -%}{%- if message.role == 'assistant' -%}{{- message.content -}}{%- endif -%}"
        "{%- else -%}{%- for item in message.content -%}"
        f"{{%- if item.type == 'image' -%}}{{{{- {json.dumps(image_mark)} -}}}}"
        "{%- elif message.role == 'assistant' -%}{{- item.text -}}{%- endif -%}"
        "{%- endfor -%}{%- endif -%}"
        "{%- endfor -%}"
    )


def _millions(count: int) -> str:
    return f"{count / 1e6:.1f} M" if count >= 1e5 else str(count)


__all__ = ["Run", "TrainingError", "main"]
