"""The contract of every builder of data: settings in, one folder out, and a report that a command can show."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from nbg_lightning.construction.store import JsonRecord


class ReportTable(NamedTuple):
    """A table in a report for people.

    Attributes:
        title: above it.
        columns: names.
        rows: texts.
    """

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


@dataclass(kw_only=True)
class Builder(ABC):
    """Base of builders: flat dataclasses whose fields are the keys of a YAML file and the options of a command.

    A builder checks its settings when it is made, and reads and writes nothing before `run`. A build that was killed goes
    on where it was when it is started again, and ends with the bytes of a straight run; a folder is never continued with
    other settings.

    Why flat: a field is a key of YAML, an option (``--tries``), an entry of the manifest that a folder is compared with, and a
    line of ``--help``. Groups would be one more name before each of them, and another name for every folder that is there. What
    belongs together is a class where several builders share it: `Sampling`, `ChatModelConfig`, sources, `Limits`.

    `nbg build-...` runs any of them (`commands.builder`). Those that ask models derive from `WorkflowBuilder`.

    Args:
        out: folder of the build.
    """

    name: ClassVar[str]  # of the command, and in messages

    out: str

    @abstractmethod
    def run(self) -> JsonRecord:
        """Build, or go on with the build in the folder.

        Returns:
            The report, which is in ``report.json`` too.

        Raises:
            FileNotFoundError, ValueError: input or settings that cannot be used, or a folder of something else.
            RuntimeError: another process builds in the folder, or nothing came of it.
        """

    @abstractmethod
    def shown(self, report: JsonRecord) -> list[str | ReportTable]:
        """The lines and tables of a report that a command shows."""
