"""Answers that are bad whatever they say: loops, malformed ones, and those without an end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from nbg_lightning.chat.conversation import THINK_CLOSE, THINK_OPEN
from nbg_lightning.engines.chat import Answer
from nbg_lightning.rewards.protocol import Group, Reward, RewardResult

BadCase = Literal["loop", "malformed", "no_end"]

LONGEST_PERIOD = 256  # tokens of a passage that comes again and again: some paragraphs
LOOP_REPEATS = 5  # a table or a list of zeros has lines that are alike, and fewer of them than this, or
LOOP_TOKENS = 64  # they are shorter than this


def loop_period(ids: Sequence[int], repeats: int = LOOP_REPEATS, least: int = LOOP_TOKENS) -> int | None:
    """Length of the shortest passage that comes ``repeats`` times in a row or more, ``least`` tokens in all; None without one.

    The cost is that of comparing the ids with themselves `LONGEST_PERIOD` times.

    Example:
        >>> loop_period([7, 8, 9] * 30), loop_period([7, 8, 9] * 4), loop_period(range(500))
        (3, None, None)
    """
    array = np.asarray(ids, np.int64)
    for period in range(1, min(LONGEST_PERIOD, len(array) // repeats) + 1):
        span = max(repeats * period, least) - period  # positions in a row that are as those a period before
        equal = array[period:] == array[:-period]
        if len(equal) < span:
            continue
        breaks = np.flatnonzero(np.concatenate(([True], ~equal, [True])))
        if np.diff(breaks).max() - 1 >= span:
            return period
    return None


def bad_case(answer: Answer) -> BadCase | None:
    """What is bad of an answer that the engine finished, in this order; None for one that is well.

    * ``loop``: a passage comes again and again (`loop_period`);
    * ``no_end``: the length limit cut it, or its reasoning never ends;
    * ``malformed``: several think tags, nothing after the reasoning, or bytes that are no text.
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
    """0 for an answer that is well, -1 for a bad case (`bad_case`): a part for `CombinedReward`, which has the weight.

    Args:
        name: in metrics.
    """

    def __init__(self, name: str = "bad_case"):
        self.name = name

    def score(self, groups: Sequence[Group]) -> list[list[RewardResult]]:
        return [[self._result(answer) for answer in group.answers] for group in groups]

    @staticmethod
    def _result(answer: Answer) -> RewardResult:
        found = bad_case(answer)
        return RewardResult(0.0 if found is None else -1.0, detail=found or "", parsed=found is None)
