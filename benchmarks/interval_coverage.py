"""Coverage of the confidence intervals of `nbg_lightning.evaluation.statistics`: the table of docs/benchmarks.md.

    python benchmarks/interval_coverage.py

For binary answers the coverage is exact, from the probabilities of all outcomes, at 99 accuracies from 0.01 to 0.99, along with
that of the percentile bootstrap and of Wilson's interval. Pairs, averages of four samples and clusters are simulated
(`REPEATS` times each). Writes `interval_coverage.json` to the results; takes some minutes on one core.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

from nbg_lightning.evaluation.statistics import mean_interval, paired_comparison

sys.path.insert(0, str(Path(__file__).parent / "performance"))
import paired

SIZES = (5, 10, 20, 50, 100, 300, 1000)
SHARES = np.linspace(0.01, 0.99, 99)
REPEATS = 2000
DIFFICULTIES = (
    (0.1, 0.9),
    (0.5, 0.5),
    (2.0, 2.0),
    (0.05, 4.0),
    (8.0, 0.3),
    (20.0, 20.0),
)  # beta distributions of items
DISCORDANT = ((0.0, 0.01), (0.01, 0.01), (0.0, 0.05), (0.05, 0.1), (0.3, 0.3), (0.0, 0.5), (0.05, 0.9))  # worse, better
Ends = tuple[float, float]


def wilson(right: int, items: int) -> Ends:
    """Wilson's interval (1927)."""
    z = NormalDist().inv_cdf(0.975)
    share, whole = right / items, 1 + z * z / items
    half = z * (share * (1 - share) / items + z * z / (4 * items * items)) ** 0.5 / whole
    centre = (share + z * z / (2 * items)) / whole
    return centre - half, centre + half


def bootstrap(right: int, items: int) -> Ends:
    """The percentile bootstrap with infinitely many resamples."""
    from scipy.stats import binom

    low, high = binom.ppf([0.025, 0.975], items, right / items) / items
    return float(low), float(high)


def ours(right: int, items: int) -> Ends:
    """The library's interval."""
    return mean_interval([1.0] * right + [0.0] * (items - right))


def exact(method: Callable[[int, int], Ends], items: int) -> list[float]:
    """Coverage at each accuracy."""
    from scipy.stats import binom

    ends = np.array([method(right, items) for right in range(items + 1)])
    return [
        float(binom.pmf(np.arange(items + 1), items, share)[(ends[:, 0] <= share) & (share <= ends[:, 1])].sum())
        for share in SHARES
    ]


def held(truth: float, ends: list[Ends]) -> float:
    """Share of the intervals that contain the true value."""
    return float(np.mean([low <= truth <= high for low, high in ends]))


def pairs(items: int, random: np.random.Generator) -> list[float]:
    """Coverage of paired differences of binary answers, for each share of discordant items."""
    found = []
    for worse, better in DISCORDANT:
        drawn = random.random((REPEATS, items))
        first = (drawn < worse).astype(float)
        second = ((drawn >= worse) & (drawn < worse + better)).astype(float)
        ends = [paired_comparison(a.tolist(), b.tolist()).interval for a, b in zip(first, second, strict=True)]
        found.append(held(better - worse, ends))
    return found


def averages(items: int, random: np.random.Generator) -> list[float]:
    """Coverage of avg@4."""
    found = []
    for a, b in DIFFICULTIES:
        scores = random.binomial(4, random.beta(a, b, (REPEATS, items))) / 4
        found.append(held(a / (a + b), [mean_interval(row.tolist()) for row in scores]))
    return found


def clusters(items: int, random: np.random.Generator) -> list[float]:
    """Coverage if the five items of a cluster are all right or all wrong, at five accuracies; ``items`` clusters."""
    named = np.repeat(np.arange(items), 5).tolist()
    found = []
    for share in (0.02, 0.2, 0.5, 0.8, 0.98):
        scores = np.repeat((random.random((REPEATS, items)) < share).astype(float), 5, axis=1)
        found.append(held(share, [mean_interval(row.tolist(), clusters=named) for row in scores]))
    return found


def main() -> None:
    """Measure, print and write."""
    results: dict[str, Any] = {}
    methods = {"ours": ours, "wilson": wilson, "bootstrap": bootstrap}
    print("items", *methods, "pairs", "avg@4", "clusters", sep="\t")
    for items in SIZES:
        random = np.random.default_rng(items)
        row = {name: exact(method, items) for name, method in methods.items()}
        row.update(
            pairs=pairs(items, random), averages=averages(items, random), clusters=clusters(min(items, 300), random)
        )
        results[str(items)] = {name: {"lowest": min(each), "mean": float(np.mean(each))} for name, each in row.items()}
        print(items, *(f"{min(each):.3f}" for each in row.values()), sep="\t", flush=True)
    settings = {"confidence": 0.95, "shares": len(SHARES), "repeats": REPEATS}
    print(paired.write_result("interval_coverage", settings, results))


if __name__ == "__main__":
    main()
