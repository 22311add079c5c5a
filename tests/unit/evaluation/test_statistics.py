"""Statistics against cases worked by hand, enumeration and closed forms."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbg_lightning.evaluation.statistics import (
    average_at_k,
    bootstrap_interval,
    consensus_at_k,
    mean,
    paired_comparison,
    pass_at_k,
)


def test_mean():
    assert mean([0.1] * 10) == 0.1  # a running sum gives 0.09999999999999999
    with pytest.raises(ValueError, match="no value"):
        mean([])


def test_average_at_k_by_hand():
    assert average_at_k([1, 0, 0, 1], 4) == 0.5
    assert average_at_k([1, 0, 0, 1], 3) == pytest.approx(1 / 3)
    with pytest.raises(ValueError, match="avg@5"):
        average_at_k([1, 0], 5)


@given(st.integers(1, 7), st.data())
def test_pass_at_k_is_the_share_of_draws_with_a_correct_sample(n, data):
    correct, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    samples = [1] * correct + [0] * (n - correct)
    draws = list(itertools.combinations(samples, k))
    assert pass_at_k(n, correct, k) == pytest.approx(sum(map(any, draws)) / len(draws))


def test_pass_at_k_by_hand():
    assert pass_at_k(8, 0, 8) == 0.0
    assert pass_at_k(8, 1, 8) == 1.0
    assert pass_at_k(8, 2, 1) == 0.25
    assert pass_at_k(1000, 1, 500) == pytest.approx(0.5)  # no overflow
    for arguments in ((2, 3, 1), (2, 1, 3), (2, 1, 0)):
        with pytest.raises(ValueError, match=r"correct|pass@"):
            pass_at_k(*arguments)


def test_consensus_by_hand():
    assert consensus_at_k(["7", "8", "7"], [1, 0, 1], 3) == 1.0
    assert consensus_at_k(["8", "7", "8"], [0, 1, 0], 3) == 0.0
    assert consensus_at_k(["7", "8"], [1, 0], 2) == 0.5, "a tie is a fair draw"
    assert consensus_at_k([None, None, "7"], [0, 0, 1], 3) == 1.0, "who says nothing has no vote"
    assert consensus_at_k([None], [0], 1) == 0.0
    assert consensus_at_k(["8", "7", "7"], [0, 1, 1], 1) == 0.0, "only the first k vote"


def test_bootstrap_of_a_mean_is_close_to_the_normal_interval():
    values = [1.0] * 300 + [0.0] * 700
    low, high = bootstrap_interval(values, resamples=4000)
    half = 1.96 * math.sqrt(0.3 * 0.7 / 1000)
    assert low == pytest.approx(0.3 - half, abs=0.003)
    assert high == pytest.approx(0.3 + half, abs=0.003)
    assert bootstrap_interval(values) == bootstrap_interval(values), "the same numbers, the same interval"
    assert bootstrap_interval([0.5]) == (0.5, 0.5)


def test_bootstrap_of_a_ratio_weights_items():
    bits, sizes = [10.0, 1000.0], [10.0, 500.0]
    low, high = bootstrap_interval(bits, sizes, confidence=0.999)
    assert (low, high) == (1.0, 2.0), "from one item drawn twice to the other"


def test_bootstrap_covers():
    """Of intervals at 90 %, about 90 % hold the truth."""
    random = np.random.default_rng(0)
    held = 0
    for trial in range(100):
        low, high = bootstrap_interval((random.random(100) < 0.4).astype(float).tolist(), None, 0.9, 200, trial)
        held += low <= 0.4 <= high
    assert 0.82 <= held / 100 <= 0.97


def test_paired_comparison_by_hand():
    result = paired_comparison([0, 0, 1, 1], [1, 0, 1, 0])
    assert (result.first, result.second, result.difference) == (0.5, 0.5, 0.0)
    assert (result.items, result.wins, result.losses) == (4, 1, 1)
    assert result.p_value == 1.0
    always = paired_comparison([0.0] * 6, [1.0] * 6)
    assert always.difference == 1.0
    assert always.p_value == pytest.approx(2 / 2**6, abs=0.01), "both signs all the same: 2 of 64"
    with pytest.raises(ValueError, match="2 and 1 items"):
        paired_comparison([1, 1], [1])


def test_pairing_sees_what_single_intervals_do_not():
    random = np.random.default_rng(1)
    first = random.random(400)
    second = first + 0.02 + 0.01 * random.standard_normal(400)
    one, other = bootstrap_interval(first.tolist()), bootstrap_interval(second.tolist())
    assert one.high > other.low, "the models' own intervals overlap"
    result = paired_comparison(first.tolist(), second.tolist(), resamples=2000)
    assert result.interval.low > 0.015
    assert result.p_value < 0.001
