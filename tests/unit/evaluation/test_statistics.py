"""Statistics against hand-computed cases, enumeration and closed forms."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from nbg_lightning.evaluation.statistics import (
    average_at_k,
    consensus_at_k,
    mean,
    mean_interval,
    paired_comparison,
    pass_at_k,
    student_t_quantile,
)


def test_mean():
    assert mean([0.1] * 10) == 0.1  # a running sum gives 0.09999999999999999
    with pytest.raises(ValueError, match="there are none"):
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


def test_interval_of_right_and_wrong_answers_is_agresti_and_coulls_with_t():
    """By hand: 9 of 10 right, 1.92 more right and wrong ones: 10.92 of 13.84."""
    z2 = 1.959964**2
    centre = (9 + z2 / 2) / (10 + z2)
    half = 2.1623 * math.sqrt(centre * (1 - centre) / (9 + z2))  # t with 12.84 degrees of freedom; variance over n - 1
    low, high = mean_interval([1.0] * 9 + [0.0])
    assert low == pytest.approx(centre - half, abs=2e-4)
    assert high == 1.0, "cut at the bound: 1.035"


@pytest.mark.parametrize("n", [5, 10, 20, 50, 100, 300, 1000])
def test_intervals_cover_at_any_share_of_right_answers(n):
    """Exactly, by adding up the chances of all outcomes: at least 94 % of nominal 95 %."""
    ends = np.array([mean_interval([1.0] * k + [0.0] * (n - k)) for k in range(n + 1)])
    for p in np.linspace(0.01, 0.99, 99):
        chances = stats.binom.pmf(np.arange(n + 1), n, p)
        covered = chances[(ends[:, 0] <= p) & (p <= ends[:, 1])].sum()
        assert covered >= 0.94, f"n={n} p={p:.2f}: {covered:.3f}"


def test_all_right_is_not_certain():
    assert mean_interval([1.0] * 10).low == pytest.approx(0.66, abs=0.01)
    assert mean_interval([1.0] * 10).high == 1.0
    assert mean_interval([0.0]).high > 0.8
    assert mean_interval([0.5] * 4).low < 0.3, "equal averages of few items are no certainty either"


@pytest.mark.parametrize(("a", "b"), [(0.1, 0.9), (2, 2), (8, 0.3), (20, 20)])
@pytest.mark.parametrize("n", [5, 20, 100])
def test_intervals_cover_averages_of_four_samples(a, b, n):
    """Items of unequal difficulty (beta), four samples each."""
    random = np.random.default_rng(0)
    scores = random.binomial(4, random.beta(a, b, (600, n))) / 4
    ends = np.array([mean_interval(row.tolist()) for row in scores])
    assert ((ends[:, 0] <= a / (a + b)) & (a / (a + b) <= ends[:, 1])).mean() >= 0.93


def test_items_of_a_cluster_are_one_draw():
    """Ten items of each of thirty passages, all right or all wrong: intervals over items hold the truth in a third of cases."""
    random = np.random.default_rng(0)
    clusters = np.repeat(np.arange(30), 10).tolist()
    alone = together = 0
    for _ in range(300):
        scores = np.repeat((random.random(30) < 0.6).astype(float), 10).tolist()
        low, high = mean_interval(scores, clusters=clusters)
        together += low <= 0.6 <= high
        low, high = mean_interval(scores)
        alone += low <= 0.6 <= high
    assert together / 300 >= 0.93
    assert alone / 300 < 0.6
    scores = random.random(12).tolist()
    own = mean_interval(scores, clusters=list(range(12)))
    assert own == pytest.approx(mean_interval(scores), rel=1e-12), "a cluster each: as without"


def test_clusters_of_equal_names_are_one():
    scores = [1.0] * 5 + [0.0] * 5
    assert mean_interval(scores, clusters=[1, 1.0] * 5) == mean_interval(scores, clusters=[1] * 10)
    assert mean_interval(scores, clusters=["1", 1] * 5) != mean_interval(scores, clusters=[1] * 10)


def test_interval_without_bounds_is_students():
    values = [1.0, 2.0, 4.0]
    half = 4.30265 * np.std(values, ddof=1) / math.sqrt(3)
    assert mean_interval(values, bounds=None) == pytest.approx((7 / 3 - half, 7 / 3 + half), rel=1e-5)
    assert mean_interval([0.7], bounds=None) == (-math.inf, math.inf)


def test_interval_of_a_ratio_weights_items():
    """Against the textbook's linearized ratio, with weights that differ tenfold."""
    bits, sizes = np.array([10.0, 1000.0, 90.0, 300.0]), np.array([10.0, 500.0, 60.0, 200.0])
    ratio = bits.sum() / sizes.sum()
    rest = bits - ratio * sizes
    error = math.sqrt(4 / 3 * (rest**2).sum()) / sizes.sum()
    expected = (ratio - 3.182446 * error, ratio + 3.182446 * error)
    assert mean_interval(bits.tolist(), sizes.tolist(), bounds=None) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("freedom", [1, 2, 3.5, 6, 8, 30, 1000])
@pytest.mark.parametrize("probability", [0.9, 0.975, 0.995])
def test_quantiles_of_students_t(freedom, probability):
    assert student_t_quantile(probability, freedom) == pytest.approx(stats.t.ppf(probability, freedom), rel=1e-9)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: mean_interval([]), "there are none; give at least one"),
        (lambda: mean_interval([1.0, math.nan]), "value 1 .* not finite"),
        (lambda: mean_interval([1.5]), "score is invalid: 1.5; give 0 to 1"),
        (lambda: mean_interval([1.0], confidence=1.0), "between 0 and 1"),
        (lambda: mean_interval([1.0], [0.0]), "positive"),
        (lambda: mean_interval([1.0], clusters=["a", "b"]), "clusters are invalid: 2 for 1 values"),
        (lambda: mean_interval([0.5], confidence=1 - 1e-16), "between 0 and 1"),
        (lambda: mean_interval([0.5], confidence=math.nan), "between 0 and 1"),
        (lambda: mean_interval([[0.5, 0.6], [0.7, 0.8]]), r"an array of shape \(2, 2\)"),
        (lambda: mean_interval([0.5, 0.5], weights=[1.0]), "weights are invalid: 1 for 2 values"),
        *[
            (lambda bounds=bounds: mean_interval([0.5], bounds=bounds), "bounds are invalid")
            for bounds in [(1.0, 0.0), (0.5, 0.5), (0.0, math.inf), (-math.inf, 1.0), (0.0, math.nan)]
        ],
        (lambda: paired_comparison([0.0], [2.0]), "score is invalid: 2"),
        (lambda: paired_comparison([0.0], [math.inf]), "not finite"),
        (lambda: paired_comparison([], []), "0 and 0 items"),
    ],
)
def test_what_has_no_interval_is_refused(call, said):
    with pytest.raises(ValueError, match=said):
        call()


def test_paired_comparison_by_hand():
    result = paired_comparison([0, 0, 1, 1], [1, 0, 1, 0])
    assert (result.first, result.second, result.difference) == (0.5, 0.5, 0.0)
    assert (result.items, result.wins, result.losses) == (4, 1, 1)
    assert result.p_value == 1.0
    always = paired_comparison([0.0] * 6, [1.0] * 6)
    assert always.difference == 1.0
    assert always.p_value == pytest.approx(2 * stats.t.sf(3.0, 7), rel=1e-6), "by hand: 0.75 with an error of 0.25"
    assert always.interval.high == 1.0
    with pytest.raises(ValueError, match="2 and 1 items"):
        paired_comparison([1, 1], [1])


def test_pairing_sees_what_single_intervals_do_not():
    random = np.random.default_rng(1)
    first = 0.9 * random.random(400)
    second = first + 0.02 + 0.01 * random.random(400)
    one, other = mean_interval(first.tolist()), mean_interval(second.tolist())
    assert one.high > other.low, "the models' own intervals overlap"
    result = paired_comparison(first.tolist(), second.tolist())
    assert result.interval.low > 0.015
    assert result.p_value < 0.001


@pytest.mark.parametrize("n", [5, 20, 100, 300])
@pytest.mark.parametrize(
    ("worse", "better"), [(0.0, 0.02), (0.01, 0.01), (0.05, 0.1), (0.3, 0.3), (0.0, 0.5), (0.05, 0.9)]
)
def test_paired_intervals_cover_and_agree_with_their_p_value(n, worse, better):
    random = np.random.default_rng(n)
    held = 0
    for _ in range(400):
        drawn = random.random(n)
        first = np.where(drawn < worse, 1.0, 0.0)
        second = np.where((drawn >= worse) & (drawn < worse + better), 1.0, 0.0)
        result = paired_comparison(first.tolist(), second.tolist())
        held += result.interval.low <= better - worse <= result.interval.high
        assert (result.p_value < 0.05) == (not result.interval.low <= 0 <= result.interval.high)
    assert held / 400 >= 0.93


def test_pairs_of_a_cluster_are_one_draw():
    first, second = [0.0] * 20, [1.0] * 10 + [0.0] * 10
    clusters = [0] * 10 + list(range(1, 11))
    assert paired_comparison(first, second).p_value < 0.05
    assert paired_comparison(first, second, clusters=clusters).p_value > 0.05


def test_one_pair_without_bounds_says_nothing():
    result = paired_comparison([1.0], [1.5], bounds=None)
    assert result.interval == (-math.inf, math.inf)
    assert result.p_value == 1.0
