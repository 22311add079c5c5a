"""Callbacks that every run of `GRPOModule` has."""

from __future__ import annotations

import lightning.pytorch as pl
from typing_extensions import override

from nbg_lightning.rl.collector import RolloutCollector


class CloseCollector(pl.Callback):
    """Ends the engine and the reward's processes with the run, also with one that fails: Lightning calls no `teardown` then."""

    def __init__(self, collector: RolloutCollector):
        self.collector = collector

    @override
    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self.collector.close()

    @override
    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self.collector.close()


def watching_callbacks(trainer: pl.Trainer) -> list[pl.Callback]:
    """Callbacks that watch a run and show its answers, unless the trainer has a `Sentinel` or `SampleTable` of its own."""
    from nbg_lightning.callbacks.sample_table import SampleTable
    from nbg_lightning.callbacks.sentinel import Sentinel

    own = tuple(type(callback) for callback in trainer.callbacks)  # type: ignore[attr-defined]
    return [kind() for kind in (Sentinel, SampleTable) if not any(issubclass(other, kind) for other in own)]
