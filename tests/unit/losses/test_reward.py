"""Losses of reward models against ten lines of float64, in values and gradients, and hand-computed cases."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nbg_lightning.losses.reward import RewardLoss, good_or_bad, reward_loss, win_probability

SCORES = st.lists(st.tuples(*[st.floats(-30, 30)] * 2), min_size=1, max_size=6)


def reference(chosen, rejected, loss):
    """Values and their derivatives by both scores, by the formulas of the docstring."""
    s, center = loss.label_smoothing, loss.center

    def log_sigmoid(x):
        return -math.log1p(math.exp(-x)) if x > 0 else x - math.log1p(math.exp(x))

    def sigmoid(x):
        return math.exp(log_sigmoid(x))

    if loss.kind == "bradley_terry":
        h = chosen - rejected
        value = -(1 - s) * log_sigmoid(h) - s * log_sigmoid(-h)
        slope = -(1 - s) * sigmoid(-h) + s * sigmoid(h)
        slopes = slope, -slope
    else:
        value = -((1 - s) * log_sigmoid(chosen) + s * log_sigmoid(-chosen)) / 2
        value -= ((1 - s) * log_sigmoid(-rejected) + s * log_sigmoid(rejected)) / 2
        slopes = (sigmoid(chosen) - (1 - s)) / 2, (sigmoid(rejected) - s) / 2
    total = chosen + rejected
    return value + center * total**2, *(slope + 2 * center * total for slope in slopes)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    SCORES, st.sampled_from(["bradley_terry", "pointwise"]), st.sampled_from([0.0, 0.2]), st.sampled_from([0.0, 0.1])
)
def test_values_and_gradients_are_those_of_the_formulas(pairs, kind, smoothing, center):
    loss = RewardLoss(kind, smoothing, center)
    scores = torch.tensor(pairs, dtype=torch.float64, requires_grad=True)
    values = reward_loss(scores[:, 0], scores[:, 1], loss)
    values.sum().backward()
    for row, (chosen, rejected) in enumerate(pairs):
        found = values[row].item(), *scores.grad[row].tolist()
        assert found == pytest.approx(reference(chosen, rejected, loss), rel=1e-9, abs=1e-12)


def test_by_hand():
    one, zero = torch.tensor([math.log(3)]), torch.zeros(1)
    assert reward_loss(one, zero, RewardLoss()).item() == pytest.approx(-math.log(0.75))
    assert win_probability(one, zero).item() == pytest.approx(0.75)
    assert reward_loss(one, -one, RewardLoss("pointwise")).item() == pytest.approx(-math.log(0.75))
    assert reward_loss(zero, zero, RewardLoss(center=9.0)).item() == pytest.approx(math.log(2))
    assert reward_loss(one, one, RewardLoss(center=1.0)).item() == pytest.approx(math.log(2) + 4 * math.log(3) ** 2)


def test_a_grade_is_met_where_the_score_is_its_log_odds():
    grade = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
    scores = torch.logit(grade).requires_grad_()
    good_or_bad(scores, grade).sum().backward()
    assert scores.grad.abs().max() < 1e-12


def test_bradley_terry_sees_differences_only_and_pointwise_does_not():
    chosen, rejected = torch.tensor([1.0, -2.0]), torch.tensor([0.5, 3.0])
    moved = reward_loss(chosen + 7, rejected + 7, RewardLoss())
    assert torch.allclose(moved, reward_loss(chosen, rejected, RewardLoss()))
    other = RewardLoss("pointwise")
    assert not torch.allclose(reward_loss(chosen + 7, rejected + 7, other), reward_loss(chosen, rejected, other))


def test_extreme_scores_stay_finite():
    far = torch.tensor([1e30], requires_grad=True)
    for kind in ("bradley_terry", "pointwise"):
        value = reward_loss(-far, far, RewardLoss(kind))
        value.sum().backward()
        assert torch.isfinite(value).all()
        assert torch.isfinite(far.grad).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "listwise"}, "loss is invalid: 'listwise'; choose bradley_terry or pointwise"),
        ({"label_smoothing": 0.5}, "label_smoothing is invalid: 0.5"),
        ({"label_smoothing": -0.1}, "label_smoothing is invalid: -0.1"),
        ({"center": -1.0}, "center is invalid: -1.0"),
        ({"center": math.nan}, "center is invalid: nan"),
        ({"center": math.inf}, "center is invalid: inf"),
    ],
)
def test_refused(options, message):
    with pytest.raises(ValueError, match=message):
        RewardLoss(**options)
