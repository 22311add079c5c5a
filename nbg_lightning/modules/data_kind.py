"""Check of which datamodules a module can be used with."""

from __future__ import annotations

import lightning.pytorch as pl

from nbg_lightning.data.kind import DataKind, misfit
from nbg_lightning.datamodules.steps import StepDataModule


def check_data(module: str, trains_on: DataKind | None, datamodule: pl.LightningDataModule | None) -> None:
    """Refuse data of another kind than a module is for, before it is prepared.

    Args:
        module: name of the module's class.
        trains_on: the kind of its data; None takes any.
        datamodule: the trainer's. Benchmarks go with any module, and so does one of the user's own that says no kind.

    Raises:
        ValueError: they do not go together, with those that do.
    """
    kind = datamodule.kind if isinstance(datamodule, StepDataModule) else None
    if trains_on is not None and kind is not None:
        line = misfit(module, trains_on, type(datamodule).__name__, kind)
        if line is not None:
            raise ValueError(line)
