"""Reward for correct answers to mathematical questions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from nbg_lightning.data.golds import LETTERS, Choices, right_choice
from nbg_lightning.data.question import Question
from nbg_lightning.rewards.protocol import Group, Reward, RewardResult
from nbg_lightning.scoring.boxes import boxed
from nbg_lightning.scoring.letters import extract_letter
from nbg_lightning.scoring.mathematics.compare import Pairs, compare
from nbg_lightning.scoring.mathematics.reader import read
from nbg_lightning.scoring.mathematics.values import Unread, Value
from nbg_lightning.scoring.places import extract_expression, extract_value
from nbg_lightning.scoring.pool import Outcome, VerifierPool
from nbg_lightning.scoring.symbolic import SymbolicCheck

Find = Literal["boxed", "announced", "number"]
"""Where an answer is looked for: in the last ``\\boxed{}`` only; else also after "the answer is" and in the last formula;
else also as the last number of the text."""


class MathReward(Reward):
    """1 for an answer that equals `Question.answer`, else 0.

    Answers are parsed and compared exactly (`nbg_lightning.scoring`): numbers, lists, intervals, equations, polynomials.
    Pairs that this cannot decide go to math-verify, in the sandbox with a time limit: those that it cannot evaluate in time
    are wrong. With ``sympy_fallback``, pairs that it does not find equal are evaluated by sympy in the sandbox: answers
    written as Python (``2**10``, ``sqrt(2)/2``), and forms that are equal numerically but not symbolically.

    For a multiple-choice question (`shown_choices`), the option that an answer chooses counts, by its letter or its text.

    Only the text after the reasoning counts; an answer without an end of its reasoning, or without a final answer, scores
    0.

    Args:
        find: where the answer is searched, see `Find`.
        sympy_fallback: evaluate with sympy in the sandbox, which must be available; takes about a second per such answer.
        deadline: seconds per comparison.
        workers: worker processes; defaults to the number of processors.
        name: name in metrics.

    Raises:
        RuntimeError: on entering, if the sandbox is unavailable, with instructions.
    """

    def __init__(
        self,
        find: Find = "announced",
        sympy_fallback: bool = False,
        deadline: float = 5.0,
        workers: int | None = None,
        name: str = "math",
    ):
        if find not in ("boxed", "announced", "number"):
            raise ValueError(f"find is invalid: {find!r}; choose boxed, announced or number")
        self.name, self.find = name, find
        self.pool = VerifierPool(workers, deadline)
        self.sympy_fallback = sympy_fallback
        self.symbolic = SymbolicCheck(workers=workers) if sympy_fallback else None

    def __enter__(self) -> MathReward:
        self.pool.check_isolation("math")
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
        if shown_choices(question) is not None:
            return None
        written = gold_expression(question.answer)
        gold = read(written)
        if not isinstance(gold, Unread):
            return self._itself(gold, written)
        reason = f"the gold answer {gold.plain[:60]!r} cannot be parsed"
        if gold.beyond or not gold.plain:
            return f"{reason} ({gold.reason})"
        outcome = self.pool.map("math", [(gold.plain, None)])[0]
        if outcome.status != "ok":
            return f"{reason} ({outcome.detail})"
        return self._itself(gold, written) if outcome.value else reason

    def _itself(self, gold: Value, written: str) -> str | None:
        """Why a gold answer repeated by the model in a box would not be correct, so that no answer can be; None if it would."""
        result = self._at_once(gold, f"\\boxed{{{written}}}")
        if not isinstance(result, RewardResult):
            (result,) = self._compared([result])
        if result.score == 1.0:
            return None
        return f"the gold answer {written[:60]!r} does not match itself in a \\boxed{{}} ({result.detail})"

    def score(self, groups: Sequence[Group]) -> list[list[RewardResult]]:
        results: list[list[RewardResult | None]] = []
        hard: list[tuple[int, int, Pairs]] = []
        for row, group in enumerate(groups):
            gold = read(gold_expression(group.question.answer or ""))
            shown = shown_choices(group.question)
            results.append([])
            for column, answer in enumerate(group.answers):
                chosen = None if shown is None or answer.final is None else self._chosen(*shown, answer.final, gold)
                result = chosen or self._at_once(gold, answer.final)
                results[-1].append(result if isinstance(result, RewardResult) else None)
                if not isinstance(result, RewardResult):
                    hard.append((row, column, result))
        for (row, column, _), result in zip(hard, self._compared([pairs for _, _, pairs in hard]), strict=True):
            results[row][column] = result
        return [[result for result in row if result is not None] for row in results]

    def _chosen(self, choices: Choices, right: int, text: str, gold: Value) -> RewardResult | None:
        """The result by the option that a text chooses; None if it chooses none and the gold answer is a text."""
        if self.find == "boxed":
            box = boxed(text)
            text = "" if box is None else f"\\boxed{{{box}}}"
        letters = [label.upper() for label in choices.labels]
        found, reason = extract_letter(text, letters, choices.texts)
        if found is not None:
            return RewardResult(float(found == letters[right]), detail=f"{found} for {letters[right]}")
        is_label = gold.plain.upper() in letters
        return RewardResult(0.0, detail=reason, parsed=False) if is_label else None

    def _at_once(self, gold: Value, text: str | None) -> RewardResult | Pairs:
        """The result, or the pairs that math-verify must find equal."""
        if not gold.plain:
            return RewardResult(None, "error", "there is no gold answer")
        if text is None:
            return RewardResult(0.0, detail="the reasoning has no end", parsed=False)
        found = extract_from(text, self.find)
        if not found:
            return RewardResult(0.0, detail="no answer found", parsed=False)
        value = read(found)
        if isinstance(value, Unread) and value.beyond:
            return RewardResult(0.0, detail=value.reason, parsed=False)
        verdict = compare(gold, value)
        if isinstance(verdict, bool):
            return RewardResult(float(verdict), detail=_said(value.plain, gold.plain))
        return verdict

    def _compared(self, hard: Sequence[Pairs]) -> list[RewardResult]:
        """Compare all pairs in one call; an answer is correct if all of its pairs are equal."""
        pairs = [pair for each in hard for pair in each]
        outcomes = self.pool.map("math", pairs)
        if self.symbolic is not None:
            places = [place for place, outcome in enumerate(outcomes) if not outcome.value]
            settled = self.symbolic.compare([pairs[place] for place in places])
            for place, outcome in zip(places, settled, strict=True):
                if outcome.status == "ok" or outcomes[place].status != "ok":
                    outcomes[place] = outcome
        results, begin = [], 0
        for each in hard:
            results.append(self._result(outcomes[begin : begin + len(each)], each))
            begin += len(each)
        return results

    @staticmethod
    def _result(outcomes: Sequence[Outcome], pairs: Pairs) -> RewardResult:
        said = "; ".join(_said(found, gold) for gold, found in pairs)
        wrong = next((outcome for outcome in outcomes if outcome.status == "ok" and not outcome.value), None)
        if wrong is not None:
            return RewardResult(0.0, detail=wrong.detail or said)
        failed = next((outcome for outcome in outcomes if outcome.status != "ok"), None)
        if failed is not None:
            return RewardResult(None, failed.status, failed.detail)
        return RewardResult(1.0, detail=said)


def shown_choices(question: Question) -> tuple[Choices, int] | None:
    """The lettered choices in a question's last message, and the index of the correct one; None if there are none."""
    try:
        found = right_choice({**question.data, "answer": question.answer})
    except ValueError:
        return None
    if found is None:
        return None
    choices, right = found
    asked = question.messages[-1]["content"]
    is_shown = isinstance(asked, str) and all(text in asked for text in choices.texts)
    letters = {label.upper() for label in choices.labels} & set(LETTERS)
    return (choices, right) if is_shown and len(letters) == len(choices.labels) else None


def gold_expression(answer: str) -> str:
    """The part of a gold answer that is compared: the last box, or the text after ``####``, or all of it."""
    inside = boxed(answer)
    return (answer.rsplit("####", maxsplit=1)[-1] if inside is None else inside).strip()


def extract_from(text: str, find: Find) -> str | None:
    """A text's answer; see `Find`."""
    if find == "boxed":
        return boxed(text)
    found = extract_expression(text)
    if found is None and find == "number":
        value = extract_value(text)
        found = None if isinstance(value, str) else value.plain
    return found


def _said(found: str, gold: str) -> str:
    return f"{found[:80]} for {gold[:80]}"
