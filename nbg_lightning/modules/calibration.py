"""Calibration of a reward model's probabilities, exact over ranks."""

from __future__ import annotations

import torch
from torch import Tensor

from nbg_lightning.modules.metrics import ExactSums


class Calibration(ExactSums):
    """Expected calibration error of pairwise preferences: ``sum_b n_b / n |accuracy_b - confidence_b|`` (arXiv 1706.04599).

    The model prefers the answer with the higher score, with confidence ``max(p, 1 - p)``, p = ``sigmoid(r+ - r-)``; bins
    have equal width from 0.5 to 1. 0 is perfect; a model that is always certain and right half of the time has 0.5.

    Args:
        num_bins: number of bins.

    Example:
        >>> metric = Calibration()
        >>> metric.update(torch.tensor([0.75, 0.75, 0.75, 0.25]))  # sure to three quarters, and right three times of four
        >>> metric.compute()["val/calibration_error"]
        0.0
    """

    counts: Tensor
    right: Tensor
    confidence: Tensor

    def __init__(self, num_bins: int = 10):
        super().__init__()
        self.num_bins = num_bins
        for name in ("counts", "right", "confidence"):
            self.add_state(name, torch.zeros(num_bins, dtype=torch.float64), dist_reduce_fx="sum")
        self.set_dtype(torch.float64)

    def update(self, probability: Tensor) -> None:
        """Add the probabilities ``[P]`` that the chosen answers are better."""
        p = probability.double()
        sure = torch.maximum(p, 1 - p)
        places = ((sure - 0.5) * 2 * self.num_bins).long().clamp(0, self.num_bins - 1)
        self.counts.index_add_(0, places, torch.ones_like(p))
        self.right.index_add_(0, places, torch.where(p == 0.5, 0.5, (p > 0.5).double()))
        self.confidence.index_add_(0, places, sure)

    def compute(self) -> dict[str, float]:
        """``val/calibration_error``; empty without pairs."""
        total = self.counts.sum().item()
        return {"val/calibration_error": (self.right - self.confidence).abs().sum().item() / total} if total else {}
