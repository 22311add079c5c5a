"""Our policy losses reproduce the values and gradients of TRL 1.16 in grpo_losses.json."""

import json
from pathlib import Path

import pytest
import torch

from nbg_lightning.losses.policy_gradient import (
    denominator,
    engine_weights,
    group_advantages,
    kl_penalty,
    objective,
    policy_loss,
    token_weights,
)

GOLDEN = json.loads(Path(__file__).with_name("grpo_losses.json").read_text())


def flat(name, mask):
    """One of the tensors, its padding dropped."""
    return torch.tensor(GOLDEN["tensors"][name], dtype=torch.float64)[mask]


@pytest.mark.parametrize("case", list(GOLDEN["results"]))
def test_equals_trl(case):
    settings, expected = GOLDEN["cases"][case], GOLDEN["results"][case]
    name = case.split()[0]
    lengths = torch.tensor(GOLDEN["lengths"])
    mask = torch.arange(int(lengths.max()))[None] < lengths[:, None]
    sequence = torch.arange(len(lengths)).repeat_interleave(lengths)
    high = settings["epsilon_high"] - (1 if name == "cispo" else 0)
    what = objective(name, settings["epsilon_low"], high)
    now, old = flat("now", mask).requires_grad_(), flat("old", mask)
    advantages = torch.tensor(GOLDEN["tensors"]["advantages"], dtype=torch.float64)[sequence]
    losses = policy_loss(now, old, advantages, sequence, lengths, what).token_losses
    if "engine" in case:
        losses = losses * engine_weights(old, flat("engine", mask), "truncate", 2.0)
    if "kl" in case:
        losses = losses + settings["beta"] * kl_penalty(now, flat("reference", mask), "k3", "k3")
    weights = token_weights(sequence, lengths, what.aggregation, GOLDEN["max_length"])
    loss = (losses * weights).sum() / denominator(len(lengths), int(lengths.sum()), what.aggregation)
    assert loss.item() == pytest.approx(expected["loss"], rel=1e-12)
    (gradient,) = torch.autograd.grad(loss, now)
    torch.testing.assert_close(gradient, torch.tensor(expected["gradient"], dtype=torch.float64)[mask])


def test_advantages_equal_trl():
    rewards = torch.tensor(GOLDEN["rewards"], dtype=torch.float64)
    for scale, name in ((True, "scaled"), (False, "unscaled")):
        found = group_advantages(rewards, torch.ones_like(rewards, dtype=torch.bool), scale)
        torch.testing.assert_close(found.values, torch.tensor(GOLDEN["advantages"][name], dtype=torch.float64))
        assert found.informative.tolist() == [True, False, True]
