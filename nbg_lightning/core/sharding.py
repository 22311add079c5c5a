"""Control of FSDP2 from a training loop: gradient reduction, freeing of gathered weights, and the rows that a rank holds."""

from __future__ import annotations

import torch
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset


def sharded_modules(model: torch.nn.Module) -> list[FSDPModule]:
    """The FSDP units of a model (none if it is not sharded)."""
    return [module for module in model.modules() if isinstance(module, FSDPModule)]


def set_gradient_sync(model: torch.nn.Module, enabled: bool) -> None:
    """Set whether the next backward reduces gradients over the ranks (off for all but the last micro-batch)."""
    for module in sharded_modules(model):
        module.set_requires_gradient_sync(enabled, recurse=False)


def reshard(model: torch.nn.Module) -> None:
    """Reshard every unit: a forward without a backward leaves the last one gathered."""
    for module in sharded_modules(model):
        module.reshard()


def first_row(weight: DTensor) -> int:
    """The first row of this rank's shard in the full tensor (FSDP2 shards rows)."""
    _, offset = compute_local_shape_and_global_offset(weight.shape, weight.device_mesh, weight.placements)
    return offset[0]
