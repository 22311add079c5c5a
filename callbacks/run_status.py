"""The status file in a run's folder: module, progress, latest results. `nbg runs` reads it."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Literal

from nbg_lightning.data.durable import write_json

RECORD = "run.json"
LARGEST = 1 << 20  # bytes; a larger record is not read
RunState = Literal["running", "finished", "stopped", "failed"]


@dataclass
class RunStatus:
    """Status record of a run.

    Attributes:
        module: class name of the training module.
        state: last state that the run recorded; a killed run is still ``running`` here.
        step: optimizer steps done.
        steps: total steps of the run; None if unknown.
        stage: stage of the curriculum; None without one.
        results: the latest losses, rewards and accuracies, by the labels of `RunSummary`.
        error: the error that ended the run; None if it did not fail.
    """

    module: str = ""
    state: RunState = "running"
    step: int = 0
    steps: int | None = None
    stage: str | None = None
    results: dict[str, float] = field(default_factory=dict)
    error: str | None = None

    def write(self, folder: Path) -> None:
        """Write it atomically into the run's folder."""
        folder.mkdir(parents=True, exist_ok=True)
        finite = {name: value for name, value in self.results.items() if math.isfinite(value)}
        write_json(folder / RECORD, {**asdict(self), "results": finite})

    @classmethod
    def read(cls, folder: Path) -> RunStatus | None:
        """The record in a folder; None if there is none.

        Raises:
            ValueError: the file is not a status record.
        """
        try:
            with (folder / RECORD).open("rb") as stream:
                content = stream.read(LARGEST + 1)
            if len(content) > LARGEST:
                raise ValueError("it is too large")
            return cls._checked(json.loads(content))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError, RecursionError, OSError) as error:
            raise ValueError(f"{folder / RECORD} is invalid: {error}; move it away") from None

    @classmethod
    def _checked(cls, value: object) -> RunStatus:
        if not isinstance(value, dict):
            raise TypeError("it is no object")
        known = {each.name: value[each.name] for each in fields(cls) if each.name in value}
        record = cls(**known)
        texts = [record.module, record.state, *(each for each in (record.stage, record.error) if each is not None)]
        counts = [record.step, *(each for each in (record.steps,) if each is not None)]
        if not all(isinstance(each, str) for each in texts) or not all(type(each) is int for each in counts):
            raise TypeError("a field has another type")
        if not isinstance(record.results, dict):
            raise TypeError("results are no object")
        numbers = {str(name): float(number) for name, number in record.results.items()}
        record.results = {name: number for name, number in numbers.items() if math.isfinite(number)}
        return record
