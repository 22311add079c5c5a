"""The interface of data builders: settings in, one folder out, and a report that a command can show."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from nbg_lightning.construction.store import JsonRecord


class ReportTable(NamedTuple):
    """A table in a printed report.

    Attributes:
        title: title above the table.
        columns: column names.
        rows: cells as text.
    """

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


@dataclass(kw_only=True)
class Builder(ABC):
    """Base class of builders: flat dataclasses whose fields are keys of a YAML file and options of a command.

    A builder validates its settings on construction, and reads and writes nothing before `run`. A killed build resumes
    when it is started again, with output identical to that of an uninterrupted run; a folder is never continued with
    other settings.

    Builders are flat because a field is at once a YAML key, an option (``--tries``), an entry of the manifest that a folder is
    compared with, and a line of ``--help``. Nesting would add a prefix to each of them, and rename entries of existing folders.
    Settings shared by several builders are classes: `Sampling`, `ChatModelConfig`, sources, `Limits`.

    `nbg build-...` runs them (`commands.builder`). Builders that call models derive from `WorkflowBuilder`.

    Args:
        out: folder of the build.
    """

    name: ClassVar[str]  # name of the command, and in messages

    out: str

    @abstractmethod
    def run(self) -> JsonRecord:
        """Build, or resume the build in the folder.

        Returns:
            The report, which is also written to ``report.json``.

        Raises:
            FileNotFoundError, ValueError: unusable input or settings, or the folder holds another build.
                RuntimeError: another process builds in the folder, or the result is empty.
        """

    @abstractmethod
    def shown(self, report: JsonRecord) -> list[str | ReportTable]:
        """The lines and tables of a report for display."""
