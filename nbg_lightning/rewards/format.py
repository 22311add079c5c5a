"""Reward for answers with the required format."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from nbg_lightning.chat.conversation import THINK_CLOSE, THINK_OPEN
from nbg_lightning.engines.chat import Answer
from nbg_lightning.rewards.protocol import Group, Reward, RewardResult
from nbg_lightning.scoring.boxes import boxed, tagged
from nbg_lightning.scoring.fences import CodeBlock, code_blocks


class FormatReward(Reward):
    """1 for an answer with the required format, else 0.

    Args:
        think: the answer must begin with a single non-empty reasoning between think tags, and continue after it.
        answer: how the final answer must then be marked: once in ``<answer>`` tags, in a ``\\boxed{}``, in one fenced code
            block, or not at all.
        name: name in metrics.

    Example:
        >>> FormatReward(think=False, answer="tags").problem("<answer>4</answer>", None, "<answer>4</answer>") is None
        True
    """

    def __init__(
        self, think: bool = True, answer: Literal["any", "tags", "boxed", "code"] = "any", name: str = "format"
    ):
        if answer not in ("any", "tags", "boxed", "code"):
            raise ValueError(f"answer is invalid: {answer!r}; choose any, tags, boxed or code")
        if not think and answer == "any":
            raise ValueError("answer is invalid: 'any' with think=False, which every text fulfils; set one of them")
        self.name, self.think, self.answer = name, think, answer

    def score(self, groups: Sequence[Group]) -> list[list[RewardResult]]:
        return [[self._result(answer) for answer in group.answers] for group in groups]

    def _result(self, answer: Answer) -> RewardResult:
        problem = self.problem(answer.text, answer.reasoning, answer.final)
        return RewardResult(float(problem is None), detail=problem or "", parsed=problem is None)

    def problem(self, text: str, reasoning: str | None, final: str | None) -> str | None:
        """The format error of a text with this reasoning and final answer; None if there is none."""
        if final is None:
            return "the reasoning has no end"
        if self.think:
            if not (reasoning or "").strip():
                return "there is no reasoning between think tags"
            if text.count(THINK_CLOSE) != 1 or text.count(THINK_OPEN) > 1:
                return "there are several think tags"
        if not final.strip():
            return "there is no answer after the reasoning"
        tags = final.count("<answer>"), final.count("</answer>")
        if self.answer == "tags" and (tags != (1, 1) or not tagged(final)):
            return "there is not one <answer>...</answer>"
        if self.answer == "boxed" and not boxed(final):
            return "there is no \\boxed{}"
        if self.answer == "code" and not _is_one_block(code_blocks(final)):
            return "there is not one fenced block of code"
        return None


def _is_one_block(blocks: Sequence[CodeBlock]) -> bool:
    return len(blocks) == 1 and blocks[0].closed
