"""Advantage estimators, and the selection of answers to train on.

Shape suffixes: G groups, N answers of a group.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from nbg_lightning.environments.episode import Episode
from nbg_lightning.losses.policy_gradient import Advantages, group_advantages
from nbg_lightning.rl.rollouts import Rollout


def leave_one_out_advantages(scores_GN: Tensor, valid_GN: Tensor) -> Advantages:
    """Advantage over the other answers of the group: ``A_i = R_i - mean_{j != i} R_j``.

    The baseline does not depend on the answer itself, so that ``A grad log p`` is an unbiased estimate of the gradient of
    the mean score (RLOO, arXiv 2402.14740, section 3.3). With n valid answers it is ``n / (n - 1) x (R_i - mean R)``.
    Uninformative groups are defined as in `group_advantages`.

    Args:
        scores_GN: score of each answer; values at invalid places are ignored, even NaN.
        valid_GN: which answers have a score.

    Example:
        >>> leave_one_out_advantages(torch.tensor([[3.0, 0.0, 0.0]]), torch.ones(1, 3, dtype=bool)).values.tolist()
        [[3.0, -1.5, -1.5]]
    """
    centred = group_advantages(scores_GN, valid_GN, scale=False)
    count_G1 = valid_GN.sum(dim=1, keepdim=True).to(centred.values.dtype)
    return Advantages(centred.values * (count_G1 / (count_G1 - 1).clamp(min=1)), centred.informative)


def turn_advantages(
    outcomes: Sequence[float],
    scores: Sequence[Sequence[float | None]],
    valid: Sequence[bool],
    weight: float,
    discount: float,
) -> list[list[float]]:
    """Advantage of each turn: ``A_it = A_i + w (G_it - mean_j G_jt)`` with ``G_it = sum_{s >= t} d^(s - t) r_is``.

    A turn is credited with its own score and those of later turns, minus the group's average from the same turn on. The
    mean runs over the valid answers that have a turn t.

    Args:
        outcomes: advantage ``A_i`` of each answer.
        scores: ``r_is`` of each turn of each answer; None counts as 0.
        valid: which answers have a score; the turns of the others have an advantage of 0.
        weight: w.
        discount: d.

    Returns:
        For each answer, one number per turn.

    Example:
        >>> turn_advantages([1.0, -1.0], [[0.5, None], [0.0]], [True, True], weight=1.0, discount=1.0)
        [[1.25, 1.0], [-1.25]]
    """
    returns: list[list[float]] = []
    for own in scores:
        found, total = [], 0.0
        for score in reversed(own):
            total = (score or 0.0) + discount * total
            found.append(total)
        returns.append(found[::-1])
    counted = [each for each, counts in zip(returns, valid, strict=True) if counts]
    longest = max(map(len, returns), default=0)
    groups = [[each[t] for each in counted if t < len(each)] for t in range(longest)]
    means = [math.fsum(group) / len(group) if group else 0.0 for group in groups]
    return [
        [outcome + weight * (each - mean) if counts else 0.0 for each, mean in zip(own, means, strict=False)]
        for outcome, own, counts in zip(outcomes, returns, valid, strict=True)
    ]


class AdvantageEstimator(ABC):
    """Assigns an advantage to every answer of a group. YAML can name your own subclass by its import path."""

    @abstractmethod
    def estimate(self, scores_GN: Tensor, valid_GN: Tensor) -> Advantages:
        """Advantages of the answers of one rank's groups; 0 for answers without a score and for uninformative groups.

        Args:
            scores_GN: score of each answer in float64, NaN if missing.
            valid_GN: which answers have a score.
        """

    def of_turns(self, rollout: Rollout, outcomes: Sequence[float]) -> tuple[tuple[float, ...], ...]:
        """Advantages of the turns of each answer of a group; empty if each turn has its answer's advantage.

        Args:
            rollout: the group, with results.
            outcomes: advantage of each answer.
        """
        return ()


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
    """``R_i`` minus the mean of the group's other answers: see `leave_one_out_advantages`."""

    def estimate(self, scores_GN: Tensor, valid_GN: Tensor) -> Advantages:
        return leave_one_out_advantages(scores_GN, valid_GN)


class TurnLevel(AdvantageEstimator):
    """Per-turn advantages: that of the outcome, plus the weighted scores that an environment gives to turns
    (`turn_advantages`).

    The score with which the environment ends an episode is the outcome, and counts only there. For single-turn answers this
    equals the outcome estimator.

    Args:
        outcome: estimator for the episodes' scores; `GroupNormalized` by default.
        weight: weight of the turns' scores relative to the outcome.
        discount: discount factor of later turns; 0 credits a turn with its own score alone.
    """

    def __init__(self, outcome: AdvantageEstimator | None = None, weight: float = 1.0, discount: float = 1.0):
        if not 0 <= weight < math.inf:
            raise ValueError(f"TurnLevel.weight is invalid: {weight}; give a number of at least 0")
        if not 0 <= discount <= 1:
            raise ValueError(f"TurnLevel.discount is invalid: {discount}; give a number from 0 to 1")
        self.outcome, self.weight, self.discount = outcome or GroupNormalized(), weight, discount

    def estimate(self, scores_GN: Tensor, valid_GN: Tensor) -> Advantages:
        return self.outcome.estimate(scores_GN, valid_GN)

    def of_turns(self, rollout: Rollout, outcomes: Sequence[float]) -> tuple[tuple[float, ...], ...]:
        episodes = [answer for answer in rollout.answers if isinstance(answer, Episode)]
        if len(episodes) < len(rollout.answers):
            return ()
        scores = [each.turn_scores if each.score is None else (*each.turn_scores[:-1], None) for each in episodes]
        valid = [result.score is not None for result in rollout.results]
        return tuple(map(tuple, turn_advantages(outcomes, scores, valid, self.weight, self.discount)))


def with_advantages(
    rollouts: Sequence[Rollout], estimator: AdvantageEstimator, mask_truncated: bool, drop_uninformative: bool
) -> list[Rollout]:
    """The rollouts with the advantages of their answers, and flags for those that are trained on.

    An answer is trained on if it has a score, except if ``mask_truncated`` is set and the length limit cut it, or if
    ``drop_uninformative`` is set and its group is uninformative. Answers that are not trained on still count in their
    group's mean.
    """
    if not rollouts:
        return []
    scores = [[math.nan if r.score is None else r.score for r in rollout.results] for rollout in rollouts]
    scores_GN = torch.tensor(scores, dtype=torch.float64)
    valid_GN = ~scores_GN.isnan()
    found = estimator.estimate(scores_GN, valid_GN)
    cut_GN = torch.tensor([[a.completion.finish_reason == "length" for a in r.answers] for r in rollouts])
    trained_GN = valid_GN & ~(cut_GN & mask_truncated)
    of_turns = [estimator.of_turns(r, values) for r, values in zip(rollouts, found.values.tolist(), strict=True)]
    if drop_uninformative:
        by_turn_G = torch.tensor([any(any(own) for own in turns) for turns in of_turns])
        trained_GN &= (found.informative | by_turn_G)[:, None]
    return [
        dataclasses.replace(rollout, advantages=tuple(values), turn_advantages=turns, trained=tuple(trained))
        for rollout, values, turns, trained in zip(
            rollouts, found.values.tolist(), of_turns, trained_GN.tolist(), strict=True
        )
    ]
