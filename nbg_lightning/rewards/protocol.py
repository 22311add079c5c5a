"""What rewards take and give: groups of answers in, a score or a reason for having none out."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from nbg_lightning.data.question import Question
from nbg_lightning.engines.chat import Answer
from nbg_lightning.engines.protocol import first_line
from nbg_lightning.scoring.result import Status


@dataclass(frozen=True)
class RewardResult:
    """What one answer is worth.

    Attributes:
        score: 0 to 1 for verifiers; any finite number for other rewards; None unless the status is ``ok``.
        status: see `Status`.
        detail: why, in one line: for logs and sample tables.
        parsed: whether an answer was found in the text at all.
    """

    score: float | None
    status: Status = "ok"
    detail: str = ""
    parsed: bool = True

    def __post_init__(self) -> None:
        if (self.score is None) == (self.status == "ok"):
            raise ValueError(f"RewardResult: score {self.score} with status {self.status!r}; only ok has a score")


@dataclass(frozen=True)
class Group:
    """The answers that were drawn to one question."""

    question: Question
    answers: tuple[Answer, ...]


class Reward(ABC):
    """Scores answers. It owns what it starts (processes, engines): use it in a ``with`` block.

    Attributes:
        name: in metrics: ``reward/<name>``.
    """

    name: str

    def __enter__(self) -> Reward:
        return self

    def __exit__(self, *_: object) -> None:  # noqa: B027 - most rewards hold nothing
        """Release processes and engines; called once for each time it was entered."""

    def check(self, question: Question) -> str | None:
        """Why this reward cannot score answers to this question, in one line; None if it can. Called when data is loaded."""
        return None

    @abstractmethod
    def score(self, groups: Sequence[Group]) -> list[list[RewardResult]]:
        """One result for each answer of each group, in order. Never raises for what an answer holds."""


def score_groups(reward: Reward, groups: Sequence[Group]) -> list[list[RewardResult]]:
    """Results of all groups, one for each answer: a group for which the reward raises costs no other its scores.

    Where the reward raises for all groups together, or gives results of another number, it is asked group by group; those for
    which it still does are errors, with the reason in their detail. A score that is not finite is an error too.

    Args:
        reward: it must be open.
        groups: groups without an answer have no results.
    """
    try:
        return _results(reward, groups)
    except Exception as error:
        if len(groups) == 1:
            detail = f"reward {reward.name!r} failed: {first_line(error)}"
            return [[RewardResult(None, "error", detail)] * len(groups[0].answers)]
    return [score_groups(reward, [group])[0] for group in groups]


def _results(reward: Reward, groups: Sequence[Group]) -> list[list[RewardResult]]:
    """What a reward gives.

    Raises:
        ValueError: it gives results for another number of groups or answers.
    """
    results = reward.score(groups) if groups else []
    if len(results) != len(groups):
        raise ValueError(f"it gave results for {len(results)} groups, and there are {len(groups)}")
    for own, group in zip(results, groups, strict=True):
        if len(own) != len(group.answers):
            raise ValueError(f"it gave {len(own)} results for {len(group.answers)} answers")
    return [[_finite(reward.name, result) for result in own] for own in results]


def _finite(name: str, result: RewardResult) -> RewardResult:
    if result.score is None or math.isfinite(result.score):
        return result
    return RewardResult(None, "error", f"reward {name!r} gave the score {result.score}")
