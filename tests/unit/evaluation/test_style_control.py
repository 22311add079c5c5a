"""Style-controlled win rates: against an optimizer's maximum, and their limits."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, log_expit

from nbg_lightning.evaluation.style_control import FEATURES, controlled_win_rate, style, style_difference


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("", [0, 0, 0, 0]),
        ("plain", [5, 0, 0, 0]),
        ("# One\n## Two\n#no", [16, 2, 0, 0]),
        ("- a\n* b\n1. c\n-d", [15, 0, 3, 0]),
        ("**b** and __c__ and ** no", [25, 0, 0, 2]),
        ("```\n# code\n- x\n```\n- y", [22, 0, 1, 0]),
    ],
)
def test_counts(text, counts):
    assert style(text).tolist() == counts


def test_difference_is_zero_for_equal_styles_and_changes_its_sign():
    long, short = style("# A\n- **b**\n- c"), style("a b c d")
    assert style_difference(short, short).tolist() == [0.0] * len(FEATURES)
    assert style_difference(style(""), style("")).tolist() == [0.0] * len(FEATURES)
    np.testing.assert_allclose(style_difference(long, short), -style_difference(short, long))


def made(seed, count, content, length):
    """Verdicts of a model whose content wins with logit ``content``, and whose length adds ``length`` a unit."""
    drawn = np.random.default_rng(seed)
    differences = np.column_stack([drawn.normal(0.5, 0.3, count), drawn.normal(0, 0.1, (count, 3))])
    wins = (drawn.random(count) < expit(content + length * differences[:, 0])).astype(float)
    return wins, np.where(drawn.random(count) < 0.3, 3.0, 1.0), differences


def test_it_is_the_maximum_that_an_optimizer_finds():
    wins, weights, differences = made(0, 200, 0.3, 2.0)
    rate, interval = controlled_win_rate(wins, weights, differences, range(200))
    design = np.column_stack([np.ones(200), differences / differences.std(axis=0)])
    prior = np.array([10.0, 1, 1, 1, 1])

    def loss(b):
        z = design @ b
        return -np.sum(weights * (wins * log_expit(z) + (1 - wins) * log_expit(-z))) + 0.5 * np.sum((b / prior) ** 2)

    found = minimize(loss, np.zeros(5), method="BFGS", options={"gtol": 1e-9})
    assert rate == pytest.approx(expit(found.x[0]), abs=1e-6)
    assert interval.low < rate < interval.high


def test_length_that_wins_is_left_out():
    """Content is even, length wins: the plain rate is far above 0.5, the controlled one covers it."""
    wins, _, differences = made(1, 4000, 0.0, 3.0)
    rate, interval = controlled_win_rate(wins, np.ones(4000), differences, range(4000))
    assert wins.mean() > 0.75
    assert rate == pytest.approx(0.5, abs=0.06)
    assert interval.low < 0.5 < interval.high


def test_intervals_cover():
    hits = 0
    for seed in range(200):
        wins, _, differences = made(seed, 150, 0.4, 1.0)
        interval = controlled_win_rate(wins, np.ones(150), differences, range(150))[1]
        hits += interval.low < expit(0.4) < interval.high
    assert hits >= 182  # 91 % of 200: 95 % less two standard errors of the simulation, and a weak prior


@pytest.mark.parametrize("won", [0.0, 0.5, 1.0])
def test_verdicts_that_are_all_the_same_have_a_finite_rate(won):
    rate, interval = controlled_win_rate([won] * 20, [1.0] * 20, np.zeros((20, 4)), range(20))
    assert 0 < interval.low <= rate <= interval.high < 1
    assert (rate < 0.5, rate > 0.5) == (won < 0.5, won > 0.5)


def test_lengths_that_differ_are_refused():
    with pytest.raises(ValueError, match="verdicts are invalid: 2, 1, 2, 2 of them"):
        controlled_win_rate([1.0, 0.0], [1.0], np.zeros((2, 4)), [0, 1])
