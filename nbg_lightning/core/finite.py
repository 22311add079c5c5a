"""Check that weights are finite."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def require_finite(name: str, tensor: Tensor, where: str) -> None:
    """Refuse NaN or infinite values in weights, which would silently make every output of the model NaN.

    Makes one pass over the tensor (or this rank's shard), without a copy.

    Args:
        name: name of the tensor, for the message.
        tensor: a tensor of any float dtype; integers are always finite.
        where: the model's location, for the message.

    Raises:
        ValueError: naming the tensor, the number of non-finite values, and the place of the first one.
    """
    if not tensor.numel() or not tensor.is_floating_point():
        return
    least, most = torch.aminmax(tensor.detach())  # NaN propagates to both
    if math.isfinite(least.item()) and math.isfinite(most.item()):
        return
    wrong = (~torch.isfinite(tensor.detach())).nonzero()
    raise ValueError(
        f"{where}: {name} has {len(wrong):,} of {tensor.numel():,} values that are NaN or infinite, the first at "
        f"{wrong[0].tolist()}: damage, or a training that diverged; take another checkpoint, or download the model again"
    )
