"""The effect of each stage on each source: its last validation, as a table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from rich.console import Console
from rich.table import Table
from typing_extensions import override

from nbg_lightning.contracts import curriculum_of
from nbg_lightning.data.durable import write_atomic
from nbg_lightning.loggers.tables import log_table


class StageTable(pl.Callback):
    """Records the last validation of each stage in a file, and prints all of them as a table when training ends.

    For a row to show the state at the end of its stage, ``val_check_interval`` must divide the stages' steps. The
    checkpoint of a step is written before that step is validated, so a resumed run reads rows missing from its checkpoint
    from the file.

    Args:
        path: where to write the table as JSON; ``<default_root_dir>/stages.json`` by default.
    """

    def __init__(self, path: str | None = None):
        self.path = path
        self.stages: dict[str, dict[str, float]] = {}

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"stages": self.stages}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.stages = state_dict["stages"]

    def _file(self, trainer: pl.Trainer) -> Path:
        return Path(self.path or Path(trainer.default_root_dir) / "stages.json")

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.global_step == 0:
            self.stages = {}
            return
        path = self._file(trainer)
        saved = json.loads(path.read_text()) if path.is_file() else {}
        for name, row in saved.items():
            if self.stages.get(name, {"step": 0})["step"] < row["step"] <= trainer.global_step:
                self.stages[name] = row
        self.stages = dict(sorted(self.stages.items(), key=lambda item: item[1]["step"]))

    @override
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        curriculum = curriculum_of(trainer)
        if trainer.sanity_checking or trainer.state.fn != "fit" or curriculum is None:
            return
        stage = curriculum.stages[curriculum.stage_at(max(trainer.global_step - 1, 0))].name
        values = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val/")}
        self.stages[stage] = {"step": trainer.global_step, **values}
        if trainer.is_global_zero:
            path = self._file(trainer)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, json.dumps(self.stages, indent=2) + "\n")

    @override
    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero and self.stages:
            Console().print(self.table())
            columns = list(dict.fromkeys(name for row in self.stages.values() for name in row))
            rows = [[stage, *(row.get(name) for name in columns)] for stage, row in self.stages.items()]
            log_table(trainer.loggers, "stages", ["stage", *columns], rows, trainer.global_step)

    def table(self) -> Table:
        """One row per stage and one column per source, with loss in nats per token and bits per byte."""
        table = Table(title="end of each stage: loss (bits per byte)")
        table.add_column("stage")
        table.add_column("step", justify="right")
        names = dict.fromkeys(name for values in self.stages.values() for name in values)  # sources may join later
        sources = [name.split("/")[1] for name in names if name.count("/") == 2 and name.endswith("/loss")]
        for source in sources:
            table.add_column(source, justify="right")
        for stage, values in self.stages.items():
            cells = [
                f"{values[f'val/{s}/loss']:.3f} ({values[f'val/{s}/bits_per_byte']:.3f})"
                if f"val/{s}/loss" in values
                else "-"
                for s in sources
            ]
            table.add_row(stage, f"{values['step']:.0f}", *cells)
        return table
