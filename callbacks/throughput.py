"""Throughput in tokens per second, utilization of the hardware, and stragglers."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import lightning.pytorch as pl
import torch
from typing_extensions import override

from nbg_lightning.contracts import TrainsLanguageModel
from nbg_lightning.data.timed_loader import TimedLoader
from nbg_lightning.distributed import gather_objects


def measure_matmul_peak(device: torch.device, dtype: torch.dtype, seconds: float = 0.3) -> float:
    """FLOP/s of a large square matrix product on this device, the best of those that fit into ``seconds``.

    Measured rather than looked up, since tables of peaks do not know this machine's clocks or who else is using it.
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


class RankStep(NamedTuple):
    """Timing and memory of one rank's steps.

    Attributes:
        seconds: mean duration of a step.
        data_wait: share of the time spent waiting for data.
        memory: peak memory in bytes.
    """

    seconds: float
    data_wait: float
    memory: int


def compared(ranks: Sequence[RankStep]) -> dict[str, float]:
    """The extremes over ranks, by metric name.

    Example:
        >>> compared([RankStep(2.0, 0.0, 2**30), RankStep(1.5, 0.25, 2**31)])["data_wait_rank"]
        1.0
    """
    waits = [rank.data_wait for rank in ranks]
    return {
        "slowest_seconds": max(rank.seconds for rank in ranks),
        "fastest_seconds": min(rank.seconds for rank in ranks),
        "data_wait": max(waits),
        "data_wait_rank": float(waits.index(max(waits))),
        "memory_gib": max(rank.memory for rank in ranks) / 2**30,
    }


def peak_memory(device: torch.device) -> int:
    """Peak memory of this rank in bytes: of tensors on a CUDA device, otherwise of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size if sys.platform == "darwin" else size * 1024


def _seconds_waited(trainer: pl.Trainer) -> float:
    """Seconds that training has waited for data so far; 0 if the loader does not measure it."""
    loader = trainer.train_dataloader
    return loader.seconds_waited if isinstance(loader, TimedLoader) else 0.0


class Throughput(pl.Callback):
    """Logs ``throughput/tokens_per_second`` (all ranks), ``throughput/mfu`` and ``throughput/flops_per_second`` (per rank).

    Model FLOP/s are `LanguageModelConfig.flops_per_token` (recomputation not counted) times tokens per second; MFU divides
    them by the matrix-product peak **measured** on this device when training starts. Time in validation and checkpoints is
    excluded.

    On logged steps (``trainer.log_every_n_steps``) ranks are compared by their means over the window: step time of the
    slowest and the fastest rank (``throughput/slowest_seconds``, ``throughput/fastest_seconds``; a rank that arrives late
    at its step has a short one, for which the others wait), the largest share of time that a rank waits for data
    (``throughput/data_wait``) and that rank's number (``throughput/data_wait_rank``), and the largest peak memory of a rank
    (``throughput/memory_gib``: of tensors on a CUDA device, otherwise of the process).

    Args:
        window: steps over which values are averaged.
    """

    def __init__(self, window: int = 20):
        if window < 1:
            raise ValueError(f"window is invalid: {window}; give at least 1")
        self.window = window
        self._begin = 0.0

    def leave_out(self, seconds: float) -> None:
        """Exclude this time from the current step: another callback's work, such as a benchmark."""
        self._begin += seconds

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        dtype = getattr(torch, cast(TrainsLanguageModel, pl_module).parallel.compute_dtype)
        self._peak = measure_matmul_peak(pl_module.device, dtype)
        self._recent: list[tuple[int, float, float]] = []
        self._waited = _seconds_waited(trainer)

    @override
    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._begin = time.perf_counter()

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # A step ends with a copy of its loss to the host, so the clock measures finished work.
        module = cast(TrainsLanguageModel, pl_module)
        length = module.step_length
        before, self._waited = self._waited, _seconds_waited(trainer)
        self._recent.append((module.step_tokens, time.perf_counter() - self._begin, self._waited - before))
        self._recent = self._recent[-self.window :]
        tokens, seconds, waited = (sum(column) for column in zip(*self._recent, strict=True))
        rate = tokens / seconds
        flops = rate * module.shape.flops_per_token(length) / trainer.world_size
        pl_module.log("throughput/tokens_per_second", rate)
        pl_module.log("throughput/flops_per_second", flops)
        pl_module.log("throughput/mfu", flops / self._peak)
        if trainer.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            own = RankStep(seconds / len(self._recent), waited / (waited + seconds), peak_memory(pl_module.device))
            for name, value in compared(gather_objects(own)).items():
                pl_module.log(f"throughput/{name}", value)
