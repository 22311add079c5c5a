"""Bands and histograms of pass rates."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass

EDGES = tuple(edge / 10 for edge in range(1, 11))  # of the histogram's bins, besides 0 and 1


@dataclass(frozen=True)
class PassRateBand:
    """Pass rates to train on, strictly between two bounds.

    With 16 answers, the paper's band of 0.1 to 0.9 keeps 2 to 14 correct ones.

    Args:
        low: lower bound, exclusive.
        high: upper bound, exclusive.

    Example:
        >>> [passes for passes in range(17) if passes / 16 in PassRateBand()]
        [2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]
    """

    low: float = 0.1
    high: float = 0.9

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high <= 1:
            raise ValueError(f"pass_rate is invalid: from {self.low} to {self.high}; give low < high, both from 0 to 1")

    def __contains__(self, rate: float) -> bool:
        return self.low < rate < self.high

    def __str__(self) -> str:
        return f"{self.low:g} < pass rate < {self.high:g}"


@dataclass(frozen=True)
class Histogram:
    """Counts of questions by pass rate.

    Attributes:
        never: questions with pass rate 0.
        between: questions above 0 and below 1, by tenths: (0, 0.1], (0.1, 0.2], ..., (0.9, 1).
        always: questions with pass rate 1.
        ungraded: questions without a single scored answer.
    """

    never: int
    between: tuple[int, ...]
    always: int
    ungraded: int

    @classmethod
    def of(cls, rates: Iterable[float]) -> Histogram:
        """From pass rates; NaN is ungraded.

        Example:
            >>> Histogram.of([0, 1, 0.1, 0.11, 1.0, float("nan")])
            Histogram(never=1, between=(1, 1, 0, 0, 0, 0, 0, 0, 0, 0), always=2, ungraded=1)
        """
        never = always = ungraded = 0
        between = [0] * len(EDGES)
        for rate in rates:
            if math.isnan(rate):
                ungraded += 1
            elif rate <= 0:
                never += 1
            elif rate >= 1:
                always += 1
            else:
                between[bisect_left(EDGES, rate)] += 1
        return cls(never, tuple(between), always, ungraded)

    @property
    def total(self) -> int:
        return self.never + sum(self.between) + self.always + self.ungraded

    def bins(self) -> list[tuple[str, int]]:
        """Label and count of each bin."""
        lows = (0.0, *EDGES)
        inner = [(f"{lows[i]:.1f}-{high:.1f}", count) for i, (high, count) in enumerate(zip(EDGES, self.between))]  # noqa: B905
        ungraded = [("no score", self.ungraded)] if self.ungraded else []
        return [("0", self.never), *inner, ("1", self.always), *ungraded]

    def line(self) -> str:
        """The non-empty bins in one line."""
        return "pass rates " + (
            ", ".join(f"{label}: {count:,}" for label, count in self.bins() if count) or "of nothing"
        )

    def advice(self, band: PassRateBand) -> str:
        """Advice for when too few questions are inside a band."""
        if self.ungraded > self.total / 2:
            return "most answers could not be scored: fix the reward, and run `nbg pass-rate` again"
        if self.never > self.always:
            return (
                "most questions are never solved: give easier ones, train the model further first, allow longer answers, "
                f"or lower pass_rate.low from {band.low:g}"
            )
        return f"most questions are always solved: give harder ones, or raise pass_rate.high from {band.high:g}"
