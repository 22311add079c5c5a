"""Fingerprint of a model's weights in 16 hex digits, independent of the number of ranks."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from nbg_lightning.core.model import LanguageModel
    from nbg_lightning.core.weight_sources import Weights


def weights_fingerprint(model: LanguageModel) -> str:
    """Hex digest of the bits of all parameters. Collective over all ranks.

    The sum, modulo 2^64, of every 32-bit word times an odd number derived from its parameter's name and its index. A sum does not
    depend on the sharding, and swapped words or tensors change it.
    """
    import torch
    import torch.distributed as dist
    from torch.distributed.tensor import DTensor
    from torch.distributed.tensor.placement_types import Replicate

    from nbg_lightning.core.names import clean_name
    from nbg_lightning.core.sharding import first_row

    device = next(model.parameters()).device
    total = torch.zeros((), dtype=torch.int64, device=device)
    sharded = False
    for name, parameter in model.named_parameters():
        weight = parameter.detach()
        begin = 0
        if isinstance(weight, DTensor):
            sharded = True
            mesh, placements = weight.device_mesh, weight.placements
            coordinate: list[int] = list(mesh.get_coordinate() or [])
            doubled = any(p == Replicate() and c for p, c in zip(placements, coordinate, strict=True))
            rows = first_row(weight)
            weight = weight.to_local()
            if doubled or not weight.numel():
                continue
            begin = rows * weight[0].numel()
        total += _word_sum(clean_name(name), weight, begin)
    if sharded and dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(total)
    return f"{int(total) % 2**64:016x}"


def source_fingerprint(weights: Weights) -> str:
    """The `weights_fingerprint` of the model with these weights, read one tensor at a time."""
    total = sum(int(_word_sum(name, weights.read([name])[name])) for name in weights.shapes)
    return f"{total % 2**64:016x}"


def _word_sum(name: str, weight: Tensor, begin: int = 0) -> Tensor:
    """The contribution of a parameter, or of its part from element ``begin`` on, to the sum."""
    import torch

    words = weight.float().contiguous().view(-1).view(torch.int32).to(torch.int64)
    place = torch.arange(begin, begin + len(words), device=weight.device)
    return (words * (place * 2 + 1) * (zlib.crc32(name.encode()) | 1)).sum()
