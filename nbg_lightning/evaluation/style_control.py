"""Style-controlled win rates: at equal length and equal markdown (Li et al. 2024, Arena-Hard).

A logistic regression of the verdicts on differences of style: its intercept is attributed to content. Arena-Hard's
leaderboard fits all its models at once and centres the differences over them; with one model and its baseline, 0 is "looks
like the baseline", so that differences are scaled, and not centred.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np
from scipy.special import expit

from nbg_lightning.evaluation.statistics import Interval, student_t_quantile

FEATURES = ("characters", "headings", "list entries", "bold")
MAX_STYLED = 1_000_000  # characters of an answer that are looked at
# Standard deviations of what is believed before: without it the estimate is infinite where every verdict is the same.
_PRIOR = np.array([10.0, 1.0, 1.0, 1.0, 1.0])
_STEPS, _TOLERANCE = 100, 1e-10
_CODE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_MARKDOWN = (
    re.compile(r"^#{1,6} ", re.MULTILINE),
    re.compile(r"^[ \t]{0,16}(?:\d{1,9}\.|[-*+]) ", re.MULTILINE),
    re.compile(r"\*\*[^*\n]{1,400}\*\*|__[^_\n]{1,400}__"),
)


def style(text: str) -> np.ndarray:
    """`FEATURES` of an answer, float64: its length, and counts of markdown outside of fenced code.

    Example:
        >>> style("# A\\n- **b**").tolist()
        [11.0, 1.0, 1.0, 1.0]
    """
    text = text[:MAX_STYLED]
    prose = _CODE.sub("", text)
    return np.array([len(text), *(len(pattern.findall(prose)) for pattern in _MARKDOWN)], np.float64)


def style_difference(own: np.ndarray, other: np.ndarray) -> np.ndarray:
    """``(a - b) / (a + b)`` of the lengths, and ``(p - q) / (p + q + 1)`` of markdown per character (Arena-Hard's form).

    Args:
        own: `style` of one answer.
        other: of the one it is compared with.
    """
    total = own[0] + other[0]
    length = (own[0] - other[0]) / total if total else 0.0
    p, q = own[1:] / (own[0] + 1), other[1:] / (other[0] + 1)
    return np.array([length, *((p - q) / (p + q + 1))])


def controlled_win_rate(
    wins: Sequence[float],
    weights: Sequence[float],
    differences: np.ndarray,
    clusters: Sequence[int],
    confidence: float = 0.95,
) -> tuple[float, Interval]:
    """The win rate at equal style.

    ``sigmoid(b)`` of the maximum of ``sum w [y log p + (1 - y) log (1 - p)] - (b / 10)^2 / 2 - |c|^2 / 2`` with
    ``p = sigmoid(b + c . x / std(x))``; its interval uses the cluster-robust sandwich variance, with Student's t.

    Args:
        wins: result of each verdict: 1 won, 0.5 tie, 0 lost.
        weights: weight of each verdict.
        differences: [verdicts, features], see `style_difference`.
        clusters: item of each verdict.
        confidence: confidence level of the interval.

    Raises:
        ValueError: no verdict, or lengths that differ.
    """
    won, weight = np.asarray(wins, np.float64), np.asarray(weights, np.float64)
    if not len(won) or not len(won) == len(weight) == len(differences) == len(clusters):
        raise ValueError(
            f"verdicts are invalid: {len(won)}, {len(weight)}, {len(differences)}, {len(clusters)} of them; give as many of each"
        )
    spread = differences.std(axis=0)
    scaled = differences / np.where(spread > 0, spread, 1.0)
    design = np.column_stack([np.ones(len(won)), scaled])
    precision = np.diag(1 / _PRIOR[: design.shape[1]] ** 2)
    found = np.zeros(design.shape[1])
    for _ in range(_STEPS):
        share = expit(design @ found)
        gradient = design.T @ (weight * (won - share)) - precision @ found
        hessian = (design * (weight * share * (1 - share))[:, None]).T @ design + precision
        step = np.linalg.solve(hessian, gradient)
        found += step / max(1.0, float(np.abs(step).max()))  # damped: the first ones may go too far
        if np.abs(step).max() < _TOLERANCE:
            break
    names, place = np.unique(np.asarray(clusters), return_inverse=True)
    scores = np.zeros((len(names), design.shape[1]))
    np.add.at(scores, place, design * (weight * (won - expit(design @ found)))[:, None])
    inverse = np.linalg.inv(hessian)
    error = math.sqrt(float((inverse @ (scores.T @ scores + precision) @ inverse)[0, 0]))
    reach = student_t_quantile((1 + confidence) / 2, max(1.0, len(names) - 1)) * error
    return float(expit(found[0])), Interval(float(expit(found[0] - reach)), float(expit(found[0] + reach)))
