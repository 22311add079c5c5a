"""Common parts of the checks: the device, sizes for it, a clock, and a model that is ready to train."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cached_property, partial
from typing import Any

import torch
import torch.distributed as dist


class LeftOut(Exception):
    """A check that cannot run here; the message says why."""


class Setting:
    """A device and the sizes of its checks: those of real models on CUDA, tiny ones on a CPU.

    Args:
        device_type: ``cuda`` or ``cpu``.
        layers: of the 1 B and 3 B shapes; a step's rate hardly depends on them, its memory does.
    """

    def __init__(self, device_type: str, layers: int):
        self.cuda = device_type == "cuda"
        self.device = torch.device(device_type)
        self.layers = layers
        self.dtype_name = "bfloat16" if self.cuda else "float32"
        self.dtype = getattr(torch, self.dtype_name)

    def needs_cuda(self) -> None:
        """Raise `LeftOut` on a CPU."""
        if not self.cuda:
            raise LeftOut("needs CUDA")

    def wait(self) -> None:
        """Wait until the device is done."""
        self.stopwatch.wait()

    def seconds(self, run: Callable[[], Any], times: int = 4) -> float:
        """The fastest of some runs after one that is not counted; on a CPU of one."""
        return self.stopwatch.seconds(run, times if self.cuda else 1)

    @cached_property
    def stopwatch(self) -> Any:
        """The clock of `nbg plan --calibrate` on this device."""
        from nbg_lightning.planning.calibrate import Stopwatch

        return Stopwatch(self.device, time.perf_counter)

    def peak_gib(self, run: Callable[[], Any]) -> float | None:
        """GiB allocated at most while it runs; None on a CPU."""
        if not self.cuda:
            run()
            return None
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        run()
        torch.cuda.synchronize()
        return round(torch.cuda.max_memory_allocated() / 2**30, 3)

    def documents(self, total: int, mean: float, seed: int = 0) -> torch.Tensor:
        """Offsets of documents of exponential lengths, on the CPU."""
        generator = torch.Generator().manual_seed(seed)
        cuts = [0]
        while cuts[-1] < total:
            drawn = int(torch.empty(1).exponential_(1 / mean, generator=generator))
            cuts.append(min(total, cuts[-1] + 1 + drawn))
        return torch.tensor(cuts, dtype=torch.int32)

    @cached_property
    def mesh(self) -> Any:
        """A process group of one rank."""
        from torch.distributed.device_mesh import init_device_mesh

        if not dist.is_initialized():
            backend = "nccl" if self.cuda else "gloo"
            dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
        return init_device_mesh(self.device.type, (1,), mesh_dim_names=("dp",))

    def shape(self, name: str) -> Any:
        """A preset with fewer layers; next to nothing on a CPU."""
        from nbg_lightning.core import preset

        return preset(name, num_hidden_layers=self.layers) if self.cuda else preset("nano")

    def model(self, shape: Any, **parallel: Any) -> Any:
        """A sharded model as `nbg fit` makes it."""
        from nbg_lightning.core import ParallelConfig, create_model

        parallel.setdefault("compute_dtype", self.dtype_name)
        return create_model(shape, ParallelConfig(**parallel), self.mesh, self.device)

    def inputs(self, shape: Any, rows: int, length: int, mean: float | None = None) -> tuple[torch.Tensor, ...]:
        """Tokens, positions and offsets of packed documents; without a mean length every row is one."""
        total = rows * length
        borders = torch.arange(0, total + 1, length)
        offsets = borders if mean is None else torch.unique(torch.cat((self.documents(total, mean), borders)))
        begins = torch.zeros(total, dtype=torch.int64)
        begins[offsets[:-1].long()] = offsets[:-1].long()
        positions = (torch.arange(total) - begins.cummax(0).values).view(rows, length)
        generator = torch.Generator().manual_seed(1)
        tokens = torch.randint(0, shape.vocab_size, (rows, length), generator=generator)
        return tokens.to(self.device), positions.to(self.device), offsets.int().to(self.device)


def loss_of(model: Any, tokens: torch.Tensor, positions: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of packed documents with the tokens themselves as labels."""
    from nbg_lightning.core.head import linear_cross_entropy

    head = partial(linear_cross_entropy, labels_T=tokens)
    return model(tokens, positions, offsets, head).loss / tokens.numel()


def relative(found: torch.Tensor, reference: torch.Tensor) -> float:
    """``|a - b| / |b|`` in float64."""
    reference = reference.detach().double().cpu()
    return float((found.detach().double().cpu() - reference).norm() / reference.norm().clamp(min=1e-300))


def within(found: dict[str, Any], limits: dict[str, float]) -> dict[str, Any]:
    """Return the numbers; AssertionError if one is above its limit.

    Raises:
        AssertionError: naming each number that is too large.
    """
    wrong = [
        f"{name} is {found[name]:.3g}, more than {limit:g}"
        for name, limit in limits.items()
        if not found[name] <= limit
    ]
    if wrong:
        raise AssertionError("; ".join(wrong))
    return found
