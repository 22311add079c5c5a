"""Rewinding to the weights of an earlier step, and continuing with the data that follows the bad steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl

from nbg_lightning import log
from nbg_lightning.callbacks.checkpoint import StepCheckpoint, checkpoints, save_state, step_of
from nbg_lightning.contracts import UndoesSteps, callbacks_of, datamodule_of
from nbg_lightning.core.sharding import reshard
from nbg_lightning.data.order import order_state
from nbg_lightning.url_path import PathOrUrl


@dataclass(frozen=True)
class Rewind:
    """Lets `Sentinel` rewind to a checkpoint instead of stopping.

    Weights, averages and optimizer state are restored from the newest checkpoint before the bad steps. The step count
    continues: the next step uses the next data and its own learning rate, so the weights no longer contain anything trained
    on since that checkpoint. The data's hash chain records this (``nbg schedule --verify``), and the state is saved
    immediately.

    Attributes:
        rules: rules of `Sentinel` that trigger a rewind; the others stop or warn.
        most: maximum number of rewinds in a run; after that it stops.

    Raises:
        ValueError: a number below 1.
    """

    rules: tuple[str, ...] = ("non_finite", "spike")
    most: int = 3

    def __post_init__(self) -> None:
        if self.most < 1:
            raise ValueError(f"rewind.most is invalid: {self.most}; give at least 1, or leave rewind out")


def check_rewind(trainer: pl.Trainer) -> None:
    """Raise if a run cannot rewind.

    Raises:
        ValueError: no checkpoints are saved during training, or the data's position is not counted in steps.
    """
    saving = [each for each in callbacks_of(trainer) if isinstance(each, StepCheckpoint)]
    if not any(each.every_n_steps for each in saving):
        raise ValueError("rewind is invalid: there is nothing to go back to; set StepCheckpoint's every_n_steps")
    if not isinstance(datamodule_of(trainer), UndoesSteps):
        raise ValueError(
            f"rewind is invalid with {type(datamodule_of(trainer)).__name__}; use a datamodule of this library, which "
            "counts its steps"
        )


def go_back(trainer: pl.Trainer, pl_module: Any, before: int) -> int | None:
    """Restore the newest checkpoint whose step is at most ``before``. Collective, called after a step.

    Returns:
        Its step; None if there is none.
    """
    data = datamodule_of(trainer)
    assert isinstance(data, UndoesSteps)
    path = trainer.strategy.broadcast(_newest(trainer, before, data.undone) if trainer.is_global_zero else None)
    if path is None:
        return None
    reshard(pl_module.model)
    state = order_state(trainer.strategy.load_checkpoint(str(path)))
    assert state is not None, "the datamodule counts its steps"
    data.undo(state["step"], state["chain"])
    pl_module.on_averages_swapped()  # engines still have the old weights
    log.warn(
        f"step {trainer.global_step}: back to the weights of step {state['step']}; what was trained on since is left out, and "
        "the next step has the next data"
    )
    save_state(trainer)  # a resumed run must start from these weights
    return int(state["step"])


def _newest(trainer: pl.Trainer, before: int, undone: list[tuple[int, int]]) -> PathOrUrl | None:
    folders = {str(each.dirpath) for each in callbacks_of(trainer) if isinstance(each, StepCheckpoint)}
    found = [path for folder in folders for path in checkpoints(folder) if step_of(path) <= before]
    kept = [path for path in found if not any(first < step_of(path) < last for first, last in undone)]
    return max(kept, key=step_of, default=None)
