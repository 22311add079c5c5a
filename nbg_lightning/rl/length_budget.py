"""A reward that shortens correct answers: every question has a token budget, derived from earlier correct answers to it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from nbg_lightning import log
from nbg_lightning.data.question import Question
from nbg_lightning.rewards.length import answer_length
from nbg_lightning.rewards.protocol import Group, Reward, RewardResult, score_groups
from nbg_lightning.rl.pass_rate.ledger import PassRateLedger


def budget_penalty(length: int, budget: float, max_tokens: int) -> float:
    """``clip((length - budget) / (max_tokens - budget), 0, 1)``; 0 for a budget that no answer can exceed.

    Example:
        >>> [budget_penalty(length, 20, 100) for length in (10, 20, 60, 100, 200)]
        [0.0, 0.0, 0.5, 1.0, 1.0]
    """
    if budget >= max_tokens:
        return 0.0
    return min(1.0, max(0.0, (length - budget) / (max_tokens - budget)))


class LengthBudgetReward(Reward):
    r"""Another reward, minus a penalty for exceeding the question's token budget.

    .. math:: r - \alpha \, p_q \, \mathrm{clip}((L - b_q) / (L_{max} - b_q), 0, 1)

    The budget :math:`b_q` is the median length of earlier correct answers to the question, recorded in the ledger of `nbg
    pass-rate`; :math:`p_q` is the share of correct answers in the group, so that reasoning about questions that are not
    solved yet may have any length. With :math:`\alpha < 1` a correct answer of any length scores higher than every wrong
    one. A question without an earlier correct answer has no budget and no penalty.

    Phases: ``constrained_steps`` with the penalty, then ``free_steps`` without, and again; 0 free steps is always
    constrained. They depend on the step of the run, so that a resumed run continues in the same phase.

    An answer is correct if it has `RewardResult.passed`, or a score of 1, before the penalty; pass rates in metrics use the
    same rule.

    Args:
        reward: r.
        ledger: file written by `nbg pass-rate`; it must exist when the reward is opened. `nbg pass-rate` on a config with
            this reward measures with ``reward`` alone.
        max_tokens: :math:`L_{max}`, the module's ``max_new_tokens``.
        alpha: weight of the penalty, between 0 and 1.
        quantile: quantile of the correct answers' lengths that is the budget; 0.5 is the median.
        least_budget: lower bound of all budgets: the tokens that the answer's format takes.
        constrained_steps: length of the phases with the penalty.
        free_steps: length of the phases without it.
        name: name in metrics.

    Raises:
        ValueError: an invalid setting; on entering, a ledger without lengths.
        FileNotFoundError: on entering, there is no ledger.
    """

    def __init__(
        self,
        reward: Reward,
        ledger: str,
        max_tokens: int,
        alpha: float = 0.5,
        quantile: float = 0.5,
        least_budget: int = 1,
        constrained_steps: int = 1,
        free_steps: int = 0,
        name: str = "length_budget",
    ):
        if not 0 < alpha < 1:
            raise ValueError(
                f"alpha is invalid: {alpha}; give a number between 0 and 1, else long right answers are worth wrong ones"
            )
        if not 0 <= quantile <= 1:
            raise ValueError(f"quantile is invalid: {quantile}; give a share from 0 to 1")
        if not 1 <= least_budget < max_tokens:
            raise ValueError(
                f"least_budget is invalid: {least_budget}; give at least 1, and less than max_tokens={max_tokens}"
            )
        if constrained_steps < 1 or free_steps < 0:
            raise ValueError(
                f"constrained_steps and free_steps are invalid: {constrained_steps}, {free_steps}; give at least 1 and 0"
            )
        self.reward, self.ledger, self.max_tokens, self.alpha = reward, ledger, max_tokens, alpha
        self.quantile, self.least_budget, self.name = quantile, least_budget, name
        self.constrained_steps, self.free_steps = constrained_steps, free_steps
        self.budgets: dict[str, float] = {}
        self.constrained = True

    def __enter__(self) -> LengthBudgetReward:
        ledger = PassRateLedger.load(self.ledger)
        lengths = {row.key: row.right_lengths for row in ledger if row.right_lengths}
        if not lengths and any(row.passes for row in ledger):
            raise ValueError(
                f"{self.ledger} has no lengths of right answers: it was written by an earlier version; make it again by "
                "`nbg pass-rate CONFIG`"
            )
        self.budgets = {
            key: max(float(np.quantile(of_question, self.quantile)), self.least_budget)
            for key, of_question in lengths.items()
        }
        above = sum(budget >= self.max_tokens for budget in self.budgets.values())
        log.info(
            f"length budgets of {len(self.budgets):,} of {len(ledger):,} questions, the others have no right answer"
            + (f"; {above:,} are not below max_tokens={self.max_tokens:,} and bound nothing" if above else "")
        )
        self.reward.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.reward.__exit__(*error)

    def check(self, question: Question) -> str | None:
        return self.reward.check(question)

    def begin_step(self, step: int) -> None:
        self.reward.begin_step(step)
        self.constrained = step % (self.constrained_steps + self.free_steps) < self.constrained_steps

    def score(self, groups: Sequence[Group]) -> list[list[RewardResult]]:
        found = score_groups(self.reward, groups)
        return [self._penalized(group, results) for group, results in zip(groups, found, strict=True)]

    def _penalized(self, group: Group, results: list[RewardResult]) -> list[RewardResult]:
        """The results of a group with the penalty subtracted; failures are unchanged."""
        right = [result.is_right for result in results if result.score is not None]
        budget = self.budgets.get(group.question.key)
        weight = self.alpha * sum(right) / max(1, len(right))
        changed = []
        for answer, result in zip(group.answers, results, strict=True):
            if result.score is None:
                changed.append(result)
                continue
            score, detail = result.score, result.detail
            if budget is not None and self.constrained:
                length = answer_length(answer)
                penalty = weight * budget_penalty(length, budget, self.max_tokens)
                score -= penalty
                said = f"{length} tokens of a budget of {budget:g} cost {penalty:.3g}"
                detail = f"{detail}; {said}" if detail else said
            changed.append(dataclasses.replace(result, score=score, detail=detail, passed=result.is_right))
        return changed
