"""Sums of three digits with worked steps: a task that a model of 100,000 parameters learns, for the recipe on a laptop.

A question is ``7+8-9=?``, its reasoning has a line for each step, and its answer is the result in two characters::

    07+8=15
    15-9=06

There are some 3,900 such sums. Each belongs to one split, so that no test question is trained on.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from itertools import islice, product
from typing import Any, Literal, get_args

from nbg_lightning.data.chat_sources import ChatListPart, ChatSource
from nbg_lightning.data.question_sources import Place, QuestionSource
from nbg_lightning.data.sources import Part, Source
from nbg_lightning.data.sources.in_memory import InMemoryPart
from nbg_lightning.testing.miniature import MadeExamples

Split = Literal["test", "pairs", "rl", "sft"]
SIZES: dict[Split, int] = {"test": 400, "pairs": 800, "rl": 700}
"""Number of sums in each split; the rest belongs to ``sft``."""
_LEAST = -9  # smallest result: two characters
_FIRST = range(_LEAST, 19)  # possible first operands of a step


@dataclass(frozen=True)
class WorkedSum:
    """A digit, a sign, a digit, a sign, a digit.

    Attributes:
        first: digit.
        then: (sign, digit) of each step.
    """

    first: int
    then: tuple[tuple[str, int], ...]

    @property
    def totals(self) -> list[int]:
        """The result after each step."""
        found, total = [], self.first
        for sign, digit in self.then:
            total = _after(total, sign, digit)
            found.append(total)
        return found

    @property
    def question(self) -> str:
        """Such as ``7+8-9=?``."""
        return f"{self.first}{''.join(f'{sign}{digit}' for sign, digit in self.then)}=?"

    @property
    def steps(self) -> str:
        """The reasoning: a line for each step."""
        begins = [self.first, *self.totals]
        return "\n".join(_fact(total, *step) for total, step in zip(begins, self.then, strict=False))

    @property
    def answer(self) -> str:
        """The result."""
        return f"{self.totals[-1]:02d}"

    @property
    def conversation(self) -> list[dict[str, str]]:
        """Question and worked answer as messages."""
        return [
            {"role": "user", "content": self.question},
            {"role": "assistant", "content": self.answer, "reasoning_content": self.steps},
        ]


def _after(total: int, sign: str, digit: int) -> int:
    return total + digit if sign == "+" else total - digit


def _fact(total: int, sign: str, digit: int) -> str:
    return f"{total:02d}{sign}{digit}={_after(total, sign, digit):02d}"


@cache
def sums(split: Split) -> tuple[WorkedSum, ...]:
    """The sums of a split, in a fixed random order.

    Raises:
        ValueError: there is no such split.
    """
    if split not in get_args(Split):
        raise ValueError(f"there is no split {split!r} of the sums; take one of {', '.join(get_args(Split))}")
    everything = [
        WorkedSum(first, ((one, second), (two, third)))
        for first, one, second, two, third in product(range(10), "+-", range(10), "+-", range(10))
    ]
    everything = [each for each in everything if min(each.totals) >= _LEAST]
    random.Random("sums").shuffle(everything)
    remaining = iter(everything)
    splits = {name: tuple(islice(remaining, size)) for name, size in SIZES.items()}
    return splits.get(split) or tuple(remaining)


@dataclass
class SumFacts(MadeExamples, Source):
    """Texts of forty single steps each, for pretraining: ``15-9=06``."""

    def identity(self) -> dict[str, Any]:
        return {"kind": "SumFacts", "version": 1, "count": self.count, "seed": self.seed}

    def parts(self) -> list[Part]:
        draw = random.Random(f"facts {self.seed}")
        texts = ["\n".join(islice(_facts(draw), 40)) for _ in range(self.count)]
        return [InMemoryPart(sum(map(len, texts)), texts)]


def _facts(draw: random.Random) -> Iterator[str]:
    while True:
        total, sign, digit = draw.choice(_FIRST), draw.choice("+-"), draw.randrange(10)
        if _after(total, sign, digit) >= _LEAST:
            yield _fact(total, sign, digit)


@dataclass
class SumChat(ChatSource):
    """Sums as conversations: question, reasoning, answer.

    Args:
        split: which sums.
        count: use only this many.
    """

    split: Split = "sft"
    count: int | None = None

    def identity(self) -> dict[str, Any]:
        return {"kind": "SumChat", "version": 1, "split": self.split, "count": self.count}

    def parts(self) -> list[Part]:
        rows = [{"messages": each.conversation} for each in sums(self.split)[: self.count]]
        return [ChatListPart(60 * len(rows), rows, 0)]


@dataclass
class SumQuestions(QuestionSource):
    """Sums to answer.

    Args:
        split: which sums.
        count: use only this many.
    """

    split: Split = "rl"
    count: int | None = None

    def rows(self) -> Iterator[tuple[Place, Mapping[str, Any]]]:
        for number, each in enumerate(sums(self.split)[: self.count]):
            yield partial("sum {} of {}".format, number, self.split), {"question": each.question, "answer": each.answer}
