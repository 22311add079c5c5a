"""Several rewards as one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack

from nbg_lightning.data.question import Question
from nbg_lightning.rewards.protocol import Group, Reward, RewardResult, score_groups


class CombinedReward(Reward):
    r"""The weighted sum :math:`\sum_i w_i r_i` of several rewards.

    An answer that any of them cannot score has no score, since a partial sum would be a different reward.

    Args:
        rewards: the rewards.
        weights: weight of each reward, in the same order; 1 by default.
        name: name in metrics.

    Raises:
        ValueError: no rewards, a different number of weights, or a weight that is not finite.
    """

    def __init__(self, rewards: list[Reward], weights: list[float] | None = None, name: str = "combined"):
        weights = [1.0] * len(rewards) if weights is None else list(weights)
        if not rewards or len(weights) != len(rewards):
            raise ValueError(
                f"weights is invalid: {len(weights)} of them for {len(rewards)} rewards; give one for each reward, and a reward"
            )
        if not all(math.isfinite(weight) for weight in weights) or not any(weights):
            raise ValueError(f"weights is invalid: {weights}; give finite numbers that are not all 0")
        self.name, self.rewards, self.weights = name, list(rewards), weights
        self._open = ExitStack()

    def __enter__(self) -> CombinedReward:
        with ExitStack() as stack:
            for reward in self.rewards:
                stack.enter_context(reward)
            self._open = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def check(self, question: Question) -> str | None:
        reasons = [(reward.name, reward.check(question)) for reward in self.rewards]
        return next((f"{name}: {reason}" for name, reason in reasons if reason is not None), None)

    def begin_step(self, step: int) -> None:
        for reward in self.rewards:
            reward.begin_step(step)

    def score(self, groups: Sequence[Group]) -> list[list[RewardResult]]:
        parts = [score_groups(reward, groups) for reward in self.rewards]
        return [
            [self._sum([part[row][column] for part in parts]) for column in range(len(group.answers))]
            for row, group in enumerate(groups)
        ]

    def _sum(self, results: Sequence[RewardResult]) -> RewardResult:
        for reward, result in zip(self.rewards, results, strict=True):
            if result.score is None:
                return RewardResult(None, result.status, f"{reward.name}: {result.detail}")
        scores = [result.score for result in results if result.score is not None]
        said = ", ".join(
            f"{reward.name} {score:g}" + (f" ({result.detail})" if result.detail else "")
            for reward, score, result in zip(self.rewards, scores, results, strict=True)
        )
        total = sum(weight * score for weight, score in zip(self.weights, scores, strict=True))
        return RewardResult(total, detail=said, parsed=all(result.parsed for result in results))
