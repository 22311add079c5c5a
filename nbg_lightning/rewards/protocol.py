"""The reward protocol: groups of answers in; for each answer a score, or the reason why it has none, out."""

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
"""A reward's result for an answer: another name for a verdict."""


@dataclass(frozen=True)
class Group:
    """The answers sampled for one question."""

    question: Question
    answers: tuple[Answer, ...]


class Reward(ABC):
    """Scores answers. It owns what it starts (processes, engines): use it in a ``with`` block.

    Attributes:
        name: name in metrics: ``reward/<name>``.
    """

    name: str

    def __enter__(self) -> Reward:
        return self

    def __exit__(self, *_: object) -> None:  # noqa: B027 - most rewards hold nothing
        """Release processes and engines; called once per entering."""

    def check(self, question: Question) -> str | None:
        """Why this reward cannot score answers to this question, in one line; None if it can. Called when data is loaded."""
        return None

    def begin_step(self, step: int) -> None:  # noqa: B027 - most rewards are the same in all steps
        """Announce the training step of the next answers, before they are scored; 0 is the first."""

    @abstractmethod
    def score(self, groups: Sequence[Group]) -> Iterable[list[RewardResult]]:
        """One result for each answer of each group, in order. Never raises because of an answer's content.

        A reward that yields its groups one by one, such as an expensive judge, is not asked again for groups that it has
        yielded before an error.
        """


def score_groups(reward: Reward, groups: Sequence[Group]) -> list[list[RewardResult]]:
    """Results of all groups, one per answer; a group for which the reward raises does not cost the others their scores.

    If the reward raises, its results so far are kept, the next group is scored alone, and the following ones together
    again. A reward that returns a list has no results so far: its groups are scored one by one. Groups for which it raises
    alone, or returns the wrong number of results, are errors with the reason in their detail, and so is a score that is not
    finite.

    Args:
        reward: the reward; it must be open.
        groups: groups without answers have no results.
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
    """The results of a reward, group by group.

    Raises:
        ValueError: it returns results for another number of groups or answers.
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
