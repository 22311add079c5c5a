"""Detection of answers that are bad regardless of content: loops, malformed answers, and unfinished ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from nbg_lightning.chat.conversation import THINK_CLOSE, THINK_OPEN
from nbg_lightning.engines.chat import Answer
from nbg_lightning.rewards.protocol import Group, Reward, RewardResult

BadCase = Literal["loop", "malformed", "no_end"]

LONGEST_PERIOD = 256  # maximum length of a repeated passage in tokens: a few paragraphs
LOOP_REPEATS = 5  # a table or a list of zeros has lines that are alike, and fewer of them than this, or
LOOP_TOKENS = 64  # they are shorter than this


def loop_period(ids: Sequence[int], repeats: int = LOOP_REPEATS, least: int = LOOP_TOKENS) -> int | None:
    """Length of the shortest passage repeated at least ``repeats`` times in a row, ``least`` tokens in all; None if there
    is none.

    The cost is that of `LONGEST_PERIOD` elementwise comparisons of the ids with themselves.

    Example:
        >>> loop_period([7, 8, 9] * 30), loop_period([7, 8, 9] * 4), loop_period(range(500))
        (3, None, None)
    """
    array = np.asarray(ids, np.int64)
    for period in range(1, min(LONGEST_PERIOD, len(array) // repeats) + 1):
        span = max(repeats * period, least) - period  # consecutive positions equal to those one period before
        equal = array[period:] == array[:-period]
        if len(equal) < span:
            continue
        breaks = np.flatnonzero(np.concatenate(([True], ~equal, [True])))
        if np.diff(breaks).max() - 1 >= span:
            return period
    return None


def bad_case(answer: Answer) -> BadCase | None:
    """The first of these problems in an answer that the engine finished; None if it has none.

    * ``loop``: a passage is repeated (`loop_period`);
    * ``no_end``: the length limit truncated it, or its reasoning has no end;
    * ``malformed``: several think tags, nothing after the reasoning, or bytes that are not valid text.
    """
    ids, text = answer.completion.ids, answer.text
    if loop_period(ids or list(text.encode("utf-8", "replace"))) is not None:
        return "loop"
    if not answer.finished:
        return "no_end"
    tags = text.count(THINK_CLOSE) > 1 or text.count(THINK_OPEN) > 1
    if tags or "\ufffd" in text or not (answer.final or "").strip():
        return "malformed"
    return None


class BadCaseReward(Reward):
    """-1 for a bad case (`bad_case`), else 0: a part for `CombinedReward`, which sets its weight.

    Args:
        name: name in metrics.
    """

    def __init__(self, name: str = "bad_case"):
        self.name = name

    def score(self, groups: Sequence[Group]) -> list[list[RewardResult]]:
        return [[self._result(answer) for answer in group.answers] for group in groups]

    @staticmethod
    def _result(answer: Answer) -> RewardResult:
        found = bad_case(answer)
        return RewardResult(0.0 if found is None else -1.0, detail=found or "", parsed=found is None)
