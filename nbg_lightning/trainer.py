"""Lightning's Trainer with the defaults that the modules here need."""

from __future__ import annotations

import os
import re
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, ProgressBar
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.strategies import Strategy
from lightning.pytorch.trainer.connectors.checkpoint_connector import _CheckpointConnector
from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector
from lightning.pytorch.trainer.states import TrainerFn
from typing_extensions import override

from nbg_lightning import log
from nbg_lightning.callbacks.checkpoint import StepCheckpoint
from nbg_lightning.callbacks.fg_wsd import FGWSD
from nbg_lightning.callbacks.graceful_stop import GracefulStop
from nbg_lightning.callbacks.progress import TokenProgress
from nbg_lightning.callbacks.run_summary import RunSummary
from nbg_lightning.callbacks.throughput import Throughput
from nbg_lightning.core.checkpoint_folder import checkpoint_at, settle_all
from nbg_lightning.core.context_size import check_context, check_window
from nbg_lightning.data.folder_lock import folder_lock
from nbg_lightning.datamodules.steps import StepDataModule
from nbg_lightning.launch import ranks_of_launch
from nbg_lightning.loggers.record import RunRecord
from nbg_lightning.modules.base import LanguageModule
from nbg_lightning.quiet import quiet_training
from nbg_lightning.strategy import FSDP2Strategy
from nbg_lightning.trainer_options import ALWAYS, STEPS, TRAINING, refuse
from nbg_lightning.url_path import PathOrUrl, place_of


class Trainer(pl.Trainer):
    """`lightning.pytorch.Trainer`, set up for sharded language models. Every default can be overridden.

    * strategy: `FSDP2Strategy`, also on a single device; precision stays ``32-true`` (bf16 is
      `ParallelConfig.compute_dtype`).
    * one epoch: the curriculum or the data determine the number of steps. The library's samplers shard the data.
    * TensorBoard under ``default_root_dir``, with one folder for all resumed parts of a run; and, in addition to any
      logger, a `RunRecord` of all scalars, ``metrics.jsonl``, for reports.
    * callbacks, unless one of the same kind is given: `StepCheckpoint` (even with another `ModelCheckpoint`, which may save
      nothing), `TokenProgress`, `GracefulStop`, `Throughput`, `RunSummary`. ``enable_checkpointing=False`` leaves a
      `StepCheckpoint` out.
    * devices and num_nodes: those of the launcher (torchrun, Slurm), if one started this process.
    * one fit at a time per ``default_root_dir``: a second process gets an error.

    Raises:
        ValueError: an unsupported option; the message names the one to use instead.
    """

    # Lightning sets these without declaring them.
    callbacks: list[Callback]
    fast_dev_run: bool | int
    overfit_batches: int | float
    reload_dataloaders_every_n_epochs: int

    def __init__(
        self,
        *,
        strategy: str | Strategy | None = None,
        default_root_dir: str = "runs/default",
        devices: list[int] | str | int = "auto",
        num_nodes: int | None = None,
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
        refuse({**kwargs, "strategy": strategy, "devices": devices, "num_nodes": num_nodes}, ALWAYS)
        _check_devices(kwargs.get("accelerator"), devices)
        devices, num_nodes = ranks_of_launch(devices, num_nodes, os.environ)
        quiet_training()
        callbacks = [callbacks] if isinstance(callbacks, Callback) else list(callbacks or [])
        if enable_checkpointing is False:
            callbacks = [callback for callback in callbacks if not isinstance(callback, StepCheckpoint)]

        def add(kind: type[Callback], default: type[Callback], wanted: bool = True) -> None:
            if wanted and not any(isinstance(callback, kind) for callback in callbacks):
                callbacks.append(default())

        add(RunSummary, RunSummary)
        add(Throughput, Throughput)
        add(GracefulStop, GracefulStop)
        add(ProgressBar, TokenProgress, enable_progress_bar is not False)
        add(StepCheckpoint, StepCheckpoint, enable_checkpointing is not False)
        if logger is None or logger is True:
            Path(default_root_dir).mkdir(parents=True, exist_ok=True)
            logger = TensorBoardLogger(default_root_dir, name="tensorboard", version="")
        loggers = [] if logger is False else [logger] if isinstance(logger, Logger) else list(logger)
        if loggers and not any(isinstance(each, RunRecord) for each in loggers):
            loggers.append(RunRecord(default_root_dir))
        super().__init__(
            devices=devices,
            num_nodes=num_nodes,
            strategy=FSDP2Strategy() if strategy in (None, "auto") else strategy,
            default_root_dir=default_root_dir,
            logger=loggers or False,
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
        self._signal_connector = _NoSignals(self)
        self._checkpoint_connector = _SettledCheckpoints(self)

    @override
    def fit(
        self,
        model: pl.LightningModule,
        train_dataloaders: Any = None,
        val_dataloaders: Any = None,
        datamodule: pl.LightningDataModule | None = None,
        ckpt_path: str | Path | None = None,
        weights_only: bool | None = None,
    ) -> None:
        """Train, as `lightning.pytorch.Trainer.fit` does.

        Raises:
            ValueError: an option of the trainer that does not work with this module.
            FolderInUse: another process trains in ``default_root_dir``.
        """
        if isinstance(model, LanguageModule):
            _check_options(self, model, datamodule)
        with self._run_folder():
            super().fit(model, train_dataloaders, val_dataloaders, datamodule, ckpt_path, weights_only)
        self._say_what_was_not_done(ckpt_path)

    @override
    def save_checkpoint(
        self, filepath: str | PathOrUrl, weights_only: bool | None = None, storage_options: Any | None = None
    ) -> None:
        """Save, as Lightning does; during a validation with averaged weights, the trained weights are saved."""
        module = self.lightning_module
        with module.trained_weights() if isinstance(module, LanguageModule) else nullcontext():
            super().save_checkpoint(str(filepath), weights_only, storage_options)

    def _run_folder(self) -> AbstractContextManager[None]:
        if self.fast_dev_run or not self.is_global_zero:
            return nullcontext()
        return folder_lock(Path(self.default_root_dir), "trains")

    def _say_what_was_not_done(self, ckpt_path: str | Path | None) -> None:
        callbacks = self.callbacks
        began = any(each.began for each in callbacks if isinstance(each, GracefulStop))
        if not began and ckpt_path is not None and self.global_step:
            end = f"max_steps is {self.max_steps}" if 0 <= self.max_steps <= self.global_step else "the data end there"
            log.info(f"nothing to do: the checkpoint is at step {self.global_step}, and {end}")
        elif not began:
            log.warn("nothing was trained: there is no training batch, or max_steps or max_epochs is 0")
        elif not any(isinstance(each, StepCheckpoint) for each in callbacks):
            log.warn("nothing was saved: checkpoints are off (trainer.enable_checkpointing)")
        elif self.fast_dev_run:
            log.info("nothing is saved in a fast_dev_run")


class _NoSignals(_SignalConnector):
    """Disables Lightning's signal handlers, which broadcast from within a handler, and raise in the middle of a step:
    `GracefulStop` is used.
    """

    @override
    def register_signal_handlers(self) -> None:
        self.received_sigterm = False

    @override
    def teardown(self) -> None:
        """Do nothing, since nothing was registered."""


class _SettledCheckpoints(_CheckpointConnector):
    """Completes interrupted replacements before a checkpoint is chosen, and resolves a run's folder to its newest one."""

    @override
    def _select_ckpt_path(
        self, state_fn: TrainerFn, ckpt_path: str | Path | None, model_provided: bool, model_connected: bool
    ) -> str | Path | None:
        if ckpt_path == "last":  # of any callback
            for folder in _checkpoint_folders(self.trainer):
                settle_all(folder)
            for callback in self.trainer.checkpoint_callbacks:
                if isinstance(callback, StepCheckpoint) and callback.is_remote:
                    return callback.newest(
                        self.trainer
                    )  # Lightning compares times of folders, which stores do not have
        elif ckpt_path is not None:
            ckpt_path = checkpoint_at(ckpt_path)
        return super()._select_ckpt_path(state_fn, ckpt_path, model_provided, model_connected)


def _checkpoint_folders(trainer: pl.Trainer) -> set[PathOrUrl]:
    root = Path(trainer.default_root_dir)
    named = [each.dirpath for each in trainer.checkpoint_callbacks if isinstance(each, ModelCheckpoint)]
    return {*(place_of(folder) for folder in named if folder), root / "checkpoints", *root.glob("*/checkpoints")}


def _check_devices(accelerator: Any, devices: Any) -> None:
    """Raise for GPUs that do not exist, and for CPU ranks that are not given as a number, before data is prepared.

    Raises:
        ValueError: with what to set instead.
    """
    if accelerator not in ("gpu", "cuda"):
        is_cpu = accelerator == "cpu" or not torch.cuda.is_available()
        if is_cpu and not isinstance(devices, int) and not re.fullmatch(r"auto|-1|[1-9][0-9]*", str(devices)):
            raise ValueError(f"trainer.devices is invalid: {devices!r:.40}; give the number of CPU ranks, such as 1")
        return
    if not torch.cuda.is_available():
        raise ValueError(
            f"trainer.accelerator is invalid: {accelerator}; torch {torch.__version__} sees no CUDA device here: set it to cpu, "
            "or install a CUDA build of torch and its driver"
        )
    if isinstance(devices, int) and devices > torch.cuda.device_count():
        raise ValueError(
            f"trainer.devices is invalid: {devices}; torch sees {torch.cuda.device_count()} CUDA devices here: give as many, or "
            "leave it out to take all"
        )


def _check_options(trainer: Trainer, module: LanguageModule, datamodule: Any) -> None:
    """Raise for ranks that do not divide a step, and for Lightning options that do not apply here, before data is prepared.

    Raises:
        ValueError: an option without effect, or with another one than intended.
    """
    check_context(module.parallel.context, module.shape, trainer.world_size)
    together = module.ranks_per_sample
    readers = trainer.world_size // together
    windows: list[int] = []
    for callback in trainer.callbacks:
        if isinstance(callback, FGWSD):
            callback.curriculum.check_ranks(readers)
            windows += map(callback.curriculum.sequence_length_of, range(len(callback.curriculum.stages)))
    if isinstance(datamodule, StepDataModule):
        datamodule.check_ranks(readers)
        windows += datamodule.known_windows
        epochs = {"max_epochs": trainer.max_epochs, "min_epochs": trainer.min_epochs}
        refuse({**epochs, "reload_dataloaders_every_n_epochs": trainer.reload_dataloaders_every_n_epochs}, STEPS)
    for window in windows:
        check_window(together, window)
    clipping = {
        "gradient_clip_val": trainer.gradient_clip_val,
        "gradient_clip_algorithm": trainer.gradient_clip_algorithm,
    }
    batches = {"accumulate_grad_batches": trainer.accumulate_grad_batches, "overfit_batches": trainer.overfit_batches}
    refuse({**batches, **clipping, "num_nodes": trainer.num_nodes}, TRAINING)
