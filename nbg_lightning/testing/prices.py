"""Prices of purchases: a task with two tools, for agents that can be trained in minutes on two CPU cores.

A question is ``What do 4 pens cost?``. The price is random and stored in the question's data, which only the tool ``price``
can read, so that no model can answer in a single turn. The full solution is ``price("pen")``, ``times(4, 9)``, and the result.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from itertools import islice, product
from typing import Any, Literal, get_args

from nbg_lightning.data.chat_sources import ChatListPart, ChatSource
from nbg_lightning.data.question import Question
from nbg_lightning.data.question_sources import Place, QuestionSource
from nbg_lightning.data.sources import Part, Source
from nbg_lightning.data.sources.in_memory import InMemoryPart
from nbg_lightning.testing.miniature import MadeExamples

PurchaseSplit = Literal["test", "train"]
THINGS = ("pen", "cup", "hat", "key", "bag", "jar", "map", "fan")
NUMBERS = PRICES = range(2, 10)
NUM_TEST = 128
"""Number of held-out purchases, of 512."""


def price(item: str, question: Question) -> int:
    """The price of one item."""
    return int(question.data["prices"][item])


def times(a: int, b: int) -> int:
    """The product of two numbers."""
    return a * b


@dataclass(frozen=True)
class Purchase:
    """A number of items, and the price of one."""

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

    @property
    def calls(self) -> list[tuple[str, dict[str, Any], str]]:
        """Tool, arguments and result of each step of the solution."""
        return [
            ("price", {"item": self.item}, str(self.price)),
            ("times", {"a": self.number, "b": self.price}, self.answer),
        ]

    def way(self, num_calls: int) -> list[dict[str, Any]]:
        """A conversation that answers after this many calls; the answer is correct after both."""
        turns: list[dict[str, Any]] = [{"role": "user", "content": self.question}]
        for name, arguments, result in self.calls[:num_calls]:
            call = {"function": {"name": name, "arguments": arguments}}
            turns += [{"role": "assistant", "content": "", "tool_calls": [call]}, {"role": "tool", "content": result}]
        said = self.answer if num_calls == len(self.calls) else self.price
        return [*turns, {"role": "assistant", "content": f"The answer is {said}."}]


@cache
def purchases(split: PurchaseSplit) -> tuple[Purchase, ...]:
    """The purchases of a split, in a fixed random order.

    Raises:
        ValueError: there is no such split.
    """
    if split not in get_args(PurchaseSplit):
        raise ValueError(
            f"there is no split {split!r} of the purchases; take one of {', '.join(get_args(PurchaseSplit))}"
        )
    everything = [Purchase(*each) for each in product(THINGS, NUMBERS, PRICES)]
    random.Random("purchases").shuffle(everything)
    return tuple(everything[:NUM_TEST] if split == "test" else everything[NUM_TEST:])


@dataclass
class PriceFacts(MadeExamples, Source):
    """Texts of ten tool calls each, for pretraining: ``price {"item": "pen"} 7``."""

    def identity(self) -> dict[str, Any]:
        return {"kind": "PriceFacts", "version": 1, "count": self.count, "seed": self.seed}

    def parts(self) -> list[Part]:
        steps = _single_calls(random.Random(f"calls {self.seed}"))
        texts = ["\n".join(islice(steps, 10)) for _ in range(self.count)]
        return [InMemoryPart(sum(map(len, texts)), texts)]


def _single_calls(chance: random.Random) -> Iterator[str]:
    while True:
        each = chance.choice(purchases("train"))
        name, arguments, result = chance.choice(each.calls)
        call = json.dumps({"name": name, "arguments": arguments})
        yield f"{each.question}\n{call}\n{result}\nThe answer is {result}."


@dataclass
class PriceChat(MadeExamples, ChatSource):
    """Scripted conversations about purchases, some of which are complete solutions while the others answer too early.

    The tools are not described: a model trained on these conversations knows how to call them, and solves about this share.
    Reinforcement learning starts from there.

    Args:
        count: number of conversations.
        seed: another seed gives other conversations.
        whole: share that asks for the price, multiplies, and answers. Of the others, half ask for the price and give it as the
            answer, and half answer at once.
    """

    whole: float = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.whole <= 1:
            raise ValueError(f"whole is invalid: {self.whole}; give a share from 0 to 1")

    def identity(self) -> dict[str, Any]:
        return {"kind": "PriceChat", "version": 2, "count": self.count, "seed": self.seed, "whole": self.whole}

    def parts(self) -> list[Part]:
        chance = random.Random(f"ways {self.seed}")
        rows = [{"messages": chance.choice(purchases("train")).way(self._calls(chance))} for _ in range(self.count)]
        return [ChatListPart(200 * len(rows), rows, 0)]

    def _calls(self, chance: random.Random) -> int:
        """Number of tool calls."""
        return 2 if chance.random() < self.whole else chance.randrange(2)


@dataclass
class PriceQuestions(QuestionSource):
    """Questions about purchases, with the tools `price` and `times`.

    Args:
        split: which purchases; those of ``test`` are in no other data of this task.
        count: use only this many.
    """

    split: PurchaseSplit = "train"
    count: int | None = None

    def rows(self) -> Iterator[tuple[Place, Mapping[str, Any]]]:
        for number, each in enumerate(purchases(self.split)[: self.count]):
            data = {"prices": {each.item: each.price}}
            row = {"question": each.question, "answer": each.answer, "data": data}
            yield partial("purchase {} of {}".format, number, self.split), row
