"""Learning-rate warmup and decay, for data without a curriculum."""

from __future__ import annotations

from typing import Any, get_args

import lightning.pytorch as pl
from torch.optim import Optimizer
from typing_extensions import override

from nbg_lightning.callbacks.learning_rate import LearningRateRule
from nbg_lightning.contracts import curriculum_of
from nbg_lightning.quantities import count_text
from nbg_lightning.schedule.curriculum import Decay, warmup_decay
from nbg_lightning.schedule.mixture import MixturePlan


class WarmupDecay(LearningRateRule):
    """Sets the learning rate of every step: linear warmup to ``lr``, then a decay to ``final_lr`` at the last step.

    A pure function of the step and of the number of steps of the datamodule's data (see
    `schedule.curriculum.warmup_decay`); no state is saved. ``max_steps`` ends a run earlier without changing the schedule.
    To change the mixture together with the learning rate, use `FGWSD` instead.

    Args:
        lr: peak learning rate; defaults to the optimizer's, which in turn defaults to the module's (`AdamWConfig`).
        warmup: share of the steps in which the learning rate rises from 0.
        decay: shape of the decay: ``cosine``, ``linear``, ``sqrt`` or ``exponential`` (needs ``final_lr`` above 0).
        final_lr: learning rate of the last step; equal to ``lr``, it stays constant.

    Raises:
        ValueError: a value out of its range.
    """

    def __init__(self, lr: float | None = None, warmup: float = 0.03, decay: Decay = "cosine", final_lr: float = 0.0):
        if lr is not None and not lr > 0:
            raise ValueError(f"lr is invalid: {lr}; give a number above 0")
        if not final_lr >= 0:
            raise ValueError(f"final_lr is invalid: {final_lr}; give at least 0")
        if not 0 <= warmup < 1:
            raise ValueError(f"warmup is invalid: {warmup}; give a share of the steps, at least 0 and below 1")
        if decay not in get_args(Decay):
            raise ValueError(f"decay is invalid: {decay!r}; choose one of {', '.join(get_args(Decay))}")
        if decay == "exponential" and final_lr == 0:
            raise ValueError(
                "final_lr is invalid: 0, which an exponential decay never reaches; give more, or another decay"
            )
        self.lr, self.warmup, self.decay, self.final_lr = lr, warmup, decay, final_lr

    def _curriculum(self, trainer: pl.Trainer) -> MixturePlan:
        curriculum = curriculum_of(trainer)
        if curriculum is None:
            raise ValueError(
                "WarmupDecay needs a datamodule that knows its number of steps; use ChatDataModule or another of this library"
            )
        return curriculum

    @override
    def described(self, trainer: pl.Trainer) -> str:
        warmup = round(self.warmup * self._curriculum(trainer).num_steps)
        highest = self._highest(trainer.optimizers[0])
        rise = f"0 -> {highest:g} in {count_text(warmup, 'step')}" if warmup else f"{highest:g}"
        return f"{rise}, then {self.decay} -> {self.final_lr:g}"

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._curriculum(trainer)  # refuses data without a number of steps

    def _highest(self, optimizer: Optimizer) -> float:
        return float(optimizer.defaults["lr"]) if self.lr is None else self.lr

    @override
    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        steps = self._curriculum(trainer).num_steps
        highest = self._highest(optimizer)
        lr = warmup_decay(trainer.global_step, steps, highest, self.warmup, self.decay, self.final_lr)
        for group in optimizer.param_groups:
            group["lr"] = lr

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        curriculum = self._curriculum(trainer)
        pl_module.log("data/tokens", float(trainer.global_step * int(curriculum.tokens_per_step)))
