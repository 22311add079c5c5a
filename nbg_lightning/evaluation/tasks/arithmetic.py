"""Generated sums that a model of a few million parameters can learn; always the same."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from nbg_lightning.evaluation.benchmark import Benchmark, Item
from nbg_lightning.evaluation.rows import Row
from nbg_lightning.scoring.result import Verdict
from nbg_lightning.scoring.verdicts import score_number

_SIGNS = {"addition": "+", "subtraction": "-", "multiplication": "*"}


@dataclass(kw_only=True)
class Arithmetic(Benchmark):
    """``12 + 7 =`` with numbers of limited size; each operation is a category.

    Args:
        count: number of items.
        digits: maximum digits of each number.
        operations: the operations.
        item_seed: seed of the items.
    """

    count: int = 100
    digits: int = 1
    operations: list[Literal["addition", "subtraction", "multiplication"]] = field(
        default_factory=lambda: ["addition", "subtraction"]
    )
    item_seed: int = 0

    label: ClassVar[str] = "arithmetic"
    licence: ClassVar[str] = "made by this library (Apache-2.0)"
    instruction: ClassVar[str] = "Answer with the number only."
    stop_texts: ClassVar[tuple[str, ...]] = ("\n",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_new_tokens is None:
            self.max_new_tokens = 16
        for name, value in (("count", self.count), ("digits", self.digits)):
            if value < 1:
                raise ValueError(f"{self.name}: {name} is invalid: {value}; give at least 1")
        if not self.operations or set(self.operations) - set(_SIGNS):
            raise ValueError(
                f"{self.name}: operations is invalid: {list(self.operations)}; give some of {', '.join(_SIGNS)}"
            )

    def _rows(self) -> tuple[str, Iterator[tuple[str, Row]]]:
        return f"made with item_seed={self.item_seed}", self._made(self.item_seed, self.count)

    def _made(self, seed: int, count: int) -> Iterator[tuple[str, Row]]:
        draw = random.Random(f"{seed} {self.digits}")
        for index in range(count):
            operation = self.operations[index % len(self.operations)]
            first, second = (draw.randrange(10**self.digits) for _ in range(2))
            answer = {"addition": first + second, "subtraction": first - second, "multiplication": first * second}
            question = f"{first} {_SIGNS[operation]} {second} ="
            yield f"item {index}", {"question": question, "answer": answer[operation], "operation": operation}

    def load_shots(self) -> list[Item]:
        return list(self._parsed(self._made(self.item_seed + 1_000_003, self.num_shots), None))

    def parse(self, row: Row, place: str) -> Item:
        return Item(place, row["question"], str(row["answer"]), category=row["operation"])

    def text(self, item: Item) -> str:
        return item.question

    def score(self, item: Item, text: str) -> Verdict:
        return score_number(text, item.answer, first=True)
