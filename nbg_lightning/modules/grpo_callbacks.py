"""Callbacks of every run of `GRPOModule`."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
from typing_extensions import override

from nbg_lightning.contracts import callbacks_of
from nbg_lightning.rl.training_rollouts import TrainingRollouts


class KeepRollouts(pl.Callback):
    """Shuts down the engine and the reward's processes with the run, also after a failure, when Lightning does not call
    `teardown`.

    Checkpoints record the run's ledger once pending answers are in it.
    """

    def __init__(self, answers: TrainingRollouts):
        self.answers = answers

    @override
    def state_dict(self) -> dict[str, Any]:
        return self.answers.state()

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.answers.load_state(state_dict)

    @override
    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self.answers.collector.close()

    @override
    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self.answers.collector.close()


def watching_callbacks(trainer: pl.Trainer) -> list[pl.Callback]:
    """Callbacks that monitor a run and show its answers, unless the trainer has its own `Sentinel` or `SampleTable`."""
    from nbg_lightning.callbacks.sample_table import SampleTable
    from nbg_lightning.callbacks.sentinel import Sentinel

    own = tuple(type(callback) for callback in callbacks_of(trainer))
    return [kind() for kind in (Sentinel, SampleTable) if not any(issubclass(other, kind) for other in own)]
