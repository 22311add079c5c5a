"""What a training loop says to FSDP2: when to reduce gradients, and when to free gathered weights."""

from __future__ import annotations

import torch
from torch.distributed.fsdp import FSDPModule


def sharded_modules(model: torch.nn.Module) -> list[FSDPModule]:
    """The FSDP units of a model (none if it is not sharded)."""
    return [module for module in model.modules() if isinstance(module, FSDPModule)]


def set_gradient_sync(model: torch.nn.Module, enabled: bool) -> None:
    """Whether the next backward reduces gradients over the ranks (off for all but the last micro-batch)."""
    for module in sharded_modules(model):
        module.set_requires_gradient_sync(enabled, recurse=False)


def reshard(model: torch.nn.Module) -> None:
    """Return every unit to its shards: a forward without a backward leaves the last one gathered."""
    for module in sharded_modules(model):
        module.reshard()
