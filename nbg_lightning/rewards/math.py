"""Right or wrong answers to mathematical questions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from nbg_lightning.data.question import Question
from nbg_lightning.evaluation.scorers import boxed, compare_at_once, find_expression, find_number, number, plain_latex
from nbg_lightning.rewards.pool import Outcome, VerifierPool
from nbg_lightning.rewards.protocol import Group, Reward, RewardResult
from nbg_lightning.rewards.symbolic import SymbolicCheck

Find = Literal["boxed", "announced", "number"]
"""Where an answer is looked for: in the last ``\\boxed{}`` only; else also after "the answer is" and in the last formula;
else also as the last number of the text."""


_WORDS = re.compile(r"(?:\\text\{)?[\w\s.,:;'()/-]+\}?")  # compared as text


class MathReward(Reward):
    """1 for an answer that equals `Question.answer`, else 0.

    Answers are compared as texts, as exact numbers, and then by math-verify, which knows fractions, sets, intervals,
    matrices and equations, in worker processes with a wall clock. With ``last_resort``, what math-verify does not find equal
    is evaluated by sympy in the sandbox: answers written as Python (``2**10``, ``sqrt(2)/2``), and forms that are equal for
    all values but not symbolically.

    Only the text after the reasoning counts; an answer without an end to its reasoning, or without an answer, has 0.

    Args:
        find: see `Find`.
        last_resort: evaluate with sympy in the sandbox, which must be available; a second for each such answer.
        deadline: seconds for a comparison.
        workers: worker processes; by default as many as there are processors.
        name: in metrics.

    Raises:
        RuntimeError: when it is entered with ``last_resort`` where there is no sandbox.
    """

    def __init__(
        self,
        find: Find = "announced",
        last_resort: bool = False,
        deadline: float = 5.0,
        workers: int | None = None,
        name: str = "math",
    ):
        if find not in ("boxed", "announced", "number"):
            raise ValueError(f"MathReward: find={find!r} must be boxed, announced or number")
        self.name, self.find = name, find
        self.pool = VerifierPool(workers, deadline)
        self.symbolic = SymbolicCheck(workers=workers) if last_resort else None

    def __enter__(self) -> MathReward:
        if self.symbolic is not None:
            self.symbolic.sandbox.probe()
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.close()
        if self.symbolic is not None:
            self.symbolic.sandbox.close()

    def check(self, question: Question) -> str | None:
        if question.answer is None or not question.answer.strip():
            return "there is no gold answer"
        gold = gold_expression(question.answer)
        if number(gold) is not None or _WORDS.fullmatch(question.answer.strip()):
            return None
        outcome = self.pool.map("math", [(gold, None)])[0]
        if outcome.status != "ok":
            return f"the gold answer {gold[:60]!r} cannot be parsed ({outcome.detail})"
        return None if outcome.value else f"the gold answer {gold[:60]!r} cannot be parsed"

    def score(self, groups: Sequence[Group]) -> list[list[RewardResult]]:
        results: list[list[RewardResult | None]] = []
        hard: list[tuple[int, int, str, str]] = []
        for row, group in enumerate(groups):
            gold = gold_expression(group.question.answer or "")
            results.append([])
            for column, answer in enumerate(group.answers):
                result, found = self._at_once(gold, answer.final)
                results[-1].append(result)
                if result is None:
                    hard.append((row, column, gold, found))
        for (row, column, _, _), result in zip(hard, self._compared(hard), strict=True):
            results[row][column] = result
        return [[result for result in row if result is not None] for row in results]

    def _at_once(self, gold: str, text: str | None) -> tuple[RewardResult | None, str]:
        if not gold:
            return RewardResult(None, "error", "there is no gold answer"), ""
        if text is None:
            return RewardResult(0.0, detail="the reasoning has no end", parsed=False), ""
        found = find_in(text, self.find)
        if found is None:
            return RewardResult(0.0, detail="no answer found", parsed=False), ""
        found = plain_latex(found)
        verdict = compare_at_once(found, gold)
        if verdict is None:
            return None, found
        return RewardResult(verdict.score, detail=_said(found, gold)), found

    def _compared(self, hard: Sequence[tuple[int, int, str, str]]) -> list[RewardResult]:
        pairs = [(gold, found) for _, _, gold, found in hard]
        outcomes = self.pool.map("math", pairs)
        if self.symbolic is not None:
            places = [place for place, outcome in enumerate(outcomes) if not outcome.value]
            settled = self.symbolic.compare([pairs[place] for place in places])
            for place, outcome in zip(places, settled, strict=True):
                if outcome.status == "ok" or outcomes[place].status != "ok":
                    outcomes[place] = outcome
        return [self._result(outcome, *pair) for outcome, pair in zip(outcomes, pairs, strict=True)]

    @staticmethod
    def _result(outcome: Outcome, gold: str, found: str) -> RewardResult:
        if outcome.status != "ok":
            return RewardResult(None, outcome.status, outcome.detail)
        return RewardResult(float(outcome.value), detail=_said(found, gold))


def gold_expression(answer: str) -> str:
    """A gold answer as it is compared: the last box, or what follows ``####``, or the whole."""
    inside = boxed(answer)
    if inside is None:
        inside = answer.rsplit("####", maxsplit=1)[-1]
    return plain_latex(inside)


def find_in(text: str, find: Find) -> str | None:
    """A text's answer; see `Find`."""
    if find == "boxed":
        return boxed(text)
    found = find_expression(text)
    if found is None and find == "number":
        value = find_number(text)
        found = None if value is None else str(value)
    return found


def _said(found: str, gold: str) -> str:
    return f"{found[:80]} for {gold[:80]}"
