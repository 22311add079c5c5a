"""AIME: 30 problems per year whose answers are integers from 0 to 999."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from nbg_lightning.evaluation.benchmark import Benchmark, HubName, Item
from nbg_lightning.evaluation.rows import ItemsMissing, Row, hub_rows
from nbg_lightning.scoring.result import Verdict
from nbg_lightning.scoring.verdicts import score_number

_HUB = {
    2024: [HubName("HuggingFaceH4/aime_2024", None, "train")],
    2025: [HubName("opencompass/AIME2025", "AIME2025-I"), HubName("opencompass/AIME2025", "AIME2025-II")],
}


@dataclass(kw_only=True)
class AIME(Benchmark):
    """The problems of a year, I and II together. Use several samples, since there are few items: the paper reports avg@8.

    Args:
        year: 2024 or 2025; other years need ``path``.
    """

    year: int = 2024

    licence: ClassVar[str] = "Mathematical Association of America; hub copies: Apache-2.0 (2024), MIT (2025)"
    instruction: ClassVar[str] = "Please reason step by step, and put your final answer within \\boxed{}."
    stop_texts: ClassVar[tuple[str, ...]] = ("\nProblem:",)
    file_names: ClassVar[tuple[str, ...]] = ("aime", "train", "test")

    def __post_init__(self) -> None:
        self.name = self.name or f"aime_{self.year}"
        super().__post_init__()
        if self.path is None and self.year not in _HUB:
            raise ValueError(
                f"{self.name}: year is invalid: {self.year} is not on the hub; give 2024 or 2025, or path, a file of its problems"
            )

    def _rows(self) -> tuple[str, Iterator[tuple[str, Row]]]:
        if self.path is not None:
            return super()._rows()
        try:
            parts = [hub_rows(each.name, each.config, each.split) for each in _HUB[self.year]]
        except ItemsMissing as error:
            raise ItemsMissing(f"{self.name}: {error}; {self._fix()}") from error
        return f"hub {_HUB[self.year][0].name}", (row for part in parts for row in part)

    def parse(self, row: Row, place: str) -> Item:
        question = row["problem"] if "problem" in row else row["question"]
        return Item(str(row.get("id", place)), question.strip(), str(int(row["answer"])))

    def text(self, item: Item) -> str:
        return f"Problem:\n{item.question}\n\nSolution:"

    def solution(self, item: Item) -> str:
        return f"The answer is $\\boxed{{{item.answer}}}$."

    def score(self, item: Item, text: str) -> Verdict:
        return score_number(text, item.answer)
