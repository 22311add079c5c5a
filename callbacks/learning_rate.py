"""Base class of callbacks that set the learning rate."""

from __future__ import annotations

import lightning.pytorch as pl
from typing_extensions import override

from nbg_lightning.contracts import callbacks_of


class LearningRateRule(pl.Callback):
    """Base class of callbacks that set the learning rate of every step. A trainer may have at most one."""

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        rules = rules_of(trainer)
        if stage == "fit" and len(rules) > 1:
            names = " and ".join(type(rule).__name__ for rule in rules)
            raise ValueError(f"{names} both set the learning rate; keep one of them")

    def described(self, trainer: pl.Trainer) -> str:
        """A short description of the schedule."""
        return type(self).__name__


def rules_of(trainer: pl.Trainer) -> list[LearningRateRule]:
    """The callbacks of a trainer that set the learning rate."""
    callbacks = callbacks_of(trainer)
    return [callback for callback in callbacks if isinstance(callback, LearningRateRule)]
