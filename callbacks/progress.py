"""Progress in tokens: stage, fraction done, speed, time left."""

from __future__ import annotations

import math
import time
from datetime import timedelta
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from typing_extensions import override

from nbg_lightning.contracts import NamesUnit, curriculum_of, datamodule_of
from nbg_lightning.schedule.tokens import format_tokens


class TokenProgress(ProgressBar):
    """Shows a progress bar on a terminal; elsewhere, prints a line at intervals, suitable for a log file.

    Args:
        seconds: interval between lines without a terminal.
    """

    def __init__(self, seconds: float = 15.0):
        super().__init__()
        self.seconds = seconds
        self._enabled = True
        self._bar: Progress | None = None
        self._console: Console | None = None

    @override
    def disable(self) -> None:
        self._enabled = False

    @override
    def enable(self) -> None:
        self._enabled = True

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        datamodule = datamodule_of(trainer)
        self._curriculum = curriculum_of(trainer)
        self._unit = datamodule.unit if isinstance(datamodule, NamesUnit) else "tokens"  # of the curriculum
        limits = [trainer.num_training_batches, trainer.max_steps if trainer.max_steps >= 0 else math.inf]
        # None: unknown, as with an iterable dataset without max_steps.
        self._total = None if math.isinf(min(limits)) else int(min(limits))
        self._first = trainer.global_step
        self._begin = self._printed = time.monotonic()
        self._console = console = Console(stderr=True)
        if self._enabled and trainer.is_global_zero and console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[state]}"),
                TimeElapsedColumn(),
                TextColumn("elapsed,"),
                TimeRemainingColumn(),
                TextColumn("left"),
                console=console,
            )
            self._task = self._bar.add_task("", total=self._total, completed=trainer.global_step, state="")
            self._bar.start()

    def _describe(self, trainer: pl.Trainer) -> tuple[str, str]:
        metrics = trainer.progress_bar_metrics
        loss = f"loss {float(metrics['train/loss']):.3f}" if "train/loss" in metrics else ""
        if "reward/mean" in metrics:  # a policy's loss is near 0 and says little
            loss = f"reward {float(metrics['reward/mean']):.3f}"
        rate = trainer.callback_metrics.get("throughput/tokens_per_second")
        speed = f"{format_tokens(float(rate))} tok/s" if rate is not None else ""
        step = trainer.global_step
        if self._curriculum is None:
            return "train", f"step {step}{'' if self._total is None else f'/{self._total}'}  {loss}  {speed}"
        table = self._curriculum
        done = step * int(table.tokens_per_step)
        name = table.stages[table.stage_at(max(step - 1, 0))].name
        total = format_tokens((self._total or 0) * int(table.tokens_per_step))
        return name, f"{format_tokens(done)}/{total} {self._unit}  {loss}  {speed}"

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not self._enabled or not trainer.is_global_zero:
            return
        if self._bar is not None:
            description, state = self._describe(trainer)
            self._bar.update(self._task, completed=trainer.global_step, description=description, state=state)
            return
        now = time.monotonic()
        if now - self._printed >= self.seconds:
            self._printed = now
            name, state = self._describe(trainer)
            done = trainer.global_step - self._first
            left = ""
            if self._total is not None:
                seconds = (now - self._begin) / max(done, 1) * (self._total - trainer.global_step)
                left = f"  {timedelta(seconds=round(seconds))} left"
            self._print_line(f"[{name}] {state}{left}")

    def _print_line(self, line: str) -> None:
        assert self._console is not None
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    @override
    def print(self, *args: Any, **kwargs: Any) -> None:
        if self._console is None:
            print(*args)
        else:
            self._console.print(*args)

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    @override
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._stop()

    @override
    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._stop()
