"""Statistics of benchmark scores: pure functions of numbers, each with its formula and where it is from.

Scores are one number an item (or one a sample of it). Intervals resample **items**: the samples of one item are not
independent of each other.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

# Resampled indices that are held at once.
_BLOCK_ELEMENTS = 2**22


class Interval(NamedTuple):
    """A confidence interval."""

    low: float
    high: float


class PairedComparison(NamedTuple):
    """How two models differ on the same items.

    Attributes:
        items: how many both were scored on.
        first: mean score of the first.
        second: mean score of the second.
        difference: ``second - first``.
        interval: bootstrap interval of the difference, over items.
        p_value: two-sided, of a sign-flip permutation test: how often chance alone gives a difference this large.
        wins: items on which the second scores higher; the first does on ``losses``, neither on the rest.
        losses: see wins.
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
        raise ValueError("the mean of no value is not defined")
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
        raise ValueError(f"avg@{k} needs at least {max(k, 1)} samples, and there are {len(scores)}")
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
        raise ValueError(f"{num_correct} of {num_samples} samples cannot be correct")
    if not 1 <= k <= num_samples:
        raise ValueError(f"pass@{k} needs at least {max(k, 1)} samples, and there are {num_samples}")
    return 1.0 - math.comb(num_samples - num_correct, k) / math.comb(num_samples, k)


def consensus_at_k(answers: Sequence[Hashable | None], scores: Sequence[float], k: int) -> float:
    """cons@k: the score of the answer that most of the first k samples give (self-consistency, arXiv 2203.11171).

    A sample without an answer has no vote; if none has one, the score is 0. Between answers with equal votes the
    expectation of a fair draw is taken.

    Args:
        answers: what each sample says, as something that is equal for equal answers; None where it says nothing.
        scores: of each sample.
        k: how many samples vote.

    Raises:
        ValueError: fewer samples than k.

    Example:
        >>> consensus_at_k(["7", "8", "7"], [1.0, 0.0, 1.0], k=3)
        1.0
    """
    if len(answers) != len(scores) or not 1 <= k <= len(scores):
        raise ValueError(f"cons@{k} needs an answer and a score of at least {max(k, 1)} samples")
    votes: dict[Hashable, list[float]] = {}
    for answer, score in zip(answers[:k], scores[:k], strict=True):
        if answer is not None:
            votes.setdefault(answer, []).append(score)
    if not votes:
        return 0.0
    most = max(map(len, votes.values()))
    return mean([mean(group) for group in votes.values() if len(group) == most])


def bootstrap_interval(
    values: Sequence[float],
    weights: Sequence[float] | None = None,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap of ``sum(values) / sum(weights)`` over items (Efron 1979).

    Args:
        values: one number an item.
        weights: the denominator of each item; 1 by default, so that the statistic is the mean. For bits per byte, values
            are bits and weights bytes.
        confidence: of the interval.
        resamples: how often items are drawn.
        seed: the same numbers give the same interval.

    Raises:
        ValueError: no value, or a confidence outside (0, 1).
    """
    if not len(values):
        raise ValueError("an interval needs at least one value")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, not {confidence}")
    numbers = np.asarray(values, dtype=np.float64)
    denominators = np.ones_like(numbers) if weights is None else np.asarray(weights, dtype=np.float64)
    statistics = np.concatenate(
        [
            numbers[drawn].sum(axis=1) / denominators[drawn].sum(axis=1)
            for drawn in _draws(len(numbers), resamples, np.random.default_rng(seed))
        ]
    )
    tail = (1 - confidence) / 2
    low, high = np.quantile(statistics, [tail, 1 - tail])
    return Interval(float(low), float(high))


def _draws(count: int, resamples: int, random: np.random.Generator) -> Iterator[np.ndarray]:
    """Indices of items with replacement, ``[rows, count]``, ``resamples`` rows in all."""
    rows = max(1, _BLOCK_ELEMENTS // count)
    for begin in range(0, resamples, rows):
        yield random.integers(0, count, (min(rows, resamples - begin), count))


def paired_comparison(
    first: Sequence[float],
    second: Sequence[float],
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> PairedComparison:
    """Compare two models by their scores of the same items.

    Pairing takes out what an item's difficulty contributes, which is most of the variance of a score: differences far
    smaller than either model's own interval can be told.

    Args:
        first: a score an item.
        second: of the same items, in the same order.
        confidence: of the interval.
        resamples: of the bootstrap, and of the permutation test.
        seed: of both.

    Raises:
        ValueError: no item, or not the same number of them.
    """
    if len(first) != len(second) or not len(first):
        raise ValueError(f"paired scores of {len(first)} and {len(second)} items cannot be compared")
    differences = np.asarray(second, dtype=np.float64) - np.asarray(first, dtype=np.float64)
    observed = differences.mean()
    random = np.random.default_rng(seed + 1)
    extreme, rows = 0, max(1, _BLOCK_ELEMENTS // len(differences))
    for begin in range(0, resamples, rows):
        signs = random.integers(0, 2, (min(rows, resamples - begin), len(differences)), dtype=np.int8) * 2 - 1
        # A hair of tolerance: the same differences in another order sum to another last digit.
        extreme += int((np.abs(signs @ differences) / len(differences) >= abs(observed) - 1e-12).sum())
    return PairedComparison(
        items=len(differences),
        first=mean(first),
        second=mean(second),
        difference=float(observed),
        interval=bootstrap_interval(differences.tolist(), None, confidence, resamples, seed),
        p_value=(extreme + 1) / (resamples + 1),
        wins=int((differences > 0).sum()),
        losses=int((differences < 0).sum()),
    )
