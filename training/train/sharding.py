"""A language model whose layers are divided between processes: FSDP2's `fully_shard`, on GPUs and, for a test, on CPUs.

Every process keeps a part of each layer's weights, gradients and optimizer states and gathers a layer while it is computed. What
stands outside of the layers (embeddings, vision encoder, connector) every process has whole; its gradients are averaged once a step,
so a process whose batch holds no picture takes part with zeros.
"""

import functools
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from .parts import Group, learning_parameters
from .trainer import PartsTrainer

OPTIMIZER, SCHEDULER = "optimizer.pt", "scheduler.pt"


def shard_layers(model: nn.Module, groups: list[Group], device: torch.device) -> None:
    """Divide the decoder's layers between all processes, in place; the groups get the parameters that learn from now on.

    Raises:
        ValueError: the language model keeps its layers elsewhere than in `layers`.
    """
    layers = getattr(model.get_decoder(), "layers", None)
    if layers is None:
        raise ValueError(f"shard divides `layers`, which {type(model.get_decoder()).__name__} does not have. Leave it out.")
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    for layer in layers:
        fully_shard(layer, mesh=mesh, reshard_after_forward=True)
    learning = learning_parameters(model)
    for group in groups:
        group.parameters = {name: learning[name] for name in group.parameters}
    # Backward goes through every layer on every process, also where nothing in front of the layers learns from this batch.
    model.enable_input_require_grads()


def gather_layers(model: nn.Module) -> None:
    """Make the layers whole again, in the main memory of the first process; the others keep nothing. All processes call this."""
    for module in model.modules():
        for name, parameter in list(module._parameters.items()):
            if isinstance(parameter, DTensor):
                whole = parameter.full_tensor()
                kept = whole.cpu() if dist.get_rank() == 0 else whole.new_empty(0)
                module._parameters[name] = nn.Parameter(kept, requires_grad=parameter.requires_grad)


def whole(value: Any) -> Any:
    """A value with its parts from all processes; all of them call this."""
    return value.full_tensor().cpu() if isinstance(value, DTensor) else value


class ShardedTrainer(PartsTrainer):
    """A `PartsTrainer` for a model that went through `shard_layers`. Checkpoints are those of one process."""

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        # Neither DDP nor accelerate's own sharding: autocast alone.
        self.accelerator.prepare_model = functools.partial(self.accelerator.prepare_model, evaluation_mode=True)
        self._gathered: dict[str, torch.Tensor] = {}

    def _nothing_to_learn(self, outputs: Any) -> torch.Tensor:
        return outputs["logits"].sum() * 0

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """As in transformers, and what every process has whole gets the mean of all gradients."""
        loss = super().training_step(*args, **kwargs)
        if self.accelerator.sync_gradients:
            for parameter in learning_parameters(self.model).values():
                if not isinstance(parameter, DTensor):
                    if parameter.grad is None:
                        parameter.grad = torch.zeros_like(parameter)
                    dist.all_reduce(parameter.grad)
                    parameter.grad /= dist.get_world_size()
        return loss

    @torch.no_grad()
    def _clip_grad_norm(self, model: nn.Module) -> torch.Tensor:
        norm = self._norm()
        factor = (self.args.max_grad_norm / (norm + 1e-6)).clamp(max=1.0)
        for parameter in learning_parameters(self.model).values():
            _local(parameter.grad).mul_(factor)
        return norm

    def _get_grad_norm(self, model: nn.Module, grad_norm: torch.Tensor | None = None) -> float:
        return float(self._norm() if grad_norm is None else grad_norm)

    @torch.no_grad()
    def _norm(self) -> torch.Tensor:
        squares = torch.zeros(2, device=self.args.device)  # of parts, of wholes
        for parameter in learning_parameters(self.model).values():
            squares[int(not isinstance(parameter, DTensor))] += _local(parameter.grad).float().square().sum()
        dist.all_reduce(squares[:1])
        return squares.sum().sqrt()

    def save_model(self, *args: Any, **kwargs: Any) -> None:
        self._gathered = {name: whole(value.detach()) for name, value in learning_parameters(self.model).items()}
        super().save_model(*args, **kwargs)

    def _learning(self) -> dict[str, torch.Tensor]:
        return self._gathered

    def _put(self, parameter: nn.Parameter, values: torch.Tensor) -> None:
        _local(parameter.data).copy_(_local(_divided(values, parameter)))

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        state = self.optimizer.state_dict()
        state["state"] = {
            index: {key: whole(value) for key, value in values.items()} for index, values in state["state"].items()
        }
        if self.args.should_save:
            torch.save(state, Path(output_dir, OPTIMIZER))
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir, SCHEDULER))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        state = torch.load(Path(checkpoint, OPTIMIZER), map_location="cpu", weights_only=True)
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        for index, values in state["state"].items():
            like = parameters[index]
            state["state"][index] = {
                key: _divided(value, like) if torch.is_tensor(value) and value.shape == like.shape else value
                for key, value in values.items()
            }
        self.optimizer.load_state_dict(state)
        self.lr_scheduler.load_state_dict(torch.load(Path(checkpoint, SCHEDULER), weights_only=True))


def _local(value: torch.Tensor) -> torch.Tensor:
    return value.to_local() if isinstance(value, DTensor) else value


def _divided(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    if not isinstance(like, DTensor):
        return values
    return distribute_tensor(values.to(like.device), like.device_mesh, like.placements)
