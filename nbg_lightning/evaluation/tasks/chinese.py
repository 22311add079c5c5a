"""CMATH (Wei et al. 2023, arXiv 2306.16636) and CMMLU (Li et al. 2023, arXiv 2306.09212): benchmarks in Chinese."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from nbg_lightning.evaluation.benchmark import Benchmark, HubName, Item
from nbg_lightning.evaluation.rows import Row, hub_tasks
from nbg_lightning.evaluation.tasks.lettered import Lettered, option_index
from nbg_lightning.scoring.result import Verdict
from nbg_lightning.scoring.verdicts import score_number

_SUBJECTS = (
    "agronomy", "anatomy", "ancient_chinese", "arts", "astronomy", "business_ethics", "chinese_civil_service_exam",
    "chinese_driving_rule", "chinese_food_culture", "chinese_foreign_policy", "chinese_history", "chinese_literature",
    "chinese_teacher_qualification", "clinical_knowledge", "college_actuarial_science", "college_education",
    "college_engineering_hydrology", "college_law", "college_mathematics", "college_medical_statistics",
    "college_medicine", "computer_science", "computer_security", "conceptual_physics", "construction_project_management",
    "economics", "education", "electrical_engineering", "elementary_chinese", "elementary_commonsense",
    "elementary_information_and_technology", "elementary_mathematics", "ethnology", "food_science", "genetics",
    "global_facts", "high_school_biology", "high_school_chemistry", "high_school_geography", "high_school_mathematics",
    "high_school_physics", "high_school_politics", "human_sexuality", "international_law", "journalism", "jurisprudence",
    "legal_and_moral_basis", "logical", "machine_learning", "management", "marketing", "marxist_theory", "modern_chinese",
    "nutrition", "philosophy", "professional_accounting", "professional_law", "professional_medicine",
    "professional_psychology", "public_relations", "security_study", "sociology", "sports_science",
    "traditional_chinese_medicine", "virology", "world_history", "world_religions",
)  # fmt: skip


@dataclass(kw_only=True)
class CMATH(Benchmark):
    """Word problems from the six grades of Chinese primary schools: 1,098 test items, each grade a category."""

    label: ClassVar[str] = "cmath"
    licence: ClassVar[str] = "CC-BY-4.0"
    hub: ClassVar[HubName | None] = HubName("weitianwen/cmath")
    hub_shots: ClassVar[HubName | None] = HubName("weitianwen/cmath", split="validation")
    file_names: ClassVar[tuple[str, ...]] = ("cmath_test", "test")
    shot_names: ClassVar[tuple[str, ...]] = ("cmath_dev", "validation", "dev")
    instruction: ClassVar[str] = "请逐步推理，并把最终答案写在 \\boxed{} 中。"
    stop_texts: ClassVar[tuple[str, ...]] = ("\n\n问题：", "\n问题：")

    def parse(self, row: Row, place: str) -> Item:
        gold = str(row["golden"]).strip()
        if not gold:
            raise ValueError("'golden' is empty")
        category = None if row.get("grade") is None else f"grade {row['grade']}"
        return Item(str(row.get("id", place)), row["question"].strip(), gold, category=category)

    def text(self, item: Item) -> str:
        return f"问题：{item.question}\n答案："

    def solution(self, item: Item) -> str:
        return f"答案是{item.answer}"

    def score(self, item: Item, text: str) -> Verdict:
        return score_number(text, item.answer)


@dataclass(kw_only=True)
class CMMLU(Lettered):
    """67 subjects with 11,582 four-option questions; each subject is a category, with few-shot examples from the same
    subject.

    ``path`` is a JSON-lines file with the hub's fields and ``subject``, or the folder of the authors' repository (``test``
    and ``dev`` with a CSV file for each subject).

    Args:
        subjects: subjects to use, such as ``anatomy``; all by default.
    """

    subjects: list[str] = field(default_factory=list)

    label: ClassVar[str] = "cmmlu"
    licence: ClassVar[str] = "CC-BY-NC-4.0"
    hub: ClassVar[HubName | None] = HubName("haonan-li/cmmlu")
    file_names: ClassVar[tuple[str, ...]] = ("test",)
    shot_names: ClassVar[tuple[str, ...]] = ("dev",)
    shots_by_category: ClassVar[bool] = True
    instruction: ClassVar[str] = "请逐步推理，最后以“答案是(X)”结尾，其中 X 是一个选项的字母。"
    stop_texts: ClassVar[tuple[str, ...]] = ("\n\n题目：", "\n题目：")

    def __post_init__(self) -> None:
        super().__post_init__()
        if unknown := sorted(set(self.subjects) - set(_SUBJECTS)):
            raise ValueError(
                f"{self.name}: subjects is invalid: {', '.join(unknown)}; choose from {', '.join(_SUBJECTS)}"
            )

    @property
    def _wanted(self) -> list[str]:
        return self.subjects or list(_SUBJECTS)

    def _rows(self) -> tuple[str, Iterator[tuple[str, Row]]]:
        if self.path is None:
            assert self.hub is not None
            return f"hub {self.hub.name}", hub_tasks(self.hub.name, self.hub.split, self._wanted, "subject")
        folder = Path(self.path).expanduser() / "test"
        if folder.is_dir():
            return str(folder), _csv_rows(folder, self._wanted)
        origin, rows = super()._rows()
        return origin, (row for row in rows if "" in row[1] or row[1].get("subject") in self._wanted)

    def shot_source(self) -> Iterator[tuple[str, Row]]:
        if self.path is None:
            assert self.hub is not None
            return hub_tasks(self.hub.name, "dev", self._wanted, "subject")
        folder = Path(self.path).expanduser() / "dev"
        return _csv_rows(folder, self._wanted) if folder.is_dir() else super().shot_source()

    def parse(self, row: Row, place: str) -> Item:
        options = [str(row[letter]).strip() for letter in "ABCD"]
        right = option_index(row["Answer"], len(options))
        subject = row["subject"]
        identity = f"{subject}-{row.get('', row.get('id', place))}"
        return self.lettered(identity, row["Question"], options, right, subject)

    def text(self, item: Item) -> str:
        return f"题目：{self.options(item)}\n答案是："

    def message(self, item: Item) -> str:
        rated = "请只回答一个选项的字母。"
        return f"{self.options(item)}\n\n{rated if self.answers == 'rated' else self.instruction}"

    def solution(self, item: Item) -> str:
        return item.data["letter"] if self.answers == "rated" else f"答案是({item.data['letter']})"


def _csv_rows(folder: Path, subjects: list[str]) -> Iterator[tuple[str, Row]]:
    """Rows of a file for each subject; the first column, which has no name, is the row's number."""
    for subject in subjects:
        file = folder / f"{subject}.csv"
        if not file.is_file():
            yield str(file), {"": "there is no file of this subject"}
            continue
        with file.open(encoding="utf-8-sig", newline="") as stream:
            for number, row in enumerate(csv.DictReader(stream), start=2):
                yield f"{file}, line {number}", {**{k or "id": v for k, v in row.items()}, "subject": subject}
