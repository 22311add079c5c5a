"""GPQA-Diamond: 198 graduate questions that search engines do not answer (Rein et al. 2023, arXiv 2311.12022)."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import ClassVar

from nbg_lightning.evaluation.benchmark import HubName, Item
from nbg_lightning.evaluation.rows import Row
from nbg_lightning.evaluation.tasks.lettered import Lettered


@dataclass(kw_only=True)
class GPQADiamond(Lettered):
    """The diamond set; gated on the hub. The options of a question are shuffled with its text as the seed, hence always the
    same way.
    """

    label: ClassVar[str] = "gpqa_diamond"
    licence: ClassVar[str] = "CC-BY-4.0; its authors ask not to publish items in plain text"
    hub: ClassVar[HubName | None] = HubName("Idavidrein/gpqa", "gpqa_diamond", "train", gated=True)
    file_names: ClassVar[tuple[str, ...]] = ("gpqa_diamond", "train", "test")

    def parse(self, row: Row, place: str) -> Item:
        right = row["Correct Answer"].strip()
        options = [right, *(row[f"Incorrect Answer {i}"].strip() for i in (1, 2, 3))]
        random.Random(row["Question"]).shuffle(options)
        identity = str(row.get("Record ID", place))
        return self.lettered(identity, row["Question"], options, options.index(right), row.get("High-level domain"))
