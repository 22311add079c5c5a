"""Weights that are read hold finite numbers only."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def require_finite(name: str, tensor: Tensor, where: str) -> None:
    """Refuse a NaN or an infinity among weights: every output of the model would be NaN, in silence.

    One pass over the tensor, or the shard that this rank has, without a copy of it.

    Args:
        name: of the tensor, for the message.
        tensor: of any float dtype; integers are finite.
        where: the model's place, for the message.

    Raises:
        ValueError: naming the tensor, how many of its values are not finite, and where the first one is.
    """
    if not tensor.numel() or not tensor.is_floating_point():
        return
    least, most = torch.aminmax(tensor.detach())  # a NaN is both
    if math.isfinite(least.item()) and math.isfinite(most.item()):
        return
    wrong = (~torch.isfinite(tensor.detach())).nonzero()
    raise ValueError(
        f"{where}: {name} has {len(wrong):,} of {tensor.numel():,} values that are NaN or infinite, the first at "
        f"{wrong[0].tolist()}: damage, or a training that diverged; take another checkpoint, or download the model again"
    )
