"""transformers' Trainer where parts learn at their own rates, a batch may leave parts unused, and every step can be gone back to."""

import shutil
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch.distributed.tensor import DTensor
from transformers import Trainer
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ..data import IGNORED, Row
from ..data.streaming import ShardStream, stateful_loader
from .parts import Group, learning_parameters

LEARNING = "learning.safetensors"
"""What learns, in a checkpoint."""
GIB = 2**30
STAGING = ".saving"
"""Where a checkpoint is written before it takes its name, and goes before it is removed."""


class TrainingError(ValueError):
    """The run cannot go on; the message says where it stands and what to do."""


class Placed:
    """A collator that also says, under `places`, where the rows of a batch came from."""

    def __init__(self, collator: Any):
        self.collator = collator

    def __call__(self, rows: list[Row]) -> dict[str, Any]:
        return {**self.collator(rows), "places": [str(row.get("place", "a row without a place")) for row in rows]}


class PartsTrainer(Trainer):
    """A batch without pictures, or one in which nothing is supervised, trains as well: with a loss that moves nothing.

    Args:
        groups: what learns, and at which rate.
        eval_collator: of held-out rows, where it is another.
        kwargs: `Trainer`'s.
    """

    def __init__(self, groups: list[Group], eval_collator: Any = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.groups, self.eval_collator = groups, eval_collator
        self.stream = self.position = None
        self.model_accepts_loss_kwargs = True  # makes the base class count the labels of a step; `compute_loss` divides by it
        self.seen = {"tokens": 0, "pictures": 0}
        self.seen_before = (time.perf_counter(), 0, 0)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """The mean over all supervised tokens of a step, its accumulated batches and all processes together."""
        places = inputs.pop("places", ())
        outputs = model(**inputs)
        loss, supervised = outputs["loss"], (inputs["labels"] != IGNORED).sum()
        if not supervised:
            loss = self._nothing_to_learn(outputs)  # a mean over no labels is no number
        elif not torch.isfinite(loss):
            raise TrainingError(self._not_finite(loss, inputs, places))
        if num_items_in_batch is not None and supervised:
            loss = loss * (supervised / num_items_in_batch)
            if self.args.average_tokens_across_devices:
                loss = loss * self.accelerator.num_processes
        # DeepSpeed adds up gradients by their place among the others: none may be missing where a batch has no picture.
        if torch.is_grad_enabled() and (self.is_deepspeed_enabled or not loss.requires_grad):
            loss = loss + sum(parameter.sum() * 0 for parameter in learning_parameters(model).values())
        if model.training:
            self._count(inputs)
        return (loss, outputs) if return_outputs else loss

    def _nothing_to_learn(self, outputs: Any) -> torch.Tensor:
        return torch.zeros_like(outputs["loss"])

    def _not_finite(self, loss: torch.Tensor, inputs: dict[str, Any], places: Any) -> str:
        step = self.state.global_step + 1
        where = f"The loss of step {step} is {loss.item()}, in a batch of {', '.join(places) or 'rows'}."
        if broken := [name for name, values in learning_parameters(self.model).items() if not torch.isfinite(values).all()]:
            return f"{where} {len(broken)} weights that learn are not finite any more, such as {broken[0]}: lower the learning rate."
        if broken := [
            name for name, value in inputs.items() if torch.is_tensor(value) and not torch.isfinite(value.float()).all()
        ]:
            return f"{where} Its {broken[0]} is not finite: check the rows with python -m training data validate."
        if step > 1:
            return f"{where} Rows and weights are finite: lower the learning rate, or train in bf16 instead of fp16."
        return f"{where} Rows and weights that learn are finite: check the base model, or train in bf16 instead of fp16."

    def _count(self, inputs: dict[str, Any]) -> None:
        mask = inputs.get("attention_mask")
        self.seen["tokens"] += inputs["labels"].numel() if mask is None else mask.sum()
        self.seen["pictures"] += next((len(value) for name, value in inputs.items() if name.startswith("pixel_values")), 0)

    def log(self, logs, *args, **kwargs) -> None:
        """As in transformers, with speed and memory beside the loss."""
        if "loss" in logs:
            now = (time.perf_counter(), int(self.seen["tokens"]), int(self.seen["pictures"]))
            seconds, tokens, pictures = (new - old for new, old in zip(now, self.seen_before, strict=True))
            self.seen_before = now
            logs |= {"tokens_per_second": round(tokens / seconds, 1), "pictures_per_second": round(pictures / seconds, 2)}
            logs["memory_gib"] = round(memory_in_use() / GIB, 2)
        super().log(logs, *args, **kwargs)

    def create_optimizer(self, model=None) -> torch.optim.Optimizer:
        """One of transformers' optimizers, each part at its own rate."""
        if self.optimizer is None:
            names = set(self.get_decay_parameter_names(self.model))
            decays = {id(value) for name, value in self.model.named_parameters() if name in names}
            settings = [
                {
                    "params": [
                        value
                        for value in group.parameters.values()
                        if (id(value) in decays, isinstance(value, DTensor)) == (decayed, divided)
                    ],
                    "lr": self.args.learning_rate if group.rate is None else group.rate,
                    "weight_decay": self.args.weight_decay * decayed,
                }
                for group in self.groups
                for decayed in (True, False)
                for divided in (False, True)  # an optimizer's step takes one kind at a time
            ]
            kind, options = self.get_optimizer_cls_and_kwargs(self.args, self.model)
            self.optimizer = kind([each for each in settings if each["params"]], **options)
        return self.optimizer

    def get_train_dataloader(self):
        """Shards divide themselves between the processes; all else goes through accelerate."""
        if not isinstance(self.train_dataset, ShardStream):
            return super().get_train_dataloader()
        self.train_dataset.rank, self.train_dataset.world_size = self.args.process_index, self.args.world_size
        self.stream = stateful_loader(
            self.train_dataset,
            batch_size=self.args.train_batch_size,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
        )
        if self.position is not None:
            self.stream.load_state_dict(torch.load(self.position, weights_only=True))
        return self.stream

    def get_eval_dataloader(self, eval_dataset=None):
        """Held-out rows are not packed."""
        if self.eval_collator is None:
            return super().get_eval_dataloader(eval_dataset)
        own, self.data_collator = self.data_collator, self.eval_collator
        try:
            return super().get_eval_dataloader(eval_dataset)
        finally:
            self.data_collator = own

    def train(self, resume_from_checkpoint=None, **kwargs):
        """As in transformers; a stream goes on at the position that stands in the checkpoint."""
        if resume_from_checkpoint and isinstance(self.train_dataset, ShardStream):
            self.position = Path(resume_from_checkpoint, self._position_file())
            if not self.position.is_file():
                raise ValueError(f"{str(self.position)!r} is not there: the checkpoint does not know where the stream was.")
            self.args.ignore_data_skip = True
        return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None) -> None:
        """What learns, by its names in memory: `save_pretrained` writes a composed model under its published names."""
        path = Path(resume_from_checkpoint, LEARNING)
        if not path.is_file():
            raise ValueError(f"{str(path)!r} is not there: the checkpoint was not written by python -m training train.")
        stored, learning = load_file(path), learning_parameters(self.accelerator.unwrap_model(model or self.model))
        if stored.keys() != learning.keys():
            differing = sorted(stored.keys() ^ learning.keys())
            raise ValueError(
                f"{str(path)!r} holds other parts than the ones that learn now: {differing[:3]}. Resume with the same recipe."
            )
        for name, values in stored.items():
            self._put(learning[name], values)

    def _put(self, parameter: torch.nn.Parameter, values: torch.Tensor) -> None:
        parameter.data.copy_(values)

    def _learning(self) -> dict[str, torch.Tensor]:
        return learning_parameters(self.accelerator.unwrap_model(self.model))

    def _save(self, output_dir=None, state_dict=None) -> None:
        """What learns: all else is in the model that the run began with."""
        Path(output_dir).mkdir(parents=True, exist_ok=True)
        learning = {name: values.detach().contiguous() for name, values in self._learning().items()}
        save_file(learning, Path(output_dir, LEARNING))

    def _save_checkpoint(self, *args, **kwargs) -> None:
        """A checkpoint under a temporary name, which takes its own when all of it is on the disk."""
        run = Path(self.args.output_dir)
        name = f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        if self.is_world_process_zero():
            shutil.rmtree(run / STAGING, ignore_errors=True)  # of a run that was killed
        self.accelerator.wait_for_everyone()
        self._staging = run / STAGING
        try:
            super()._save_checkpoint(*args, **kwargs)
        finally:
            self._staging = None
        if self.stream is not None:
            torch.save(self.stream.state_dict(), run / STAGING / name / self._position_file())
        self.accelerator.wait_for_everyone()
        if self.is_world_process_zero():
            shutil.rmtree(run / name, ignore_errors=True)
            (run / STAGING / name).rename(run / name)
            self._forget_old_checkpoints(run)
            shutil.rmtree(run / STAGING)
        self.accelerator.wait_for_everyone()

    _staging: Path | None = None

    def _get_output_dir(self, trial) -> str:
        return str(self._staging or super()._get_output_dir(trial))

    def _forget_old_checkpoints(self, run: Path) -> None:
        if limit := self.args.save_total_limit:
            for old in checkpoints(run)[:-limit]:  # under another name first: a removal may be killed half way
                shutil.rmtree(old.rename(run / STAGING / old.name))

    def _position_file(self) -> str:
        return f"stream-{self.args.process_index}-of-{self.args.world_size}.pt"


def memory_in_use() -> int:
    """Bytes that this process holds, on the GPU where there is one."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    import psutil

    return psutil.Process().memory_info().rss


def checkpoints(run: Path) -> list[Path]:
    """The checkpoints of a run, oldest first. All of them are whole: one takes its name when it is."""
    found = [path for path in run.glob(f"{PREFIX_CHECKPOINT_DIR}-*") if path.name.rpartition("-")[2].isdigit()]
    return sorted(found, key=lambda path: int(path.name.rpartition("-")[2]))
