"""Ctrl-C and SIGTERM finish the step, save, and leave."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

import lightning.pytorch as pl
from typing_extensions import override

from nbg_lightning import messages


class GracefulStop(pl.Callback):
    """Stops training after the present step on SIGINT (Ctrl-C) or SIGTERM (a scheduler's notice), on all ranks together.

    The signal may reach one rank only: the wish travels with the counts that ranks exchange at each step anyway. Then
    training ends as usual, so `StepCheckpoint` saves. A second Ctrl-C interrupts at once.

    Attributes:
        received: the signal that ended training, or None.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._previous: dict[signal.Signals, Any] = {}

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.received = None
        pl_module.stop_requested = False
        if threading.current_thread() is not threading.main_thread():
            return  # Python delivers signals to the main thread only

        def handle(number: int, frame: FrameType | None) -> None:
            if self.received is not None and number == signal.SIGINT:
                raise KeyboardInterrupt
            self.received = signal.Signals(number)
            pl_module.stop_requested = True
            messages.info(f"\n{self.received.name}: stopping after this step (Ctrl-C again: at once)")

        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, handle)

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if pl_module.stop_agreed:
            self.received = self.received or signal.SIGTERM  # another rank got it
            trainer.should_stop = True

    def _restore(self) -> None:
        while self._previous:
            signal.signal(*self._previous.popitem())

    @override
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._restore()

    @override
    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._restore()
