"""Steps of a corpus pipeline: one document in, one document out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow

DocumentRow = dict[str, Any]


class DocumentStep(ABC):
    """A pure function ``row -> row`` that adds columns, usable with ``datasets.Dataset.map`` and ``ray.data.Dataset.map``.

    It must be picklable, and its columns for a row must not depend on other rows.
    """

    @property
    @abstractmethod
    def columns(self) -> dict[str, pyarrow.DataType]:
        """Name and Arrow type of every added column."""

    @abstractmethod
    def values(self, texts: Sequence[str]) -> list[DocumentRow]:
        """The columns for each text."""

    def identity(self) -> dict[str, Any]:
        """Everything that determines the values, as JSON."""
        return {"step": type(self).__name__}

    def __call__(self, row: DocumentRow) -> DocumentRow:
        """Add the columns to a row, whose text is under ``text``."""
        return {**row, **self.values([row["text"]])[0]}


class StepPipeline(DocumentStep):
    """Several steps in sequence.

    Args:
        steps: the steps, with distinct columns.

    Raises:
        ValueError: two steps add the same column.
    """

    def __init__(self, steps: Sequence[DocumentStep]):
        self.steps = list(steps)
        self._columns: dict[str, pyarrow.DataType] = {}
        for step in self.steps:
            if both := set(step.columns) & set(self._columns):
                raise ValueError(f"two steps give a column {sorted(both)[0]!r}; leave one of them out")
            self._columns |= step.columns

    @property
    def columns(self) -> dict[str, pyarrow.DataType]:
        return self._columns

    def identity(self) -> dict[str, Any]:
        return {"steps": [step.identity() for step in self.steps]}

    def values(self, texts: Sequence[str]) -> list[DocumentRow]:
        found: list[DocumentRow] = [{} for _ in texts]
        for step in self.steps:
            for row, more in zip(found, step.values(texts), strict=True):
                row.update(more)
        return found
