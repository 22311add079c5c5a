"""Metrics that are exact over ranks: sums and counts in float64."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torchmetrics import Metric
from typing_extensions import override


class ExactSums(Metric):
    """A metric that may be computed without an update: it then has no values, and torchmetrics' warning is not needed."""

    full_state_update = False

    @property
    @override
    def update_called(self) -> bool:
        """Whether `compute` may be called."""
        return True


class SourceLoss(ExactSums):
    """Mean loss in nats per token, and bits per byte, for each data source and overall.

    ``loss_s = sum of token losses / number of tokens`` of source s; ``bits_per_byte_s = loss_s / ln 2 x tokens / bytes``
    with the token and byte counts of the source's whole split. (torchmetrics' Perplexity takes the softmax in the dtype of
    the logits: 2 % off in bf16.) A source without tokens has no value, rather than 0.

    Args:
        bytes_per_token: source name to UTF-8 bytes of text per trained token.

    Example:
        >>> metric = SourceLoss({"code": 4.0, "prose": 2.0})
        >>> metric.update(torch.tensor([[2.0, 4.0]]), torch.tensor([[True, True]]), torch.tensor([0]))
        >>> metric.compute()["val/code/loss"]
        3.0
    """

    sums: Tensor
    tokens: Tensor

    def __init__(self, bytes_per_token: dict[str, float]):
        super().__init__()
        self.bytes_per_token = bytes_per_token
        zeros = torch.zeros(len(bytes_per_token), dtype=torch.float64)
        self.add_state("sums", zeros.clone(), dist_reduce_fx="sum")
        self.add_state("tokens", zeros.clone(), dist_reduce_fx="sum")
        self.set_dtype(torch.float64)

    def update(self, token_losses: Tensor, trained: Tensor, source: Tensor) -> None:
        """Add a batch: losses and mask ``[B, L]``, and each row's source index ``[B]``."""
        self.sums.index_add_(0, source, token_losses.double().where(trained, 0.0).sum(dim=1))
        self.tokens.index_add_(0, source, trained.sum(dim=1).double())

    def compute(self) -> dict[str, float]:
        """``val/<source>/loss``, ``val/<source>/bits_per_byte``, and ``val/loss`` over all tokens."""
        results: dict[str, float] = {}
        sums, tokens = self.sums.tolist(), self.tokens.tolist()
        for name, total, count in zip(self.bytes_per_token, sums, tokens, strict=True):
            if count:
                results[f"val/{name}/loss"] = total / count
                results[f"val/{name}/bits_per_byte"] = total / count / math.log(2) / self.bytes_per_token[name]
        if sum(tokens):
            results["val/loss"] = sum(sums) / sum(tokens)
        return results


class DomainScores(ExactSums):
    """Mean loss and token accuracy of the trained tokens, for each domain of conversations and overall.

    ``loss_d = sum_t w_t nll_t / sum_t w_t`` with the loss weights, as in training; ``token_accuracy_d`` is the share of
    trained tokens (weight above 0) that are the likeliest next id. A domain without a trained token has no value.

    Args:
        domains: names, in the order of the batches' source indices.

    Example:
        >>> metric = DomainScores(["math", "code"])
        >>> losses, correct = torch.tensor([[2.0, 4.0]]), torch.tensor([[True, False]])
        >>> metric.update(losses, correct, torch.tensor([[1.0, 1.0]]), torch.tensor([0]))
        >>> metric.compute()["val/math/token_accuracy"]
        0.5
    """

    sums: Tensor
    weights: Tensor
    correct: Tensor
    tokens: Tensor

    def __init__(self, domains: list[str]):
        super().__init__()
        self.domains = list(domains)
        for name in ("sums", "weights", "correct", "tokens"):
            self.add_state(name, torch.zeros(len(self.domains), dtype=torch.float64), dist_reduce_fx="sum")
        self.set_dtype(torch.float64)

    def update(self, token_losses: Tensor, correct: Tensor, weights: Tensor, source: Tensor) -> None:
        """Add a batch: losses, hits and loss weights ``[B, L]``, and each row's domain index ``[B]``."""
        trained = weights > 0
        self.sums.index_add_(0, source, (token_losses.double() * weights.double()).sum(dim=1))
        self.weights.index_add_(0, source, weights.double().sum(dim=1))
        self.correct.index_add_(0, source, (correct & trained).sum(dim=1).double())
        self.tokens.index_add_(0, source, trained.sum(dim=1).double())

    def compute(self) -> dict[str, float]:
        """``val/<domain>/loss``, ``val/<domain>/token_accuracy``, and ``val/loss``, ``val/token_accuracy`` over all."""
        results: dict[str, float] = {}
        columns = [state.tolist() for state in (self.sums, self.weights, self.correct, self.tokens)]
        for name, total, weight, correct, count in zip(self.domains, *columns, strict=True):
            if count:
                results[f"val/{name}/loss"] = total / weight
                results[f"val/{name}/token_accuracy"] = correct / count
        total, weight, correct, count = map(sum, columns)
        if count:
            results["val/loss"] = total / weight
            results["val/token_accuracy"] = correct / count
        return results
