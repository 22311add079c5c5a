"""The verifiers of reasoning-gym as a reward."""

from __future__ import annotations

from collections.abc import Sequence

from nbg_lightning.data.question import Question
from nbg_lightning.rewards.protocol import Group, Reward, RewardResult
from nbg_lightning.scoring.pool import VerifierPool
from nbg_lightning.scoring.verdicts import extract_answer

# Of version 0.1.25: the first gives 1.0 to any text, the second makes other items each time, so that its check is of another.
UNFIT = {
    "game_of_life_halting": "its checker accepts any text",
    "coin_flip": "its checker gives full marks to 0 for any probability below 1",
    "codeio": "its items differ from one making to the next",
}


class ReasoningGymReward(Reward):
    """The score, 0 to 1, of the task's own verifier for the answer in ``<answer>``, else the last box, else after "Answer:".

    Questions carry ``task``, ``entry`` and ``config`` in their data, as `ReasoningGymQuestions` provides them. Some
    verifiers evaluate their input, raise, or take long: they run in the sandbox, with fresh state for each answer. An
    answer that cannot be verified, or is a program, scores 0 with a reason; an answer to an entry whose own gold answer the
    verifier rejects has no score.

    Args:
        all_or_nothing: 1 for full marks, else 0. Some verifiers give partial credit to any text.
        deadline: seconds per answer.
        workers: worker processes; defaults to the number of processors.
        name: name in metrics.

    Raises:
        RuntimeError: on entering, if the sandbox is unavailable, with instructions.
    """

    def __init__(
        self,
        all_or_nothing: bool = False,
        deadline: float = 5.0,
        workers: int | None = None,
        name: str = "reasoning_gym",
    ):
        self.name, self.all_or_nothing = name, all_or_nothing
        self.pool = VerifierPool(workers, deadline)

    def __enter__(self) -> ReasoningGymReward:
        self.pool.check_isolation("reasoning_gym")
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.close()

    def check(self, question: Question) -> str | None:
        missing = [key for key in ("task", "entry") if not question.data.get(key)]
        if missing:
            return f"data has no {' and no '.join(missing)} of reasoning-gym"
        task = question.data["task"]
        return f"task {task!r}: {UNFIT[task]}" if task in UNFIT else None

    def score(self, groups: Sequence[Group]) -> list[list[RewardResult]]:
        results: list[list[RewardResult | None]] = [[None] * len(group.answers) for group in groups]
        places, calls = [], []
        for row, group in enumerate(groups):
            problem = self.check(group.question)
            data = group.question.data
            for column, answer in enumerate(group.answers):
                found = "" if answer.final is None else extract_answer(answer.final)
                if problem is not None:
                    results[row][column] = RewardResult(None, "error", problem)
                elif answer.final is None:
                    results[row][column] = RewardResult(0.0, detail="the reasoning has no end", parsed=False)
                elif not found:
                    results[row][column] = RewardResult(0.0, detail="no answer found", parsed=False)
                else:
                    places.append((row, column, found))
                    calls.append((data["task"], dict(data.get("config") or {}), data["entry"], found))
        for (row, column, found), outcome in zip(places, self.pool.map("reasoning_gym", calls), strict=True):
            if outcome.status != "ok":
                results[row][column] = RewardResult(None, outcome.status, outcome.detail)
                continue
            score = float(outcome.value >= 1.0) if self.all_or_nothing else outcome.value
            results[row][column] = RewardResult(score, detail=f"{found[:80]}: {outcome.detail}".removesuffix(": "))
        return [[result for result in row if result is not None] for row in results]
