"""HMMT: the problems of a Harvard-MIT Mathematics Tournament (February 2025 by default), whose answers are expressions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from nbg_lightning.evaluation.benchmark import Benchmark, HubName, Item
from nbg_lightning.evaluation.rows import Row
from nbg_lightning.scoring.result import Verdict
from nbg_lightning.scoring.verdicts import score_math


@dataclass(kw_only=True)
class HMMT(Benchmark):
    """30 problems. Use several samples, since there are few items."""

    label: ClassVar[str] = "hmmt_feb_2025"
    licence: ClassVar[str] = "CC-BY-NC-SA-4.0"
    hub: ClassVar[HubName | None] = HubName("MathArena/hmmt_feb_2025", None, "train")
    file_names: ClassVar[tuple[str, ...]] = ("hmmt", "train", "test")
    instruction: ClassVar[str] = "Please reason step by step, and put your final answer within \\boxed{}."
    stop_texts: ClassVar[tuple[str, ...]] = ("\nProblem:",)

    def parse(self, row: Row, place: str) -> Item:
        gold, kind = str(row["answer"]).strip(), row.get("problem_type")
        if not gold:
            raise ValueError("'answer' is empty")
        category = "+".join(map(str, kind)) if isinstance(kind, list) else kind
        return Item(str(row.get("problem_idx", place)), row["problem"].strip(), gold, category=category)

    def text(self, item: Item) -> str:
        return f"Problem:\n{item.question}\n\nSolution:"

    def solution(self, item: Item) -> str:
        return f"The answer is $\\boxed{{{item.answer}}}$."

    def score(self, item: Item, text: str) -> Verdict:
        return score_math(text, item.answer)
