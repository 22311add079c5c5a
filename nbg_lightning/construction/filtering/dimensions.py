"""Choice of a rubric's dimensions: redundant and non-predictive ones are dropped.

The paper reduces more than 60 candidates to 20 by tests of overlap and predictive power, without details. Here the power of a
dimension is measured on training runs: the rank correlation of its mean score over a run's data with the run's result. The
overlap of two dimensions is their rank correlation over documents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class DimensionChoice:
    """The kept dimensions of a rubric, and the reasons for dropping the others.

    Attributes:
        kept: names, most predictive first.
        dropped: reasons by name.
        power: by name, rank correlation over runs with their results, between -1 and 1.
    """

    kept: tuple[str, ...]
    dropped: dict[str, str]
    power: dict[str, float]


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Spearman's rank correlation: Pearson's correlation of the ranks, with mean ranks for ties; 0 if one side is constant.

    Example:
        >>> rank_correlation([1, 2, 3], [10, 20, 15])
        0.5
    """
    from scipy.stats import rankdata

    one, two = (rankdata(side) - (len(side) + 1) / 2 for side in (first, second))
    scale = float(np.sqrt((one**2).sum() * (two**2).sum()))
    return round(float((one * two).sum()) / scale, 12) if scale else 0.0


def choose_dimensions(
    documents: Mapping[str, Sequence[float]],
    runs: Mapping[str, Sequence[float]],
    reached: Sequence[float],
    overlap: float = 0.8,
    least: float = 0.3,
) -> DimensionChoice:
    """Keep predictive dimensions, and of overlapping ones the most predictive.

    Args:
        documents: scores of documents by name, for the same documents.
        runs: mean score of each run's data by name, for the same runs.
        reached: result of each run; higher is better.
        overlap: absolute rank correlation over documents above which two dimensions overlap.
        least: minimum rank correlation over runs. Negative correlations are dropped too, since high scores would be bad.

    Raises:
        ValueError: mismatched names or lengths, fewer than four runs, a bound outside 0 to 1, or a non-finite score.
    """
    _check(documents, runs, reached, overlap, least)
    power = {name: rank_correlation(runs[name], reached) for name in documents}
    kept: list[str] = []
    dropped: dict[str, str] = {}
    for name in sorted(documents, key=lambda each: -power[each]):
        if power[name] < least:
            dropped[name] = f"predicts too little: {power[name]:+.2f} over {len(reached)} runs"
            continue
        shared = {other: rank_correlation(documents[name], documents[other]) for other in kept}
        other = max(shared, key=lambda each: abs(shared[each]), default=None)
        if other is not None and abs(shared[other]) > overlap:
            dropped[name] = f"overlaps with {other}: {shared[other]:+.2f} over documents"
        else:
            kept.append(name)
    return DimensionChoice(tuple(kept), dropped, power)


def _check(
    documents: Mapping[str, Sequence[float]],
    runs: Mapping[str, Sequence[float]],
    reached: Sequence[float],
    overlap: float,
    least: float,
) -> None:
    if set(documents) != set(runs):
        name = min(set(documents) ^ set(runs))
        raise ValueError(f"dimension is invalid: {name!r}; give its scores of documents and of runs")
    if len(reached) < 4:
        raise ValueError(f"reached is invalid: {len(reached)} runs; give four or more: a rank correlation needs them")
    for bound, value in (("overlap", overlap), ("least", least)):
        if not 0 <= value <= 1:
            raise ValueError(f"{bound} is invalid: {value}; give a rank correlation from 0 to 1")
    for kind, sides, length in (
        ("documents", documents, len(next(iter(documents.values()), ()))),
        ("runs", runs, len(reached)),
    ):
        for name, values in sides.items():
            if len(values) != length:
                raise ValueError(f"{kind} of {name!r} are invalid: {len(values)}; give {length}, as of the others")
            if not np.isfinite(np.asarray(values, float)).all():
                raise ValueError(
                    f"{kind} of {name!r} are invalid: a score is not finite; leave that one out everywhere"
                )
    if not np.isfinite(np.asarray(reached, float)).all():
        raise ValueError("reached is invalid: a number is not finite; leave that run out everywhere")
