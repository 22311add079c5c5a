"""What so many things cost: a task of two tools, for agents that two processors train in minutes.

A question is ``What do 4 pens cost?``. The price stands in the question's data, which only the tool ``price`` sees, and is drawn
for each question; so nobody can answer in one turn. The whole way is ``price("pen")``, ``times(4, 9)``, and the result.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from nbg_lightning.data.chat_sources import ChatListPart, ChatSource
from nbg_lightning.data.question import Question
from nbg_lightning.data.question_sources import Place, QuestionSource
from nbg_lightning.data.sources import Part

THINGS = ("pen", "cup", "hat", "key", "bag", "jar", "map", "fan")
NUMBERS, PRICES = range(2, 6), range(3, 10)


def price(item: str, question: Question) -> int:
    """The price of one thing."""
    return int(question.data["prices"][item])


def times(a: int, b: int) -> int:
    """The product of two numbers."""
    return a * b


@dataclass(frozen=True)
class Purchase:
    """So many of a thing, and its price."""

    item: str
    number: int
    price: int

    @property
    def question(self) -> str:
        """Such as ``What do 4 pens cost?``."""
        return f"What do {self.number} {self.item}s cost?"

    @property
    def answer(self) -> str:
        """The product."""
        return str(self.number * self.price)


def purchases(count: int, seed: int) -> Iterator[Purchase]:
    """Made-up purchases."""
    chance = random.Random(f"purchases {seed}")
    for _ in range(count):
        yield Purchase(chance.choice(THINGS), chance.choice(NUMBERS), chance.choice(PRICES))


@dataclass
class PriceQuestions(QuestionSource):
    """Purchases to work out; the tools are `price` and `times`.

    Args:
        count: questions.
        seed: another seed gives others.
    """

    count: int
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.count < 1:
            raise ValueError(f"count is invalid: {self.count}; give at least 1")

    def rows(self) -> Iterator[tuple[Place, Mapping[str, Any]]]:
        for number, each in enumerate(purchases(self.count, self.seed)):
            data = {"prices": {each.item: each.price}}
            row = {"question": each.question, "answer": each.answer, "data": data}
            yield partial("purchase {}".format, number), row


@dataclass
class PriceChat(ChatSource):
    """Scripted ways through purchases, of which some go the whole way and the others answer too early.

    The tools are not described: a model that is trained on them knows how they are called, and goes the whole way about as
    often. Reinforcement learning begins with that.

    Args:
        count: conversations.
        seed: another seed gives others.
        whole: share that asks for the price, multiplies, and answers. Of the others, half ask for the price and answer with it,
            and half answer at once.
    """

    count: int
    seed: int = 0
    whole: float = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.count < 1:
            raise ValueError(f"count is invalid: {self.count}; give at least 1")
        if not 0 <= self.whole <= 1:
            raise ValueError(f"whole is invalid: {self.whole}; give a share from 0 to 1")

    def identity(self) -> dict[str, Any]:
        return {"kind": "PriceChat", "version": 1, "count": self.count, "seed": self.seed, "whole": self.whole}

    def parts(self) -> list[Part]:
        chance = random.Random(f"ways {self.seed}")
        rows = [{"messages": _way(each, self._turns(chance))} for each in purchases(self.count, self.seed)]
        return [ChatListPart(200 * len(rows), rows, 0)]

    def _turns(self, chance: random.Random) -> int:
        """How many tools are called."""
        return 2 if chance.random() < self.whole else chance.randrange(2)


def _way(each: Purchase, num_calls: int) -> list[dict[str, Any]]:
    calls = [("price", {"item": each.item}, each.price), ("times", {"a": each.number, "b": each.price}, each.answer)]
    turns: list[dict[str, Any]] = [{"role": "user", "content": each.question}]
    for name, arguments, result in calls[:num_calls]:
        call = {"function": {"name": name, "arguments": arguments}}
        turns += [{"role": "assistant", "content": "", "tool_calls": [call]}, {"role": "tool", "content": str(result)}]
    said = each.answer if num_calls == 2 else str(each.price)
    return [*turns, {"role": "assistant", "content": f"The answer is {said}."}]
