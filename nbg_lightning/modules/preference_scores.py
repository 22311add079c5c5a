"""Validation scores of preference learning, exact over ranks: sums and counts in float64."""

from __future__ import annotations

import torch
from torch import Tensor

from nbg_lightning.modules.metrics import ExactSums


class PreferenceScores(ExactSums):
    """Mean of each term per domain of pairs and overall; every term has its own denominator.

    Args:
        domains: names, in the order of the batches' source indices.
        terms: names of the averaged terms.

    Example:
        >>> metric = PreferenceScores(["math", "code"], ["accuracy"])
        >>> metric.update("accuracy", torch.tensor([1.0, 0.0]), torch.tensor([0, 0]))
        >>> metric.compute()["val/math/accuracy"]
        0.5
    """

    sums: Tensor
    counts: Tensor

    def __init__(self, domains: list[str], terms: list[str]):
        super().__init__()
        self.domains, self.terms = list(domains), list(terms)
        zeros = torch.zeros(len(self.terms), len(self.domains), dtype=torch.float64)
        self.add_state("sums", zeros.clone(), dist_reduce_fx="sum")
        self.add_state("counts", zeros.clone(), dist_reduce_fx="sum")
        self.set_dtype(torch.float64)

    def update(self, term: str, values: Tensor, source: Tensor) -> None:
        """Add values ``[N]`` of a term, and the domain of each."""
        row = self.terms.index(term)
        self.sums[row].index_add_(0, source, values.double())
        self.counts[row].index_add_(0, source, torch.ones_like(source, dtype=torch.float64))

    def compute(self) -> dict[str, float]:
        """``val/<domain>/<term>``, and ``val/<term>`` overall; terms without values are absent."""
        results: dict[str, float] = {}
        for term, sums, counts in zip(self.terms, self.sums.tolist(), self.counts.tolist(), strict=True):
            for name, total, count in zip(self.domains, sums, counts, strict=True):
                if count:
                    results[f"val/{name}/{term}"] = total / count
            if sum(counts):
                results[f"val/{term}"] = sum(sums) / sum(counts)
        return results
