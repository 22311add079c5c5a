"""What each stage of a curriculum did for each source: the last validation in it, as a table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from rich.console import Console
from rich.table import Table
from typing_extensions import override


class StageTable(pl.Callback):
    """Keeps the last validation of each stage; prints and saves them when training ends.

    A stage shows the state at its end if validation falls there: let ``val_check_interval`` divide the stages' steps.

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

    @override
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        curriculum = getattr(trainer.datamodule, "curriculum", None)
        if trainer.sanity_checking or (not trainer.training and trainer.state.fn != "fit") or curriculum is None:
            return
        stage = curriculum.stages[curriculum.stage_at(max(trainer.global_step - 1, 0))].name
        values = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val/")}
        self.stages[stage] = {"step": trainer.global_step, **values}

    @override
    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.is_global_zero or not self.stages:
            return
        path = Path(self.path or Path(trainer.default_root_dir) / "stages.json")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.stages, indent=2) + "\n")
        Console().print(self.table())

    def table(self) -> Table:
        """Rows are stages; a column a source, with loss in nats a token and bits a byte."""
        table = Table(title="validation at the end of each stage: loss (bits per byte)")
        table.add_column("stage")
        table.add_column("step", justify="right")
        metrics = next(iter(self.stages.values()))
        sources = [name.split("/")[1] for name in metrics if name.count("/") == 2 and name.endswith("/loss")]
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
