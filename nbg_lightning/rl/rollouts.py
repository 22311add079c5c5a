"""Rollouts: groups of answers with their scores and advantages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from nbg_lightning import log
from nbg_lightning.data.question import Question
from nbg_lightning.engines.chat import Answer
from nbg_lightning.engines.protocol import OUT_OF_SECONDS, Prompt
from nbg_lightning.environments.episode import Episode
from nbg_lightning.rewards.protocol import Group, Reward, RewardResult, score_groups


@dataclass(frozen=True)
class Rollout:
    """The sampled answers to one question in one step.

    Attributes:
        question: the question.
        prompt: token ids of the prompt.
        answers: the answers.
        results: result of each answer; an error if the engine did not finish it.
        advantages: advantage of each answer; 0 if its group is uninformative or it has no score.
        trained: which answers are used in the update.
        turn_advantages: advantage of each turn of each answer; empty if each turn has its answer's.
        step: the step that trains on them, if it may differ from that of the weights that sampled them; else None.
        asked: the step whose batch contains the question, if the question was carried over to ``step``; None if it is
            ``step``.
    """

    question: Question
    prompt: Prompt
    answers: tuple[Answer, ...]
    results: tuple[RewardResult, ...]
    advantages: tuple[float, ...] = ()
    trained: tuple[bool, ...] = ()
    turn_advantages: tuple[tuple[float, ...], ...] = ()
    step: int | None = None
    asked: int | None = None

    @property
    def is_carried(self) -> bool:
        """Whether part of it was sampled for an earlier step."""
        return self.step is not None and self.asked is not None and self.asked < self.step

    @property
    def group(self) -> Group:
        """The rollout as input of rewards."""
        return Group(self.question, self.answers)

    @property
    def scores(self) -> list[float]:
        """Scores of the answers that have one."""
        return [result.score for result in self.results if result.score is not None]

    @property
    def zero_variance(self) -> bool:
        """Whether the group is uninformative: all scores are equal, or fewer than two answers have one."""
        return not any(self.advantages) and not any(map(any, self.turn_advantages))


def score_rollouts(reward: Reward, rollouts: Sequence[Rollout]) -> list[Rollout]:
    """The rollouts with their results. An answer that a reward fails to judge is an error, never a wrong answer.

    Answers that the engine did not finish (a failure, or its deadline) are not passed to the reward. A group for which the
    reward raises is an error, and does not affect the others (`rewards.protocol.score_groups`).

    Args:
        reward: the reward; it must be open.
        rollouts: rollouts without results.
    """
    judged = [tuple(i for i, answer in enumerate(r.answers) if _complete(answer)) for r in rollouts]
    groups = [
        Group(r.question, tuple(r.answers[i] for i in places)) for r, places in zip(rollouts, judged, strict=True)
    ]
    asked = [index for index, group in enumerate(groups) if group.answers]
    given = dict(zip(asked, score_groups(reward, [groups[index] for index in asked]), strict=True))
    raised = f"reward {reward.name!r} failed: "
    failed = [own[0].detail for own in given.values() if all(each.detail.startswith(raised) for each in own)]
    if failed:
        log.warn(f"{failed[0]}; {len(failed)} of {len(asked)} groups are errors and are not trained")
    scored = []
    for index, (rollout, places) in enumerate(zip(rollouts, judged, strict=True)):
        found = dict(zip(places, given.get(index, ()), strict=True))
        missing = (found.get(i) or _unfinished(answer) for i, answer in enumerate(rollout.answers))
        scored.append(replace(rollout, results=tuple(missing)))
    return scored


def _complete(answer: Answer) -> bool:
    return answer.completion.finish_reason in ("stop", "length")


def _unfinished(answer: Answer) -> RewardResult:
    completion = answer.completion
    if isinstance(answer, Episode) and answer.verdict is not None:
        return answer.verdict
    if completion.finish_reason == "budget":
        return RewardResult(None, "timeout", "the token budget of its step was used up before the answer's end")
    if completion.finish_reason == "deadline":
        passed = (
            "the rollout deadline passed" if completion.error != OUT_OF_SECONDS else "its question's deadline passed"
        )
        return RewardResult(None, "timeout", f"{passed} before the answer's end")
    return RewardResult(None, "error", f"engine: {completion.error or 'failed'}")
