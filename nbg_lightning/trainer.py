"""Lightning's Trainer with the defaults that the modules here need."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback, Checkpoint, ProgressBar
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.strategies import Strategy

from nbg_lightning.callbacks.checkpoint import StepCheckpoint
from nbg_lightning.callbacks.graceful_stop import GracefulStop
from nbg_lightning.callbacks.progress import TokenProgress
from nbg_lightning.callbacks.throughput import Throughput
from nbg_lightning.strategy import FSDP2Strategy


class Trainer(pl.Trainer):
    """`lightning.pytorch.Trainer`, set up for sharded language models. Every default can be overridden.

    * strategy: `FSDP2Strategy`, on one device too; precision stays ``32-true`` (bf16 is `ParallelConfig.compute_dtype`).
    * one epoch: the curriculum or the data decide the number of steps. The library's samplers shard the data.
    * TensorBoard under ``default_root_dir``, with one folder for all resumed parts of a run.
    * callbacks, unless there is one of the kind: `StepCheckpoint`, `TokenProgress`, `GracefulStop`, `Throughput`.
    """

    def __init__(
        self,
        *,
        strategy: str | Strategy | None = None,
        default_root_dir: str = "runs/default",
        logger: Logger | list[Logger] | bool | None = None,
        callbacks: list[Callback] | Callback | None = None,
        max_epochs: int | None = 1,
        use_distributed_sampler: bool = False,
        num_sanity_val_steps: int | None = 0,
        check_val_every_n_epoch: int | None = None,
        enable_checkpointing: bool | None = None,
        enable_progress_bar: bool | None = None,
        enable_model_summary: bool | None = False,
        log_every_n_steps: int | None = 10,
        **kwargs: Any,
    ):
        if kwargs.get("precision") not in (None, 32, "32", "32-true"):
            raise ValueError(
                f"precision={kwargs['precision']!r} would cast behind FSDP2's back: leave it out, and set the module's "
                "parallel.compute_dtype to bfloat16"
            )
        callbacks = [callbacks] if isinstance(callbacks, Callback) else list(callbacks or [])

        def add(kind: type[Callback], default: type[Callback], wanted: bool = True) -> None:
            if wanted and not any(isinstance(callback, kind) for callback in callbacks):
                callbacks.append(default())

        add(Throughput, Throughput)
        add(GracefulStop, GracefulStop)
        add(ProgressBar, TokenProgress, enable_progress_bar is not False)
        add(Checkpoint, StepCheckpoint, enable_checkpointing is not False)
        if logger is None or logger is True:
            Path(default_root_dir).mkdir(parents=True, exist_ok=True)
            logger = TensorBoardLogger(default_root_dir, name="tensorboard", version="")
        super().__init__(
            strategy=FSDP2Strategy() if strategy is None else strategy,
            default_root_dir=default_root_dir,
            logger=logger,
            callbacks=callbacks,
            max_epochs=max_epochs,
            use_distributed_sampler=use_distributed_sampler,
            num_sanity_val_steps=num_sanity_val_steps,
            check_val_every_n_epoch=check_val_every_n_epoch,
            enable_checkpointing=enable_checkpointing,
            enable_progress_bar=enable_progress_bar,
            enable_model_summary=enable_model_summary,
            log_every_n_steps=log_every_n_steps,
            **kwargs,
        )
