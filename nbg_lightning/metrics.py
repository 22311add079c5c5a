"""Metrics that are exact over ranks: sums and counts in float64."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torchmetrics import Metric


class SourceLoss(Metric):
    """Mean loss in nats a token, and bits per byte, for each source of data and over all.

    ``loss_s = sum of token losses / number of tokens`` of source s; ``bits_per_byte_s = loss_s / ln 2 x tokens / bytes``
    with the tokens and bytes of the source's whole split. (torchmetrics' Perplexity takes the softmax in the dtype of the
    logits: 2 % off in bf16.) A source without a token has no value, rather than 0.

    Args:
        bytes_per_token: UTF-8 bytes of text for each trained token, for each source by name.

    Example:
        >>> metric = SourceLoss({"code": 4.0, "prose": 2.0})
        >>> metric.update(torch.tensor([[2.0, 4.0]]), torch.tensor([[True, True]]), torch.tensor([0]))
        >>> metric.compute()["val/code/loss"]
        3.0
    """

    full_state_update = False

    def __init__(self, bytes_per_token: dict[str, float]):
        super().__init__()
        self.bytes_per_token = bytes_per_token
        zeros = torch.zeros(len(bytes_per_token), dtype=torch.float64)
        self.add_state("sums", zeros.clone(), dist_reduce_fx="sum")
        self.add_state("tokens", zeros.clone(), dist_reduce_fx="sum")
        self.set_dtype(torch.float64)

    def update(self, token_losses: Tensor, trained: Tensor, source: Tensor) -> None:
        """Add a batch: losses and mask ``[B, L]``, the source's index of each row ``[B]``."""
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
