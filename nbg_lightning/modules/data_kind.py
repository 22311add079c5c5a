"""Compatibility of modules and datamodules."""

from __future__ import annotations

import lightning.pytorch as pl

from nbg_lightning.data.kind import DataKind, misfit
from nbg_lightning.datamodules.steps import StepDataModule


def check_data(module: str, trains_on: DataKind | None, datamodule: pl.LightningDataModule | None) -> None:
    """Raise for data of a kind that a module cannot use, before it is prepared.

    Args:
        module: name of the module's class.
        trains_on: kind of its data; None accepts any.
        datamodule: the trainer's datamodule. Benchmarks work with any module, and so do custom datamodules that declare no
            kind.

    Raises:
        ValueError: they do not match, naming those that do.
    """
    kind = datamodule.kind if isinstance(datamodule, StepDataModule) else None
    if trains_on is not None and kind is not None:
        line = misfit(module, trains_on, type(datamodule).__name__, kind)
        if line is not None:
            raise ValueError(line)
