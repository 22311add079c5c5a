"""Statistics of benchmark scores: pure functions of numbers, each with its formula and source.

Scores are one number per item (or per sample of it). Intervals are over **items**: the samples of one item are not
independent of each other, nor are the items of one cluster (questions about one passage, variants of one problem).

Scores of a benchmark lie in [0, 1], and among few items all may be right: their variance is then 0, and a plain interval
would have no width. So for bounded scores a few pseudo-items are added at both bounds (Agresti and Coull 1998, The American
Statistician 52; Bonett and Price 2012 for pairs), and the interval is Student's t interval over all of them. Its coverage
is at least 94 % from 5 items on, at any accuracy (`benchmarks/interval_coverage.py`).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

_PAIRED_PRIOR = 1.0  # pseudo-items at each of -1 and +1: Bonett and Price 2012, Journal of Educational Statistics 37


class Interval(NamedTuple):
    """A confidence interval."""

    low: float
    high: float


class PairedComparison(NamedTuple):
    """The difference of two models on the same items.

    Attributes:
        items: number of items that both were scored on.
        first: mean score of the first.
        second: mean score of the second.
        difference: ``second - first``.
        interval: interval of the difference, over items.
        p_value: two-sided, from the same t statistic as the interval: below ``1 - confidence`` exactly if the interval
            excludes 0.
        wins: number of items on which the second scores higher; the first does on ``losses``, neither on the rest.
        losses: see ``wins``.
    """

    items: int
    first: float
    second: float
    difference: float
    interval: Interval
    p_value: float
    wins: int
    losses: int


def mean(values: Sequence[float]) -> float:
    """Arithmetic mean, summed without loss of precision.

    Raises:
        ValueError: no value.
    """
    if not values:
        raise ValueError("scores are invalid: there are none; give at least one")
    return math.fsum(values) / len(values)


def average_at_k(scores: Sequence[float], k: int) -> float:
    """avg@k: the mean score of the first k samples of an item.

    Raises:
        ValueError: fewer samples than k.

    Example:
        >>> average_at_k([1.0, 0.0, 0.0, 1.0], k=2)
        0.5
    """
    if not 1 <= k <= len(scores):
        raise ValueError(
            f"avg@{k} needs at least {max(k, 1)} samples, and there are {len(scores)}; draw more, or lower k"
        )
    return mean(scores[:k])


def pass_at_k(num_samples: int, num_correct: int, k: int) -> float:
    """pass@k: the probability that at least one of k samples, drawn from these without replacement, is correct.

    ``1 - C(n - c, k) / C(n, k)``, the unbiased estimate of Chen et al. 2021 (arXiv 2107.03374, section 2.1).

    Raises:
        ValueError: fewer samples than k, or more correct ones than samples.

    Example:
        >>> round(pass_at_k(4, 1, 2), 4)
        0.5
    """
    if not 0 <= num_correct <= num_samples:
        raise ValueError(f"num_correct is invalid: {num_correct} of {num_samples} samples; give 0 to num_samples")
    if not 1 <= k <= num_samples:
        raise ValueError(
            f"pass@{k} needs at least {max(k, 1)} samples, and there are {num_samples}; draw more, or lower k"
        )
    return 1.0 - math.comb(num_samples - num_correct, k) / math.comb(num_samples, k)


def consensus_at_k(answers: Sequence[Hashable | None], scores: Sequence[float], k: int) -> float:
    """cons@k: the score of the most frequent answer among the first k samples (self-consistency, arXiv 2203.11171).

    A sample without an answer has no vote; if none has one, the score is 0. Ties are resolved by the expectation of a fair
    draw.

    Args:
        answers: each sample's answer in a form that is equal for equal answers; None without an answer.
        scores: score of each sample.
        k: number of samples that vote.

    Raises:
        ValueError: fewer samples than k.

    Example:
        >>> consensus_at_k(["7", "8", "7"], [1.0, 0.0, 1.0], k=3)
        1.0
    """
    if len(answers) != len(scores) or not 1 <= k <= len(scores):
        raise ValueError(f"cons@{k} needs an answer and a score of at least {max(k, 1)} samples; draw more, or lower k")
    votes: dict[Hashable, list[float]] = {}
    for answer, score in zip(answers[:k], scores[:k], strict=True):
        if answer is not None:
            votes.setdefault(answer, []).append(score)
    if not votes:
        return 0.0
    most = max(map(len, votes.values()))
    return mean([mean(group) for group in votes.values() if len(group) == most])


class _Estimate(NamedTuple):
    """A mean with its standard error and degrees of freedom."""

    mean: float
    error: float
    freedom: float

    def interval(self, confidence: float) -> Interval:
        if self.freedom <= 0:
            return Interval(-math.inf, math.inf)
        half = student_t_quantile((1 + confidence) / 2, self.freedom) * self.error
        return Interval(self.mean - half, self.mean + half)

    def p_value(self) -> float:
        """Two-sided p-value of the hypothesis that the mean is 0."""
        from scipy.special import stdtr

        if self.freedom <= 0:
            return 1.0
        if self.error == 0:
            return 1.0 if self.mean == 0 else 0.0
        return float(2 * stdtr(self.freedom, -abs(self.mean) / self.error))


def student_t_quantile(probability: float, freedom: float) -> float:
    """Quantile of Student's t distribution.

    Args:
        probability: below the quantile, in (0, 1).
        freedom: degrees of freedom, above 0; may be fractional.

    Example:
        >>> round(student_t_quantile(0.975, 6), 3)
        2.447
    """
    from scipy.special import stdtrit

    return float(stdtrit(freedom, probability))


def _estimate(
    values: np.ndarray,
    weights: np.ndarray,
    clusters: Sequence[Hashable] | None,
    imagined: tuple[float, float] | None,
    prior: float,
) -> _Estimate:
    """``sum(values) / sum(weights)`` over clusters, with ``prior`` more clusters of average weight at each imagined value.

    The variance is that of a ratio over G clusters, ``G / (G - 1) sum_g (V_g - R W_g)^2 / (sum_g W_g)^2``.
    """
    if clusters is not None:
        numbers: dict[Hashable, int] = {}
        place = np.array([numbers.setdefault(cluster, len(numbers)) for cluster in clusters])
        values, weights = np.bincount(place, values), np.bincount(place, weights)
    count = np.ones_like(values)
    if imagined is not None:
        average = weights.mean()
        values = np.append(values, [average * value for value in imagined])
        weights = np.append(weights, [average, average])
        count = np.append(count, [prior, prior])
    groups, total = count.sum(), (count * weights).sum()
    ratio = (count * values).sum() / total
    spread = (count * (values - ratio * weights) ** 2).sum()
    error = math.sqrt(groups / (groups - 1) * spread) / total if groups > 1 else math.inf
    return _Estimate(float(ratio), float(error), float(groups - 1))


def mean_interval(
    values: Sequence[float],
    weights: Sequence[float] | None = None,
    confidence: float = 0.95,
    bounds: tuple[float, float] | None = (0.0, 1.0),
    clusters: Sequence[Hashable] | None = None,
) -> Interval:
    """Confidence interval of ``sum(values) / sum(weights)`` over items.

    With bounds, ``z^2 / 2`` pseudo-items (1.92 at 95 %) are added at each of them, and the interval is clipped there: for
    scores of 0 and 1 it is that of Agresti and Coull 1998 with Student's t in place of z. Items of a cluster count as one
    draw (Miller 2024, arXiv 2411.00640, section 2.2).

    Args:
        values: one number per item.
        weights: the denominator of each item; 1 by default, so that the statistic is the mean. For bits per byte, values
            are bits and weights bytes.
        confidence: confidence level of the interval.
        bounds: bounds of every ``value / weight``; None if there are none. A single item without bounds does not determine
            a variance: its interval is from -inf to inf.
        clusters: cluster of each item; by default each is its own.

    Raises:
        ValueError: no value, one that is not finite or outside its bounds, a weight that is not positive, another number of
            weights or clusters than of values, or a confidence outside (0, 1).

    Example:
        >>> low, high = mean_interval([1.0] * 10)
        >>> round(low, 2), high
        (0.66, 1.0)
    """
    numbers = _checked_numbers(values, confidence)
    _check_lengths(len(numbers), weights=weights, clusters=clusters)
    denominators = np.ones_like(numbers) if weights is None else np.asarray(weights, dtype=np.float64)
    if not (np.isfinite(denominators).all() and (denominators > 0).all()):
        raise ValueError("weights are invalid: one is negative, 0 or not finite; give positive ones")
    if bounds is None:
        return _estimate(numbers, denominators, clusters, None, 0.0).interval(confidence)
    _check_bounds(numbers / denominators, bounds)
    prior = NormalDist().inv_cdf((1 + confidence) / 2) ** 2 / 2
    low, high = _estimate(numbers, denominators, clusters, bounds, prior).interval(confidence)
    return Interval(max(low, bounds[0]), min(high, bounds[1]))


def _checked_numbers(values: Sequence[float], confidence: float) -> np.ndarray:
    if not len(values):
        raise ValueError("values are invalid: there are none; give at least one")
    if not 0 < confidence < (1 + confidence) / 2 < 1:  # the latter rounds to 1 within 1e-16 of it
        raise ValueError(f"confidence is invalid: {confidence}; give a number between 0 and 1")
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1:
        raise ValueError(f"values are invalid: an array of shape {numbers.shape}; give one number an item")
    if not np.isfinite(numbers).all():
        raise ValueError(f"value {int(np.flatnonzero(~np.isfinite(numbers))[0])} is not finite; leave it out")
    return numbers


def _check_lengths(count: int, **others: Sequence[Hashable] | None) -> None:
    for name, given in others.items():
        if given is not None and len(given) != count:
            raise ValueError(f"{name} are invalid: {len(given)} for {count} values; give one a value")


def _check_bounds(numbers: np.ndarray, bounds: tuple[float, float]) -> None:
    if not -math.inf < bounds[0] < bounds[1] < math.inf:
        raise ValueError(f"bounds are invalid: {bounds[0]:g} and {bounds[1]:g}; give finite ones, the lower one first")
    slack = 1e-9 * (bounds[1] - bounds[0])  # sums of fractions may end a digit beyond
    outside = (numbers < bounds[0] - slack) | (numbers > bounds[1] + slack)
    if outside.any():
        raise ValueError(
            f"score is invalid: {numbers[outside][0]:g}; give {bounds[0]:g} to {bounds[1]:g}, or other bounds"
        )


def paired_comparison(
    first: Sequence[float],
    second: Sequence[float],
    confidence: float = 0.95,
    bounds: tuple[float, float] | None = (0.0, 1.0),
    clusters: Sequence[Hashable] | None = None,
) -> PairedComparison:
    """Compare two models by their scores of the same items.

    Pairing removes the variance due to item difficulty, which is most of a score's variance, so that differences far
    smaller than either model's own interval can be detected. With bounds, one pseudo-item is added at each end of the scale
    of differences (Bonett and Price 2012); interval and p-value come from one t statistic, so they cannot disagree.

    Args:
        first: one score per item.
        second: scores of the same items, in the same order.
        confidence: confidence level of the interval.
        bounds: bounds of the scores, as in `mean_interval`.
        clusters: cluster of each item.

    Raises:
        ValueError: no item, not the same number of them, or as in `mean_interval`.
    """
    if len(first) != len(second) or not len(first):
        raise ValueError(
            f"paired scores are invalid: {len(first)} and {len(second)} items; give those of the same items"
        )
    one, two = _checked_numbers(first, confidence), _checked_numbers(second, confidence)
    _check_lengths(len(one), clusters=clusters)
    reach = None
    if bounds is not None:
        _check_bounds(np.concatenate((one, two)), bounds)
        reach = (bounds[0] - bounds[1], bounds[1] - bounds[0])
    differences = two - one
    estimate = _estimate(differences, np.ones_like(differences), clusters, reach, _PAIRED_PRIOR)
    low, high = estimate.interval(confidence)
    return PairedComparison(
        items=len(differences),
        first=mean(first),
        second=mean(second),
        difference=float(differences.mean()),
        interval=Interval(low, high) if reach is None else Interval(max(low, reach[0]), min(high, reach[1])),
        p_value=estimate.p_value(),
        wins=int((differences > 0).sum()),
        losses=int((differences < 0).sum()),
    )
