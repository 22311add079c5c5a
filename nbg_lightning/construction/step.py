"""Steps of a corpus: one document in, one document out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow

DocumentRow = dict[str, Any]


class DocumentStep(ABC):
    """A pure function ``row -> row`` that adds columns: fit for ``datasets.Dataset.map`` and ``ray.data.Dataset.map`` as it is.

    It must pickle, and give a row the same columns whatever rows stand beside it.
    """

    @property
    @abstractmethod
    def columns(self) -> dict[str, pyarrow.DataType]:
        """Name and Arrow type of every column that it adds."""

    @abstractmethod
    def values(self, texts: Sequence[str]) -> list[DocumentRow]:
        """The columns of each text."""

    def identity(self) -> dict[str, Any]:
        """Describe all that decides the values, as JSON."""
        return {"step": type(self).__name__}

    def __call__(self, row: DocumentRow) -> DocumentRow:
        """The row with the columns; its text is under ``text``."""
        return {**row, **self.values([row["text"]])[0]}


class StepPipeline(DocumentStep):
    """Several steps, one after another.

    Args:
        steps: whose columns must differ.

    Raises:
        ValueError: two steps give the same column.
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
