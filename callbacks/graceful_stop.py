"""Graceful shutdown: a signal ends training after the current step, on all ranks together, with a checkpoint."""

from __future__ import annotations

import signal
from contextlib import ExitStack
from typing import Any

import lightning.pytorch as pl
import torch
import torch.distributed as dist
from lightning.pytorch.trainer.states import TrainerFn
from typing_extensions import override

from nbg_lightning import stopping
from nbg_lightning.contracts import callbacks_of


class GracefulStop(pl.Callback):
    """Stops training after the current step or validation on SIGTERM, SIGINT (Ctrl-C), SIGHUP, SIGUSR1 or SIGUSR2.

    The signal may reach only one rank, or all ranks at different times: ranks exchange it at the end of each step and stop
    after the same one. Training then ends normally, so `StepCheckpoint` saves; the validation that Lightning would run
    there is skipped. A second signal ends the process at once (`nbg_lightning.stopping`).

    Attributes:
        received: the signal that ended training, or None.
        began: whether the current or last fit had a step to run.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self.began = False
        self._handler: stopping.StopHandler | None = None
        self._training = ExitStack()

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self.began = False

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._training.close()
        self.received = None
        self._handler = self._training.enter_context(stopping.handling("training"))
        self._training.enter_context(stopping.remembering("stopping after this step"))

    @override
    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.began = True  # not in on_train_start, which a finished run reaches too

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.agree(trainer)

    @override
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self.agree(trainer)

    def agree(self, trainer: pl.Trainer) -> None:
        """Stop if any rank has received a signal. Collective."""
        number = 0 if self._handler is None else int(self._handler.received or 0)
        if trainer.world_size > 1:
            largest = torch.tensor(number, device=trainer.strategy.root_device)
            dist.all_reduce(largest, dist.ReduceOp.MAX)
            number = int(largest)
        if number and self.received is None:
            self.received = signal.Signals(number)
            if self._handler is not None:
                self._handler.agreed(number)
            self._leave_loop(trainer)

    def _leave_loop(self, trainer: pl.Trainer) -> None:
        """End the epoch after this step, regardless of minimum steps or epochs, and without a validation."""
        validated, trainer.limit_val_batches = trainer.limit_val_batches, 0
        self._training.callback(setattr, trainer, "limit_val_batches", validated)
        trainer.fit_loop.min_epochs = trainer.fit_loop.epoch_loop.min_steps = None
        trainer.should_stop = True

    @override
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._end()

    @override
    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._end()

    def _end(self) -> None:
        self._training.close()
        self._handler = None


def stop_signal(trainer: pl.Trainer) -> signal.Signals | None:
    """The signal that has ended the trainer's fit, or None."""
    callbacks = callbacks_of(trainer)
    return next((each.received for each in callbacks if isinstance(each, GracefulStop)), None)
