"""Tokens a second, and how much of the machine they use."""

from __future__ import annotations

import time
from typing import Any, cast

import lightning.pytorch as pl
import torch
from typing_extensions import override

from nbg_lightning.contracts import TrainsLanguageModel


def measure_matmul_peak(device: torch.device, dtype: torch.dtype, seconds: float = 0.3) -> float:
    """FLOP/s of a large square matrix product on this device, best of those that fit into ``seconds``.

    Measured, not looked up: tables of peaks know neither this machine's clocks nor who else is using it.
    """
    size = 8192 if device.type == "cuda" else 1536
    left = torch.randn(size, size, device=device, dtype=dtype)
    right = torch.randn(size, size, device=device, dtype=dtype)

    def once() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        begin = time.perf_counter()
        torch.mm(left, right)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - begin

    once()
    best, end = once(), time.perf_counter() + seconds
    while time.perf_counter() < end:
        best = min(best, once())
    return 2 * size**3 / best


class Throughput(pl.Callback):
    """Logs ``throughput/tokens_per_second`` (all ranks), ``throughput/mfu`` and ``throughput/flops_per_second`` (a rank).

    Model FLOP/s are `LanguageModelConfig.flops_per_token` (no recomputation counted) times tokens; MFU divides them by the
    matrix-product peak **measured** on this device when training starts. Time in validation and checkpoints is left out.

    Args:
        window: steps over which the rate is averaged.
    """

    def __init__(self, window: int = 20):
        if window < 1:
            raise ValueError(f"window is invalid: {window}; give at least 1")
        self.window = window
        self._begin = 0.0

    def leave_out(self, seconds: float) -> None:
        """Do not count this part of the step under way: another callback's work, such as a benchmark."""
        self._begin += seconds

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        dtype = getattr(torch, cast(TrainsLanguageModel, pl_module).parallel.compute_dtype)
        self._peak = measure_matmul_peak(pl_module.device, dtype)
        self._recent: list[tuple[int, float, int]] = []

    @override
    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._begin = time.perf_counter()

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # A step ends in a copy of its loss to the host, so the clock reads finished work.
        module = cast(TrainsLanguageModel, pl_module)
        length = module.step_length
        self._recent.append((module.step_tokens, time.perf_counter() - self._begin, length))
        self._recent = self._recent[-self.window :]
        tokens, seconds = (sum(column) for column in list(zip(*self._recent, strict=True))[:2])
        rate = tokens / seconds
        flops = rate * module.shape.flops_per_token(length) / trainer.world_size
        pl_module.log("throughput/tokens_per_second", rate)
        pl_module.log("throughput/flops_per_second", flops)
        pl_module.log("throughput/mfu", flops / self._peak)
