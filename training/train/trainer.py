"""transformers' Trainer where a batch may leave parts of a model unused, and where a stream of shards knows its position."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import Trainer
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ..data import IGNORED
from ..data.streaming import ShardStream, stateful_loader

LEARNING = "learning.safetensors"
"""What learns, in a checkpoint."""


class PartsTrainer(Trainer):
    """A batch without pictures, or one in which nothing is supervised, trains as well: with a loss that moves nothing."""

    stream = None
    position = None

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, num_items_in_batch=num_items_in_batch)
        if not (inputs["labels"] != IGNORED).any():
            loss = torch.zeros_like(loss)  # a mean over no labels is no number
        if not loss.requires_grad:
            loss = loss + sum(parameter.sum() * 0 for parameter in model.parameters() if parameter.requires_grad)
        return (loss, outputs) if return_outputs else loss

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

    def train(self, resume_from_checkpoint=None, **kwargs):
        """As in transformers; a stream goes on at the position that stands in the checkpoint."""
        if resume_from_checkpoint and isinstance(self.train_dataset, ShardStream):
            self.position = Path(resume_from_checkpoint, self._position_file())
            if not self.position.is_file():
                raise ValueError(f"{str(self.position)!r} is not there: the checkpoint does not know where the stream was.")
            self.args.ignore_data_skip = True
        return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)

    def _learning(self, model) -> dict[str, torch.Tensor]:
        return {name: parameter.data for name, parameter in model.named_parameters() if parameter.requires_grad}

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None) -> None:
        """What learns, by its names in memory: `save_pretrained` writes a composed model under its published names."""
        path = Path(resume_from_checkpoint, LEARNING)
        if not path.is_file():
            raise ValueError(f"{str(path)!r} is not there: the checkpoint was not written by python -m training train.")
        stored, learning = load_file(path), self._learning(model or self.model)
        if stored.keys() != learning.keys():
            differing = sorted(stored.keys() ^ learning.keys())
            raise ValueError(
                f"{str(path)!r} holds other parts than the ones that learn now: {differing[:3]}. Resume with the same recipe."
            )
        for name, values in stored.items():
            learning[name].copy_(values)

    def _save_checkpoint(self, *args, **kwargs):
        super()._save_checkpoint(*args, **kwargs)
        folder = Path(self._get_output_dir(None), f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}")
        if self.is_world_process_zero():
            learning = self._learning(self.accelerator.unwrap_model(self.model))
            save_file({name: values.contiguous() for name, values in learning.items()}, folder / LEARNING)
        if self.stream is not None:
            torch.save(self.stream.state_dict(), folder / self._position_file())

    def _position_file(self) -> str:
        return f"stream-{self.args.process_index}-of-{self.args.world_size}.pt"
