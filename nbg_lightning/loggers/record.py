"""The run's own metrics file: every scalar as a line of JSON, independent of other loggers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only
from typing_extensions import override

from nbg_lightning.json_lines import json_line, read_json_lines

RECORD = "metrics.jsonl"


class RunRecord(Logger):
    """Appends a line for each logged step to ``metrics.jsonl``: ``{"step": 10, "train/loss": 2.5}``.

    `nbg_lightning.Trainer` adds one besides the configured loggers, so that curves of any run can be plotted later. A
    resumed run appends; if a step occurs twice, the later line counts (`read_metrics`).

    Args:
        folder: folder of the run.
    """

    def __init__(self, folder: str | Path):
        super().__init__()
        self.file = Path(folder) / RECORD

    @property
    @override
    def name(self) -> str:
        return "record"

    @property
    @override
    def version(self) -> str:
        return ""

    @override
    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        values = {name: _number(value) for name, value in metrics.items() if name != "epoch"}
        if not values:
            return
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("ab") as stream:
            stream.write(json_line({"step": step, **values}))

    @override
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Do nothing: hyperparameters are in ``config.yaml``."""


def _number(value: Any) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None


def read_metrics(file: Path) -> dict[str, dict[int, float]]:
    """Finite values by name and step; truncated lines and values that are not numbers are skipped."""
    found: dict[str, dict[int, float]] = {}
    for _, line in read_json_lines(file, torn=lambda number, reason: None):
        step = line.pop("step", None) if isinstance(line, dict) else None
        if not isinstance(step, int):
            continue
        for name, value in line.items():
            if isinstance(value, (int, float)) and math.isfinite(value):
                found.setdefault(name, {})[step] = float(value)
    return found
