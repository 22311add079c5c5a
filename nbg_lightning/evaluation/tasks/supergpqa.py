"""SuperGPQA: 26,529 graduate questions of 285 disciplines (M-A-P 2025, arXiv 2502.14739)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from nbg_lightning.evaluation.benchmark import HubName, Item
from nbg_lightning.evaluation.rows import Row
from nbg_lightning.evaluation.tasks.lettered import Lettered, option_index


@dataclass(kw_only=True)
class SuperGPQA(Lettered):
    """Up to ten options in the order of the data set; each of the 13 disciplines a category."""

    label: ClassVar[str] = "supergpqa"
    licence: ClassVar[str] = "ODC-BY"
    hub: ClassVar[HubName | None] = HubName("m-a-p/SuperGPQA", None, "train")
    file_names: ClassVar[tuple[str, ...]] = ("SuperGPQA-all", "train", "test")

    def parse(self, row: Row, place: str) -> Item:
        options = [str(option).strip() for option in row["options"]]
        right = option_index(row["answer_letter"], len(options))
        if str(row.get("answer", options[right])).strip() != options[right]:
            raise ValueError(f"the letter {row['answer_letter']!r:.10} is not that of the answer")
        return self.lettered(str(row.get("uuid", place)), row["question"], options, right, row.get("discipline"))
