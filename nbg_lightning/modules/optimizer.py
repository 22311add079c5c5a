"""AdamW as every module of the library uses it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn


@dataclass
class AdamWConfig:
    """AdamW (arXiv 1711.05101) with decay on matrices only.

    Attributes:
        lr: the learning rate where no callback sets it (`FGWSD` and `WarmupDecay` do, at every step); by default the
            module's: 3e-4 for pretraining, 2e-5 for SFT, 1e-6 for DPD and GRPO.
        betas: decay rates of the two moments.
        eps: added to the root of the second moment.
        weight_decay: decoupled decay of matrices and embeddings; norms have none.
    """

    lr: float | None = None
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.1


def build_adamw(parameters: Iterable[nn.Parameter], config: AdamWConfig, default_lr: float = 3e-4) -> torch.optim.AdamW:
    """One group with decay (two or more dimensions) and one without, fused."""
    lr = default_lr if config.lr is None else config.lr
    trained = [p for p in parameters if p.requires_grad]
    matrices = [p for p in trained if p.ndim >= 2]
    vectors = [p for p in trained if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=lr, betas=config.betas, eps=config.eps, fused=True
    )
