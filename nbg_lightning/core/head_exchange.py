"""Exchange of heads for tokens in a context group, around attention (DeepSpeed-Ulysses, arXiv 2309.14509).

Shape suffixes: n ranks of the group, B rows, L positions, l = L / n on this rank, T = B x L tokens, N query heads, K key/value
heads, H head dimension.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from nbg_lightning.core.documents import ContextGroup


class _Exchange(torch.autograd.Function):
    """All-to-all: part i of the first dimension goes to rank i; gradients go the reverse way."""

    @staticmethod
    def forward(ctx: Any, parts: Tensor, group: ContextGroup) -> Tensor:
        ctx.group = group
        return _all_to_all(parts, group)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _all_to_all(grad, ctx.group), None


def _all_to_all(parts: Tensor, group: ContextGroup) -> Tensor:
    # Functional collectives: compiled blocks contain them in their graph, by the group's name.
    splits = [1] * group.size
    received = torch.ops._c10d_functional.all_to_all_single(parts.contiguous(), splits, splits, group.name)
    return torch.ops._c10d_functional.wait_tensor(received)


def _exchange(parts: Tensor, group: ContextGroup) -> Tensor:
    return _Exchange.apply(parts, group)  # type: ignore[no-untyped-call]


def to_heads(q_BlNH: Tensor, k_BlKH: Tensor, v_BlKH: Tensor, group: ContextGroup) -> tuple[Tensor, Tensor, Tensor]:
    """All tokens of this rank's heads, ``[T, N / n, H]``; key/value heads are repeated if n does not divide them."""
    repeats = group.size // math.gcd(k_BlKH.shape[2], group.size)
    if repeats > 1:
        k_BlKH, v_BlKH = (x.repeat_interleave(repeats, dim=2) for x in (k_BlKH, v_BlKH))
    parts = [x.unflatten(2, (group.size, -1)) for x in (q_BlNH, k_BlKH, v_BlKH)]
    joined = torch.cat(parts, dim=3).movedim(2, 0)  # one exchange for all three
    received = _exchange(joined, group).movedim(0, 1).flatten(0, 2)
    q, k, v = received.split([part.shape[3] for part in parts], dim=1)
    return q.contiguous(), k.contiguous(), v.contiguous()


def to_tokens(out_TNH: Tensor, rows: int, group: ContextGroup) -> Tensor:
    """All heads of this rank's tokens, ``[B, l, N, H]``."""
    parts_nBlNH = out_TNH.unflatten(0, (rows, group.size, -1)).movedim(1, 0)
    return _exchange(parts_nBlNH, group).movedim(0, 2).flatten(2, 3)
