"""What rewards take and give: groups of answers in, a score or a reason for having none out."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from nbg_lightning.data.question import Question
from nbg_lightning.engines.chat import Answer
from nbg_lightning.error_line import first_line
from nbg_lightning.scoring.result import Verdict

RewardResult = Verdict
"""What a reward gives for an answer is a verdict, under the name that rewards have for it."""


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

    def begin_step(self, step: int) -> None:  # noqa: B027 - most rewards are the same in all steps
        """Say which step of training the next answers are of, before they are scored; 0 is the first."""

    @abstractmethod
    def score(self, groups: Sequence[Group]) -> Iterable[list[RewardResult]]:
        """One result for each answer of each group, in order. Never raises for what an answer holds.

        One that yields a group after another, such as an expensive judge, is not asked again for those that it has answered
        before an error.
        """


def score_groups(reward: Reward, groups: Sequence[Group]) -> list[list[RewardResult]]:
    """Results of all groups, one for each answer: a group for which the reward raises costs no other its scores.

    Where the reward raises, what it had given is kept, the next group is asked alone, and those behind it together again. One
    that returns a list had given nothing: it is asked group by group. Groups for which it raises alone, or gives results of
    another number, are errors with the reason in their detail, and so is a score that is not finite.

    Args:
        reward: it must be open.
        groups: groups without an answer have no results.
    """
    done: list[list[RewardResult]] = []
    alone = one_by_one = False
    while len(done) < len(groups):
        begin = len(done)
        asked = groups[begin : begin + 1] if alone or one_by_one else groups[begin:]
        alone = False
        try:
            for own in _results(reward, asked):
                done.append(own)
        except Exception as error:
            if len(asked) == 1:
                failed = RewardResult(None, "error", f"reward {reward.name!r} failed: {first_line(error)}")
                done[begin:] = [[failed] * len(asked[0].answers)]
            elif begin < len(done) < begin + len(asked):
                alone = True
            else:
                del done[begin:]
                one_by_one = True
    return done


def _results(reward: Reward, groups: Sequence[Group]) -> Iterator[list[RewardResult]]:
    """What a reward gives, group after group.

    Raises:
        ValueError: it gives results for another number of groups or answers.
    """
    given = reward.score(groups)
    if isinstance(given, Sequence) and len(given) != len(groups):
        raise ValueError(f"it gave results for {len(given)} groups, and there are {len(groups)}")
    for own, group in zip(given, groups, strict=True):
        if len(own) != len(group.answers):
            raise ValueError(f"it gave {len(own)} results for {len(group.answers)} answers")
        yield [_finite(reward.name, result) for result in own]


def _finite(name: str, result: RewardResult) -> RewardResult:
    if result.score is None or math.isfinite(result.score):
        return result
    return RewardResult(None, "error", f"reward {name!r} gave the score {result.score}")
