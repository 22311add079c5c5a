"""What a group of samples is worth: answers with their scores and advantages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from nbg_lightning import messages
from nbg_lightning.data.question import Question
from nbg_lightning.rewards.protocol import Group, Reward, RewardResult
from nbg_lightning.rollout.chat import Answer
from nbg_lightning.rollout.protocol import Prompt, first_line


@dataclass(frozen=True)
class Rollout:
    """The samples of one question in one step.

    Attributes:
        question: what was asked.
        prompt: as ids.
        answers: what was sampled.
        results: what each is worth; of an answer that the engine did not finish, an error.
        advantages: of each answer; 0 where its group says nothing, or it has no score.
        trained: which answers the update saw.
    """

    question: Question
    prompt: Prompt
    answers: tuple[Answer, ...]
    results: tuple[RewardResult, ...]
    advantages: tuple[float, ...] = ()
    trained: tuple[bool, ...] = ()

    @property
    def group(self) -> Group:
        """As rewards see it."""
        return Group(self.question, self.answers)

    @property
    def scores(self) -> list[float]:
        """Of the answers that have one."""
        return [result.score for result in self.results if result.score is not None]

    @property
    def zero_variance(self) -> bool:
        """Whether there is nothing to learn: all scores are equal, or fewer than two answers have one."""
        return not any(self.advantages)


def score_rollouts(reward: Reward, rollouts: Sequence[Rollout]) -> list[Rollout]:
    """The rollouts with their results. What a reward cannot judge is an error and never a wrong answer.

    Answers that the engine did not finish (a failure, or its deadline) are not shown to the reward. A reward that raises, that
    gives another number of results than there are answers, or scores that are not finite, gives errors for those answers.

    Args:
        reward: it must be open.
        rollouts: without results.
    """
    judged = [tuple(i for i, answer in enumerate(r.answers) if _complete(answer)) for r in rollouts]
    groups = [
        Group(r.question, tuple(r.answers[i] for i in places)) for r, places in zip(rollouts, judged, strict=True)
    ]
    asked = [index for index, group in enumerate(groups) if group.answers]
    given: dict[int, Sequence[RewardResult]] = {}
    problem = ""
    if asked:
        try:
            results = reward.score([groups[index] for index in asked])
            if len(results) != len(asked):
                raise ValueError(f"results for {len(results)} groups, and there are {len(asked)}")
            given = dict(zip(asked, results, strict=True))
        except Exception as error:
            problem = f"reward {reward.name!r} failed: {first_line(error)}"
            messages.warn(f"{problem}; its {len(asked)} groups are errors and are not trained")
    scored = []
    for index, (rollout, places) in enumerate(zip(rollouts, judged, strict=True)):
        of_group = _checked(reward.name, given.get(index), len(places), problem)
        found = dict(zip(places, of_group, strict=True))
        missing = (found.get(i) or _unfinished(answer) for i, answer in enumerate(rollout.answers))
        scored.append(replace(rollout, results=tuple(missing)))
    return scored


def _complete(answer: Answer) -> bool:
    return answer.completion.finish_reason in ("stop", "length")


def _unfinished(answer: Answer) -> RewardResult:
    completion = answer.completion
    if completion.finish_reason == "deadline":
        return RewardResult(None, "timeout", "the rollout deadline passed before the answer's end")
    return RewardResult(None, "error", f"engine: {completion.error or 'failed'}")


def _checked(name: str, results: Sequence[RewardResult] | None, count: int, problem: str) -> list[RewardResult]:
    """A group's results, if they can be told apart and are numbers."""
    if results is None:
        return [RewardResult(None, "error", problem or f"reward {name!r} gave no result")] * count
    if len(results) != count:
        text = f"reward {name!r} gave {len(results)} results for {count} answers"
        messages.warn(f"{text}; they are errors and are not trained")
        return [RewardResult(None, "error", text)] * count
    return [
        result
        if result.score is None or math.isfinite(result.score)
        else RewardResult(None, "error", f"reward {name!r} gave the score {result.score}")
        for result in results
    ]
