"""Estimators of advantages (how much better an answer is than others), and the choice of answers to train on.

Shape suffixes: G groups, N answers of a group.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from nbg_lightning.losses.policy_gradient import Advantages, group_advantages
from nbg_lightning.rl.rollouts import Rollout


def leave_one_out_advantages(scores_GN: Tensor, valid_GN: Tensor) -> Advantages:
    """Advantage over the other answers of the group: ``A_i = R_i - mean_{j != i} R_j``.

    The baseline does not depend on the answer itself, so that ``A grad log p`` is an unbiased estimate of the gradient of
    the mean score (RLOO, arXiv 2402.14740, section 3.3). With n valid answers it is ``n / (n - 1) x (R_i - mean R)``. Groups
    that say nothing are those of `group_advantages`.

    Args:
        scores_GN: score of each answer; what stands at invalid places does not matter, NaN neither.
        valid_GN: which answers have a score.

    Example:
        >>> leave_one_out_advantages(torch.tensor([[1.0, 0.0, 0.0]]), torch.ones(1, 3, dtype=bool)).values.tolist()
        [[1.0, -0.5, -0.5]]
    """
    centred = group_advantages(scores_GN, valid_GN, scale=False)
    count_G1 = valid_GN.sum(dim=1, keepdim=True).to(centred.values.dtype)
    return Advantages(centred.values * (count_G1 / (count_G1 - 1).clamp(min=1)), centred.informative)


class AdvantageEstimator(ABC):
    """Gives every answer of a group an advantage. A subclass of your own goes into YAML by its path."""

    @abstractmethod
    def estimate(self, scores_GN: Tensor, valid_GN: Tensor) -> Advantages:
        """Advantages of the answers of one rank's groups; 0 where an answer has no score or its group says nothing.

        Args:
            scores_GN: score of each answer in float64, NaN where it has none.
            valid_GN: which answers have a score.
        """


class GroupNormalized(AdvantageEstimator):
    """``(R - mean R) / (std R + constant)`` over the group: see `losses.policy_gradient.group_advantages`.

    Args:
        scale: divide by the standard deviation, as GRPO does and Dr. GRPO does not.
        constant: added to the standard deviation.
    """

    def __init__(self, scale: bool = True, constant: float = 1e-4):
        if not constant >= 0:
            raise ValueError(f"GroupNormalized.constant is invalid: {constant}; give a number of at least 0")
        self.scale, self.constant = scale, constant

    def estimate(self, scores_GN: Tensor, valid_GN: Tensor) -> Advantages:
        return group_advantages(scores_GN, valid_GN, self.scale, self.constant)


class LeaveOneOut(AdvantageEstimator):
    """``R_i`` less the mean of the group's other answers: see `leave_one_out_advantages`."""

    def estimate(self, scores_GN: Tensor, valid_GN: Tensor) -> Advantages:
        return leave_one_out_advantages(scores_GN, valid_GN)


def with_advantages(
    rollouts: Sequence[Rollout], estimator: AdvantageEstimator, mask_truncated: bool, drop_uninformative: bool
) -> list[Rollout]:
    """The rollouts with the advantages of their answers, and which of these are trained.

    An answer is trained if it has a score, unless ``mask_truncated`` and the length limit cut it, or ``drop_uninformative``
    and its group says nothing. Answers that are not trained count in their group's mean all the same.
    """
    if not rollouts:
        return []
    scores = [[math.nan if r.score is None else r.score for r in rollout.results] for rollout in rollouts]
    scores_GN = torch.tensor(scores, dtype=torch.float64)
    valid_GN = ~scores_GN.isnan()
    found = estimator.estimate(scores_GN, valid_GN)
    cut_GN = torch.tensor([[a.completion.finish_reason == "length" for a in r.answers] for r in rollouts])
    trained_GN = valid_GN & ~(cut_GN & mask_truncated)
    if drop_uninformative:
        trained_GN &= found.informative[:, None]
    return [
        dataclasses.replace(rollout, advantages=tuple(values), trained=tuple(trained))
        for rollout, values, trained in zip(rollouts, found.values.tolist(), trained_GN.tolist(), strict=True)
    ]
