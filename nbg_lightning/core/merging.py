"""Averages of checkpoints, computed one group of tensors at a time."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor
from typing_extensions import override

from nbg_lightning.core.adapter_weights import checkpoint_of
from nbg_lightning.core.weight_sources import TrainingCheckpoint, Weights
from nbg_lightning.url_path import PathOrUrl

MergeRule = Literal["uniform", "linear", "one_minus_sqrt", "cosine", "ema"]


def merge_weights(rule: MergeRule, number: int, decay: float = 0.8) -> list[float]:
    r"""Weights of checkpoints, oldest first, which sum to 1.

    The average :math:`\sum_j c_j \theta_j` of equally spaced checkpoints weights each update between :math:`\theta_{i-1}` and
    :math:`\theta_i` by :math:`w_i = \sum_{j \ge i} c_j`. It is therefore equivalent to a learning rate that decays by :math:`w`
    over the same updates (WSM, arXiv 2507.17634): ``uniform`` corresponds to a linear decay, ``one_minus_sqrt`` and ``cosine`` to
    decays of these shapes. ``linear`` weights later ones more, the j-th by ``j``; ``ema`` is an exponential average,
    ``decay ** (number - j)``.

    Args:
        rule: one of these.
        number: number of checkpoints.
        decay: decay of ``ema``, between 0 and 1.

    Raises:
        ValueError: an unknown rule, or a number out of range.

    Example:
        >>> merge_weights("uniform", 4), [round(w, 3) for w in merge_weights("ema", 3, decay=0.5)]
        ([0.25, 0.25, 0.25, 0.25], [0.143, 0.286, 0.571])
    """
    if number < 1:
        raise ValueError(f"number is invalid: {number}; give at least one checkpoint")
    if rule not in get_args(MergeRule):
        raise ValueError(f"weights is invalid: {rule!r}; choose {', '.join(get_args(MergeRule))}, or give numbers")
    if not 0 < decay < 1:
        raise ValueError(f"decay is invalid: {decay}; give a number between 0 and 1")
    if rule == "linear":
        raw = [float(place) for place in range(1, number + 1)]
    elif rule == "ema":
        raw = [decay ** (number - place) for place in range(1, number + 1)]
    else:
        left = [_remaining(rule, place / number) for place in range(number + 1)]
        raw = [before - after for before, after in pairwise(left)]
    total = math.fsum(raw)
    return [weight / total for weight in raw]


def _remaining(rule: str, progress: float) -> float:
    """The relative learning rate at a given progress of the decay that a rule corresponds to."""
    shapes = {
        "uniform": 1 - progress,
        "one_minus_sqrt": 1 - math.sqrt(progress),
        "cosine": (1 + math.cos(math.pi * progress)) / 2,
    }
    return shapes[rule]


class MergedWeights(Weights):
    """The average of the weights of several models with the same shape.

    Tensors are accumulated in float64 as they are read, so that memory holds one group of tensors, whatever the number of
    models.

    Args:
        parts: the models.
        factors: weight of each model; normalized by their sum.

    Raises:
        ValueError: no models, another number of factors, invalid factors, or models of different shapes.
    """

    def __init__(self, parts: Sequence[Weights], factors: Sequence[float]):
        if not parts or len(parts) != len(factors):
            raise ValueError(
                f"weights is invalid: {len(factors)} numbers for {len(parts)} checkpoints; give one for each, and a checkpoint"
            )
        total = math.fsum(factors)
        if not all(math.isfinite(each) and each >= 0 for each in factors) or total <= 0:
            raise ValueError(f"weights is invalid: {list(factors)}; give finite numbers of at least 0, not all 0")
        for part in parts[1:]:
            check_same_shape(parts[0], part)
        self.parts, self.factors = list(parts), [each / total for each in factors]
        self.shape, self.shapes = parts[-1].shape, parts[-1].shapes
        self.where = f"the average of {len(parts)} checkpoints"

    @override
    def read(self, names: Sequence[str]) -> dict[str, Tensor]:
        sums = {name: torch.zeros(self.shapes[name], dtype=torch.float64) for name in names}
        for part, factor in zip(self.parts, self.factors, strict=True):
            for name in names:
                sums[name].add_(part.read([name])[name], alpha=factor)
        return {name: tensor.float() for name, tensor in sums.items()}


def check_same_shape(first: Weights, other: Weights) -> None:
    """Check that two models can be averaged: same sizes and RoPE base.

    Raises:
        ValueError: naming the settings that differ.
    """
    there, here = dataclasses.asdict(other.shape), dataclasses.asdict(first.shape)
    differing = [key for key in here if there[key] != here[key] and key != "initializer_range"]
    if differing:
        told = ", ".join(f"{key} {there[key]} there, {here[key]} in {first.where}" for key in differing)
        raise ValueError(f"{other.where} has another shape: {told}; merge checkpoints of one model")


def _run_of(part: TrainingCheckpoint) -> PathOrUrl:
    """The folder of a run's checkpoints."""
    return part.folder.resolve().parent if isinstance(part.folder, Path) else part.folder.parent


def check_one_run(parts: Sequence[Weights]) -> None:
    """Check that checkpoints come from one run, and that none is given twice.

    Raises:
        ValueError: naming two that do not fit together.
    """
    seen: dict[int, str] = {}
    checkpoints: list[TrainingCheckpoint] = []
    for whole in parts:
        part = checkpoint_of(whole)
        if part is None:
            raise ValueError(f"{whole.where} is no checkpoint of a run; allow it by --across-runs")
        checkpoints.append(part)
        first = checkpoints[0]
        if _run_of(part) != _run_of(first):
            raise ValueError(
                f"{part.where} is of another run than {first.where}: averages of unrelated weights are no model; allow it by "
                "--across-runs where both began from the same weights"
            )
        if part.step in seen:
            raise ValueError(f"{part.where} is given twice, it has the step of {seen[part.step]}; leave one out")
        seen[part.step] = part.where
