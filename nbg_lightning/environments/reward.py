"""Scores of episodes: from their environment, or from a reward if the environment gives none."""

from __future__ import annotations

from collections.abc import Sequence

from nbg_lightning.data.question import Question
from nbg_lightning.environments.episode import Episode
from nbg_lightning.rewards.protocol import Group, Reward, RewardResult, score_groups
from nbg_lightning.scoring.result import failure

_NOBODY = failure("the environment gave no score, and there is no reward: give either")


class EnvironmentReward(Reward):
    """Scores episodes by their environment; those without a score, and answers that are not episodes, are scored by a
    reward.

    Args:
        reward: receives an episode as an answer: the text of its last turn, or its transcript. Without one, an episode that
            the environment does not score is an error.
    """

    def __init__(self, reward: Reward | None = None):
        self.reward = reward
        self.name = "environment" if reward is None else reward.name

    def __enter__(self) -> EnvironmentReward:
        if self.reward is not None:
            self.reward.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        if self.reward is not None:
            self.reward.__exit__(None, None, None)

    def check(self, question: Question) -> str | None:
        return None if self.reward is None else self.reward.check(question)

    def score(self, groups: Sequence[Group]) -> list[list[RewardResult]]:
        given = [[a.verdict if isinstance(a, Episode) else None for a in group.answers] for group in groups]
        left = [
            Group(group.question, tuple(a for a, v in zip(group.answers, own, strict=True) if v is None))
            for group, own in zip(groups, given, strict=True)
        ]
        asked = [group for group in left if group.answers]
        if self.reward is None:
            results = iter([[_NOBODY] * len(group.answers) for group in asked])
        else:
            results = iter(score_groups(self.reward, asked))
        found = []
        for own in given:
            rest = iter(next(results) if None in own else ())
            found.append([next(rest) if verdict is None else verdict for verdict in own])
        return found
