"""A user-defined function as a reward."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

from nbg_lightning.import_path import import_object
from nbg_lightning.rewards.protocol import Group, Reward, RewardResult
from nbg_lightning.scoring.pool import Outcome, VerifierPool


class FunctionReward(Reward):
    """Scores answers with a Python function.

    The function has the signature ``(question: dict, answers: list[str]) -> list[float]``: a question, as in
    `Question.to_dict`, with its sampled answers. It is trusted: it runs with your permissions, in a worker process without
    GPUs, so that it may hang or crash. With ``sandbox`` it runs in the sandbox, with fresh state for each question, without
    child processes, network or files of its own: use this for functions that evaluate model output.

    If it raises, hangs, or returns the wrong number of scores, the answers to that question have no score; neither has an
    answer whose score is None or not finite.

    Args:
        function: import path, ``package.module.function``; the working directory is on the path.
        text: the part of an answer that the function receives: the text after the reasoning, or everything. If the
            reasoning of an answer has no end, no text follows it, and its score is 0.
        deadline: seconds for the answers to one question.
        workers: worker processes; defaults to the number of processors.
        sandbox: run it in the sandbox, where it can read its own module, or the package that contains it.
        packages: installed packages that it may import there in addition to the standard library, such as ``numpy``.
        name: name in metrics.

    Raises:
        ValueError: packages without ``sandbox``; on entering, a function that cannot be imported or called.
        RuntimeError: on entering, if ``sandbox`` is set but unavailable, with instructions.
    """

    def __init__(
        self,
        function: str,
        text: Literal["final", "all"] = "final",
        deadline: float = 10.0,
        workers: int | None = None,
        sandbox: bool = False,
        packages: Sequence[str] = (),
        name: str = "",
    ):
        if text not in ("final", "all"):
            raise ValueError(f"text is invalid: {text!r}; choose final or all")
        self.name = name or function.replace(":", ".").rpartition(".")[2]
        if packages and not sandbox:
            raise ValueError(
                f"packages is invalid: {list(packages)} without a sandbox; set sandbox to true, or remove them"
            )
        self.function, self.text, self.sandbox = function, text, sandbox
        self.kind = f"sandboxed function {function}" if sandbox else f"function {function}"
        self.pool = VerifierPool(workers, deadline, packages=packages)

    def __enter__(self) -> FunctionReward:
        if self.sandbox:
            self.pool.check_isolation(self.kind)
            return self
        if not callable(import_object(self.function)):
            raise ValueError(f"function is invalid: {self.function!r} is no function; name one by package.module.name")
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.close()

    def score(self, groups: Sequence[Group]) -> list[list[RewardResult]]:
        shown = [[answer.text if self.text == "all" else answer.final for answer in group.answers] for group in groups]
        calls = [
            (group.question.to_dict(), [text for text in texts if text is not None])
            for group, texts in zip(groups, shown, strict=True)
        ]
        asked = [place for place, (_, texts) in enumerate(calls) if texts]
        outcomes = self.pool.map(self.kind, [calls[place] for place in asked])
        by_place = dict(zip(asked, outcomes, strict=True))
        return [self._results(texts, by_place.get(place)) for place, texts in enumerate(shown)]

    def _results(self, texts: Sequence[str | None], outcome: Outcome | None) -> list[RewardResult]:
        scores = iter(() if outcome is None else self._scores(outcome, sum(text is not None for text in texts)))
        return [
            RewardResult(0.0, detail="the reasoning has no end", parsed=False) if text is None else next(scores)
            for text in texts
        ]

    def _scores(self, outcome: Outcome, count: int) -> list[RewardResult]:
        if outcome.status != "ok":
            return [RewardResult(None, outcome.status, outcome.detail)] * count
        try:
            scores = list(outcome.value)
        except TypeError:
            return [RewardResult(None, "error", f"{self.function} gave no list of scores")] * count
        if len(scores) != count:
            problem = f"{self.function} gave {len(scores)} scores for {count} answers"
            return [RewardResult(None, "error", problem)] * count
        return [self._one(score) for score in scores]

    def _one(self, score: Any) -> RewardResult:
        try:
            value = float(score)
        except (TypeError, ValueError):
            return RewardResult(None, "error", f"{self.function} gave the score {str(score)[:40]!r}, no number")
        if not math.isfinite(value):
            return RewardResult(None, "error", f"{self.function} gave the score {value}")
        return RewardResult(value)
