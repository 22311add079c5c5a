"""Muon for the weight matrices of the blocks and AdamW for everything else, in one optimizer."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic iteration, kellerjordan.github.io/posts/muon
_ITERATIONS = 5
_RMS_OF_ADAMW = 0.2  # RMS of an update's entries, arXiv 2502.16982: one learning rate fits both


class MuonAdamW(torch.optim.AdamW):
    """AdamW whose parameter groups may have an ``lr_factor``, and use Muon instead with ``muon: True``.

    A group's ``lr`` is set by the schedule and multiplied by its ``lr_factor`` inside `step`, so schedules set the same
    learning rate for all groups.

    Per matrix ``W`` of shape (rows, columns) with gradient ``G``, ``β`` the group's ``momentum``:

    ``M ← β M + (1 − β) G``, ``O = orthogonalize(β M + (1 − β) G)``,
    ``W ← (1 − lr · weight_decay) W − 0.2 · sqrt(max(rows, columns)) · lr · O``.

    Momentum is stored in this rank's shards. ``O`` needs the whole matrix: each rank gathers one matrix after another,
    computes the same ``O``, and keeps its own rows. So the update does not depend on the number of ranks.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        rates = [group["lr"] for group in self.param_groups]
        for group in self.param_groups:
            group["lr"] *= group["lr_factor"]
        try:
            result = super().step(closure)
            for group in self.param_groups:
                if group["muon"]:
                    self._step_matrices(group)
        finally:
            for group, rate in zip(self.param_groups, rates, strict=True):
                group["lr"] = rate
        return result

    def _init_group(self, group: dict[str, Any], *lists: Any, **named: Any) -> bool:
        if group["muon"]:
            return False  # AdamW finds nothing to update in it
        return super()._init_group(group, *lists, **named)  # type: ignore[no-untyped-call]  # torch does not type it

    def _step_matrices(self, group: dict[str, Any]) -> None:
        rate = float(group["lr"])
        for weight in group["params"]:
            if weight.grad is None:
                continue
            state = self.state[weight]
            if not state:
                state["step"] = torch.zeros((), dtype=torch.float32, device=weight.device)  # as AdamW counts
                state["momentum_buffer"] = torch.zeros_like(weight)
            state["step"] += 1
            gradient, momentum = _local(weight.grad), _local(state["momentum_buffer"])
            momentum.lerp_(gradient, 1 - group["momentum"])
            update = orthogonalized(gradient.lerp(momentum, group["momentum"]), weight)
            scale = _RMS_OF_ADAMW * math.sqrt(max(weight.shape))
            _local(weight).mul_(1 - rate * group["weight_decay"]).add_(update, alpha=-rate * scale)


def orthogonalized(shard: Tensor, like: Tensor) -> Tensor:
    """This rank's shard of the orthogonalized matrix, given its shard of the matrix; ``like`` provides the sharding."""
    if not isinstance(like, DTensor):
        return orthogonalize(shard).to(shard.dtype)
    mesh, cut = like.device_mesh, like.placements
    shards = DTensor.from_local(
        shard.to(_precision(shard)), mesh, cut, run_check=False, shape=like.shape, stride=like.stride()
    )
    whole = orthogonalize(shards.full_tensor())
    everywhere = DTensor.from_local(whole, mesh, [Replicate()] * mesh.ndim, run_check=False)
    return everywhere.redistribute(placements=cut).to_local().to(shard.dtype)


def orthogonalize(matrix: Tensor) -> Tensor:
    """Five quintic Newton–Schulz iterations, which keep the singular vectors and bring singular values near 1 (0.7 to 1.2).

    In bfloat16 on an accelerator, in the matrix's own precision on a CPU.
    """
    a, b, c = _COEFFICIENTS
    result = matrix.to(_precision(matrix))
    wide = result.shape[0] <= result.shape[1]
    result = result if wide else result.T
    result = result / result.norm().clamp(min=1e-7)
    for _ in range(_ITERATIONS):
        gram = result @ result.T
        result = a * result + (b * gram + c * gram @ gram) @ result
    return result if wide else result.T.contiguous()


def _precision(matrix: Tensor) -> torch.dtype:
    return matrix.dtype if matrix.device.type == "cpu" else torch.bfloat16


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
