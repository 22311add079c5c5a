"""Pretraining: next-token prediction at every position of every document."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from nbg_lightning.contracts import datamodule_of
from nbg_lightning.core.batch import IGNORE, PackedBatch
from nbg_lightning.core.head import CrossEntropy, linear_cross_entropy
from nbg_lightning.modules.base import LanguageModule
from nbg_lightning.modules.metrics import SourceLoss


def cross_entropy(model: Any, batch: PackedBatch) -> CrossEntropy:
    """Next-token cross-entropy of a micro-batch: its (weighted) sum and every token's loss."""
    head = partial(linear_cross_entropy, labels_T=batch.labels, token_weights_T=batch.weights)
    return model(*batch.input, head)


class PretrainModule(LanguageModule):
    """Maximum likelihood on packed documents: ``sum_t -log p(x_t | x_<t of its document) / number of such t``.

    Validation reports, for each source of the datamodule, the mean loss in nats per token and bits per byte of text; the
    latter is comparable between tokenizers. Sums are in float64 over all ranks.
    """

    trains_on = "documents"
    splits_context = True
    coefficients = {"loss": 1.0}  # noqa: RUF012 - a constant

    def count(self, batch: PackedBatch) -> dict[str, float]:
        return {"loss": (batch.labels != IGNORE).sum().item()}

    def losses(self, batch: PackedBatch) -> dict[str, Tensor]:
        return {"loss": cross_entropy(self.model, batch).loss}

    def on_validation_epoch_start(self) -> None:
        self.validation_loss = SourceLoss(datamodule_of(self.trainer).bytes_per_token).to(self.device)

    def validation_step(self, batch: list[PackedBatch], batch_idx: int) -> None:
        for micro in batch:
            result = cross_entropy(self.model, micro)
            self.validation_loss.update(result.token_losses, micro.labels != IGNORE, micro.source)

    def on_validation_epoch_end(self) -> None:
        self.log_dict(self.validation_loss.compute(), rank_zero_only=False)
        del self.validation_loss

    test_step = validation_step
    on_test_epoch_start = on_validation_epoch_start
    on_test_epoch_end = on_validation_epoch_end

    @torch.no_grad()
    def predict_step(self, batch: list[PackedBatch], batch_idx: int) -> list[dict[str, Tensor]]:
        """Return rows of ids, labels and the loss of every token, to analyse what the model has learned."""
        rows = []
        for micro in batch:
            columns = (micro.tokens, micro.labels, cross_entropy(self.model, micro).token_losses)
            names = ("tokens", "labels", "losses")
            rows += [dict(zip(names, row, strict=True)) for row in zip(*(c.cpu() for c in columns), strict=True)]
        return rows
