"""Losses of a reward model, as functions of its scores.

Shape suffixes: P pairs, N answers. Nothing is reduced: the caller sums and divides by the number of pairs of the whole step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

RewardLossKind = Literal["bradley_terry", "pointwise"]


@dataclass(frozen=True)
class RewardLoss:
    """The kind of loss on a pair's scores, r+ of the chosen and r- of the rejected answer.

    * ``bradley_terry``: ``-(1 - s) log sigmoid(r+ - r-) - s log sigmoid(r- - r+)`` with the label smoothing s: the
      probability that the chosen answer wins (Bradley and Terry 1952; InstructGPT, arXiv 2203.02155, equation 1). Only
      differences matter: scores are determined up to a constant per prompt.
    * ``pointwise``: ``-((1 - s) log sigmoid(r+) + s log sigmoid(-r+) + (1 - s) log sigmoid(-r-) + s log sigmoid(r-)) / 2``:
      each answer separately, good or bad, so that sigmoid(r) is the probability that an answer is good (the verifier of
      Cobbe et al., arXiv 2110.14168).

    ``center (r+ + r-)^2`` is added, which keeps the sum of a pair's scores, undetermined under Bradley-Terry, near 0
    (Eisenstein et al., arXiv 2312.09244, equation 2).

    Attributes:
        kind: one of these.
        label_smoothing: assumed probability that a pair is mislabelled, below 0.5.
        center: weight of this term.

    Raises:
        ValueError: an unknown kind, or a number out of range.
    """

    kind: RewardLossKind = "bradley_terry"
    label_smoothing: float = 0.0
    center: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in get_args(RewardLossKind):
            raise ValueError(f"loss is invalid: {self.kind!r}; choose {' or '.join(get_args(RewardLossKind))}")
        if not 0 <= self.label_smoothing < 0.5:
            raise ValueError(f"label_smoothing is invalid: {self.label_smoothing}; give at least 0 and less than 0.5")
        if not (math.isfinite(self.center) and self.center >= 0):
            raise ValueError(f"center is invalid: {self.center}; give a finite number of at least 0")


def reward_loss(chosen_P: Tensor, rejected_P: Tensor, loss: RewardLoss) -> Tensor:
    """Loss of each pair.

    Args:
        chosen_P: scores of the chosen answers.
        rejected_P: those of the rejected ones.
        loss: which.

    Returns:
        ``[P]``.

    Example:
        >>> even = torch.zeros(1)
        >>> round(reward_loss(even, even, RewardLoss()).item(), 4)  # log 2
        0.6931
    """
    if loss.kind == "bradley_terry":
        values = good_or_bad(chosen_P - rejected_P, 1 - loss.label_smoothing)
    else:
        good, bad = 1 - loss.label_smoothing, loss.label_smoothing
        values = (good_or_bad(chosen_P, good) + good_or_bad(rejected_P, bad)) / 2
    return values + loss.center * (chosen_P + rejected_P) ** 2 if loss.center else values


def good_or_bad(scores_N: Tensor, good: Tensor | float) -> Tensor:
    """``-(g log sigmoid(r) + (1 - g) log sigmoid(-r))``: cross-entropy of each score r as log-odds, with probability g.

    Args:
        scores_N: scores.
        good: g, the probability that the answer is good: 1 or 0 for a label, in between for a grade.
    """
    return -(good * F.logsigmoid(scores_N) + (1 - good) * F.logsigmoid(-scores_N))


def win_probability(chosen_P: Tensor, rejected_P: Tensor) -> Tensor:
    """``sigmoid(r+ - r-)``: how likely the scores make it that the chosen answer is the better one ``[P]``.

    Example:
        >>> win_probability(torch.zeros(1), torch.zeros(1)).item()
        0.5
    """
    return torch.sigmoid(chosen_P - rejected_P)
