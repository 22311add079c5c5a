"""Supervised fine-tuning on the trained tokens of conversations."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from nbg_lightning.contracts import datamodule_of
from nbg_lightning.core.batch import IGNORE, PackedBatch
from nbg_lightning.core.head import TokenScores, linear_cross_entropy, linear_token_scores
from nbg_lightning.modules.base import LanguageModule
from nbg_lightning.modules.metrics import DomainScores


def trained_cross_entropy(hidden_BLD: Tensor, weight_VD: Tensor, labels_BL: Tensor, weights_BL: Tensor) -> Tensor:
    """``sum_t w_t (-log p_t)`` over the trained positions; logits are computed for these only.

    Args:
        hidden_BLD: final hidden states.
        weight_VD: weight of the head.
        labels_BL: next-token ids; `IGNORE` at positions that are not trained.
        weights_BL: loss weight of each position.
    """
    labels = labels_BL.flatten()
    trained = (labels != IGNORE).nonzero().flatten()
    if not len(trained):  # the head must still take part: other ranks may have trained tokens in this micro-batch
        trained = trained.new_zeros(1)
    hidden = hidden_BLD.flatten(0, 1).index_select(0, trained)
    return linear_cross_entropy(hidden, weight_VD, labels[trained], weights_BL.flatten()[trained]).loss


def token_scores(model: Any, batch: PackedBatch) -> TokenScores:
    """The loss of every known label of a micro-batch, and whether it is the model's top prediction."""
    return model(*batch.input, partial(linear_token_scores, labels_T=batch.labels))


class SFTModule(LanguageModule):
    """Maximum likelihood of the answers: ``sum_t w_t (-log p(x_t | its conversation)) / sum_t w_t``.

    The sums run over the trained tokens of the **whole step, on all ranks**: a conversation is weighted by its trained
    tokens, regardless of packing, micro-batches and ranks. The SFT stages of the recipe (cold start at 32K, overall at 64K;
    Nanbeige4-3B, arXiv 2512.06266) are runs of this module on different data, each starting from the previous checkpoint
    (``base_weights``).

    Validation reports the mean loss and token accuracy of each domain (source of the datamodule).
    """

    trains_on = "conversations"
    splits_context = True
    default_learning_rate = 2e-5
    coefficients = {"loss": 1.0}  # noqa: RUF012 - a constant

    def count(self, batch: PackedBatch) -> dict[str, float]:
        return {"loss": self._weights(batch).double().sum().item()}

    def losses(self, batch: PackedBatch) -> dict[str, Tensor]:
        head = partial(trained_cross_entropy, labels_BL=batch.labels, weights_BL=self._weights(batch))
        return {"loss": self.model(*batch.input, head)}

    @staticmethod
    def _weights(batch: PackedBatch) -> Tensor:
        trained = batch.labels != IGNORE
        return trained.float() if batch.weights is None else batch.weights * trained

    def on_validation_epoch_start(self) -> None:
        self.validation_scores = DomainScores(datamodule_of(self.trainer).domains).to(self.device)

    def validation_step(self, batch: list[PackedBatch], batch_idx: int) -> None:
        for micro in batch:
            scores = token_scores(self.model, micro)
            self.validation_scores.update(scores.losses, scores.correct, self._weights(micro), micro.source)

    def on_validation_epoch_end(self) -> None:
        self.log_dict(self.validation_scores.compute(), rank_zero_only=False)
        del self.validation_scores

    test_step = validation_step
    on_test_epoch_start = on_validation_epoch_start
    on_test_epoch_end = on_validation_epoch_end

    @torch.no_grad()
    def predict_step(self, batch: list[PackedBatch], batch_idx: int) -> list[dict[str, Tensor]]:
        """Return rows of ids, the loss of every trained token, and whether it was the top prediction."""
        rows = []
        for micro in batch:
            columns = (micro.tokens, micro.labels, *token_scores(self.model, micro))
            names = ("tokens", "labels", "losses", "correct")
            rows += [dict(zip(names, row, strict=True)) for row in zip(*(c.cpu() for c in columns), strict=True)]
        return rows
