"""The optimizer of every module: AdamW, optionally with Muon for the matrices of the blocks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn

from nbg_lightning.core.names import PARTS, part_of
from nbg_lightning.modules.muon import MuonAdamW
from nbg_lightning.suggestion import did_you_mean


@dataclass
class AdamWConfig:
    """AdamW (arXiv 1711.05101) with weight decay on matrices only, alone or combined with Muon.

    Attributes:
        algorithm: ``adamw`` for all weights, or ``muon`` for the matrices of the blocks; embedding, head, norms and biases
            always use AdamW. Muon's updates are scaled to the size of AdamW's (arXiv 2502.16982), so ``lr`` and
            ``weight_decay`` fit both.
        lr: learning rate if no callback sets it (`FGWSD` and `WarmupDecay` do, at every step); by default the module's:
            3e-4 for pretraining, 2e-5 for SFT, 1e-6 for DPD and GRPO.
        betas: decay rates of the two moments.
        eps: added to the root of the second moment.
        weight_decay: decoupled weight decay of matrices and embeddings; norms and biases have none.
        momentum: decay rate of Muon's running mean of gradients.
        lr_factors: learning-rate multiplier per part of the model: ``embedding``, ``head``, ``matrices`` (of the blocks),
            ``vectors`` (norms and biases). A tied head belongs to the embedding.

    Raises:
        ValueError: a value out of its range, an unknown part, or a factor that is not above 0.
    """

    lr: float | None = None
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.1
    algorithm: Literal["adamw", "muon"] = "adamw"
    momentum: float = 0.95
    lr_factors: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, value in (("lr", self.lr or 0.0), ("eps", self.eps), ("weight_decay", self.weight_decay)):
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} is invalid: {value}; give a number of at least 0")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas is invalid: {self.betas}; give two numbers from 0 to below 1")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum is invalid: {self.momentum}; give a number from 0 to below 1")
        for part, factor in self.lr_factors.items():
            if part not in PARTS:
                raise ValueError(
                    f"lr_factors is invalid: {part}; there are {', '.join(PARTS)}{did_you_mean(part, PARTS)}"
                )
            if not 0 < factor < math.inf:
                raise ValueError(f"lr_factors is invalid: {part}: {factor}; give a number above 0")


def build_adamw(parameters: Iterable[nn.Parameter], config: AdamWConfig, default_lr: float = 3e-4) -> torch.optim.AdamW:
    """Fused AdamW with two groups: parameters with two or more dimensions have weight decay, the others none."""
    lr = default_lr if config.lr is None else config.lr
    trained = [p for p in parameters if p.requires_grad]
    matrices = [p for p in trained if p.ndim >= 2]
    vectors = [p for p in trained if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=lr, betas=config.betas, eps=config.eps, fused=True
    )


def build_optimizer(
    named: Iterable[tuple[str, nn.Parameter]], config: AdamWConfig, default_lr: float = 3e-4
) -> torch.optim.AdamW:
    """The optimizer described by a config; AdamW's plain two groups if nothing else is set.

    Args:
        named: parameters with their names; frozen ones are ignored.
        config: the settings.
        default_lr: learning rate if the config has none.
    """
    trained = [(name, parameter) for name, parameter in named if parameter.requires_grad]
    if config.algorithm == "adamw" and not config.lr_factors:
        return build_adamw((parameter for _, parameter in trained), config, default_lr)
    lr = default_lr if config.lr is None else config.lr
    parts: dict[str, list[nn.Parameter]] = {part: [] for part in PARTS}
    for name, parameter in trained:
        parts[part_of(name, parameter.ndim)].append(parameter)
    groups = [_group(part, parameters, config) for part, parameters in parts.items() if parameters]
    return MuonAdamW(groups, lr=lr, betas=config.betas, eps=config.eps, fused=True)


def _group(part: str, parameters: list[nn.Parameter], config: AdamWConfig) -> dict[str, Any]:
    return {
        "params": parameters,
        "weight_decay": 0.0 if part == "vectors" else config.weight_decay,
        "lr_factor": config.lr_factors.get(part, 1.0),
        "muon": part == "matrices" and config.algorithm == "muon",
        "momentum": config.momentum,
    }


def optimizer_record(config: AdamWConfig) -> dict[str, Any]:
    """The settings that a checkpoint's optimizer state depends on."""
    return {"algorithm": config.algorithm, "lr_factors": dict(config.lr_factors)}


def check_optimizer(saved: Mapping[str, Any] | None, here: AdamWConfig) -> None:
    """Raise if a checkpoint's state belongs to another optimizer.

    Args:
        saved: result of `optimizer_record`; None in checkpoints of plain AdamW without a record.
        here: settings of the run that is to be resumed.

    Raises:
        ValueError: what differs, and what to do.
    """
    there = optimizer_record(AdamWConfig()) if saved is None else saved
    for key, value in optimizer_record(here).items():
        if there[key] != value:
            raise ValueError(
                f"the checkpoint's run had optimizer.{key} {there[key]}, not {value}; set it as that run had it, or start "
                "a new run from the checkpoint with base_weights"
            )
