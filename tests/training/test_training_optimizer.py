"""Muon and AdamW as one optimizer: each takes what it is made for, and one schedule and one checkpoint serve both."""

import copy

import pytest
import torch
from torch import nn

from training.train.optimizer import MuonWithAdamW


class Tiny(nn.Module):
    """An embedding, a numbered layer with a norm, and a head."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(8, 4)
        self.layers = nn.ModuleList([nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))])
        self.head = nn.Linear(4, 8)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        hidden = self.embed(ids)
        for layer in self.layers:
            hidden = hidden + layer(hidden)
        return self.head(hidden)


def make(model: nn.Module, **rates: float) -> MuonWithAdamW:
    rates = {"muon_learning_rate": 0.02, "learning_rate": 1e-2, **rates}
    return MuonWithAdamW(model.named_parameters(), **rates, betas=(0.9, 0.98), weight_decay=0.0)


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> float:
    ids = torch.arange(8)
    loss = nn.functional.cross_entropy(model(ids), ids.roll(1))
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return float(loss.detach())


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Tiny()


def test_only_matrices_of_the_layers_learn_with_muon(model):
    before = {name: value.clone() for name, value in model.named_parameters()}
    step(model, make(model, learning_rate=0.0))
    changed = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert changed == {"layers.0.0.weight"}


def test_it_learns_and_a_schedule_governs_both_rates(model):
    optimizer = make(model)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0 if step < 100 else 0.0)
    losses = []
    for _ in range(100):
        losses.append(step(model, optimizer))
        schedule.step()
    assert losses[-1] < losses[0] / 4
    before = {name: value.clone() for name, value in model.named_parameters()}
    step(model, optimizer)
    assert all(torch.equal(value, before[name]) for name, value in model.named_parameters())


def test_it_goes_on_from_its_saved_state(model):
    optimizer = make(model)
    step(model, optimizer)
    twin = Tiny()
    twin.load_state_dict(model.state_dict())
    resumed = make(twin)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for _ in range(3):
        step(model, optimizer), step(twin, resumed)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))
