"""AdamW's groups."""

import math

import pytest
import torch
from torch import nn

from nbg_lightning.modules.optimizer import AdamWConfig, build_adamw


def test_only_matrices_decay():
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 4), nn.LayerNorm(4))
    optimizer = build_adamw(model.parameters(), AdamWConfig(lr=2e-3, weight_decay=0.3))
    with_decay, without = optimizer.param_groups
    assert with_decay["weight_decay"] == 0.3
    assert without["weight_decay"] == 0.0
    assert [p.ndim for p in with_decay["params"]] == [2, 2]
    assert all(p.ndim == 1 for p in without["params"])
    assert {group["lr"] for group in optimizer.param_groups} == {2e-3}


def test_frozen_parameters_are_left_out():
    model = nn.Linear(3, 3)
    model.bias.requires_grad_(False)
    (group,) = build_adamw(model.parameters(), AdamWConfig()).param_groups
    assert [p is model.weight for p in group["params"]] == [True]


def test_one_step_by_hand():
    """First step of AdamW: the weight decays by lr x decay, then moves by lr against the sign of its gradient."""
    weight = nn.Parameter(torch.tensor([[1.0, -2.0]]))
    optimizer = build_adamw([weight], AdamWConfig(lr=0.1, weight_decay=0.5))
    weight.grad = torch.tensor([[3.0, -4.0]])
    optimizer.step()
    torch.testing.assert_close(weight.detach(), torch.tensor([[1.0 * 0.95 - 0.1, -2.0 * 0.95 + 0.1]]))


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0])
@pytest.mark.parametrize("name", ["lr", "eps", "weight_decay", "betas"])
def test_numbers_that_cannot_be_are_refused(name, value):
    with pytest.raises(ValueError, match=f"^{name} is invalid: .*{value}.*; give"):
        AdamWConfig(**{name: (0.9, value) if name == "betas" else value})
