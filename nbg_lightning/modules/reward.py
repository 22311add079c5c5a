"""Reward models: a score for a whole answer, trained on preference pairs."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from nbg_lightning.contracts import datamodule_of
from nbg_lightning.core.batch import PackedBatch
from nbg_lightning.core.config import LanguageModelConfig, PresetName
from nbg_lightning.core.prefixes import SharePrefixes, shortest_shared
from nbg_lightning.data.pair_batch import PairBatch
from nbg_lightning.data.scored_batch import ScoredBatch, read_scores
from nbg_lightning.keywords import Keywords
from nbg_lightning.losses.reward import RewardLoss, RewardLossKind, reward_loss, win_probability
from nbg_lightning.modules.base import LanguageModule, LanguageModuleKeywords
from nbg_lightning.modules.calibration import Calibration
from nbg_lightning.modules.preference_scores import PreferenceScores

TERMS = ("preference", "accuracy", "margin", "chosen_score", "rejected_score")


class RewardModule(LanguageModule):
    """A reward model: ``mean over pairs of l(r(x, y+), r(x, y-))`` with a score r of the whole answer.

    r is the output of a one-row head at the answer's last token, the end of its turn; this head replaces that of
    ``base_weights`` and is randomly initialized, unless these are a reward model themselves. The mean is over all pairs of
    the **whole step on all ranks**. Common beginnings of a micro-batch's sequences (a pair's prompt) are computed once;
    padding is skipped.

    `ModelReward` scores answers with it in `GRPOModule`; ``nbg export`` writes it as a folder for transformers'
    ``AutoModelForSequenceClassification`` with one label, and ``base_weights`` reads such folders.

    Metrics in training (``train/``) and validation (``val/``, also per domain): ``preference`` (the loss), ``accuracy``
    (share of pairs whose chosen answer has the higher score), ``margin`` (difference of the scores), ``chosen_score`` and
    ``rejected_score`` (means). Validation adds ``val/calibration_error``: see `Calibration`.

    Args:
        core: see `LanguageModule`, also for ``base``; a row holds whole pairs, so that no micro-batch splits one.
        loss: ``bradley_terry`` or ``pointwise``: see `nbg_lightning.losses.reward.RewardLoss`.
        label_smoothing: assumed probability that a pair is mislabelled.
        center: weight of the squared sum of a pair's scores.
        share_prefixes: whether common beginnings of sequences are computed once; gradients are the same. ``auto``: if they
            are long enough to save time.
        **base: arguments of `LanguageModule`; ``base_weights`` is where it starts, typically an SFT checkpoint. With
            ``lora``, the head is trained together with the adapter, and both are in its checkpoints.

    Raises:
        ValueError: an invalid setting.
    """

    trains_on = "pairs"
    splits_context = True
    gives_scores = True
    default_learning_rate = 1e-5
    coefficients = {term: float(term == "preference") for term in TERMS}  # noqa: RUF012 - a constant

    def __init__(
        self,
        core: PresetName | LanguageModelConfig | None = None,
        *,
        loss: RewardLossKind = "bradley_terry",
        label_smoothing: float = 0.0,
        center: float = 0.0,
        share_prefixes: SharePrefixes = "auto",
        **base: Keywords[LanguageModuleKeywords],
    ):
        super().__init__(core, **base)
        self.loss = RewardLoss(loss, label_smoothing, center)
        self.shortest_prefix = shortest_shared(share_prefixes)

    @override
    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Split a batch into micro-batches, make each a row of whole answers, and take this rank's part, while it is on the
        CPU.
        """
        if not isinstance(batch, PairBatch):
            return super().on_before_batch_transfer(batch, dataloader_idx)
        cut: list[Any] = batch.split(self.micro_batch_tokens * self.ranks_per_sample)
        return [ScoredBatch.of(micro, self.shortest_prefix, self.context) for micro in cut]

    # -- the loss ------------------------------------------------------------------------------------------------------

    @override
    def count(self, batch: PackedBatch) -> dict[str, float]:
        """Pairs; among ranks that share a micro-batch, counted on the first."""
        assert isinstance(batch, ScoredBatch)
        return dict.fromkeys(TERMS, float(batch.num_counted))

    @override
    def losses(self, batch: PackedBatch) -> dict[str, Tensor]:
        assert isinstance(batch, ScoredBatch)
        return {term: values[: batch.num_counted].sum() for term, values in self.terms(self.scores(batch)).items()}

    def scores(self, batch: PackedBatch) -> Tensor:
        """The score of each answer of a micro-batch ``[2 x P]``, differentiable."""
        assert isinstance(batch, ScoredBatch)
        return batch.scores(self.model(*batch.input, partial(read_scores, places=batch.ends)))

    def terms(self, scores_S: Tensor) -> dict[str, Tensor]:
        """Each term's value per pair ``[P]``; all but the loss detached."""
        chosen, rejected = scores_S[0::2], scores_S[1::2]
        margin = (chosen - rejected).detach()
        values = (reward_loss(chosen, rejected, self.loss), (margin > 0).double(), margin)
        return dict(zip(TERMS, (*values, chosen.detach(), rejected.detach()), strict=True))

    # -- evaluation ----------------------------------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        domains = datamodule_of(self.trainer).domains
        self.validation_scores = PreferenceScores(domains, list(TERMS)).to(self.device)
        self.calibration = Calibration().to(self.device)

    @torch.no_grad()
    def validation_step(self, batch: list[PackedBatch], batch_idx: int) -> None:
        for micro in batch:
            assert isinstance(micro, ScoredBatch)
            scores, counted = self.scores(micro), micro.num_counted
            for term, values in self.terms(scores).items():
                self.validation_scores.update(term, values[:counted], micro.domain[:counted])
            self.calibration.update(win_probability(scores[0::2], scores[1::2])[:counted])

    def on_validation_epoch_end(self) -> None:
        found = self.validation_scores.compute() | self.calibration.compute()
        if "val/preference" in found:
            found["val/loss"] = found["val/preference"]
        self.log_dict(found, rank_zero_only=False)
        del self.validation_scores, self.calibration

    test_step = validation_step
    on_test_epoch_start = on_validation_epoch_start
    on_test_epoch_end = on_validation_epoch_end

    @torch.no_grad()
    def predict_step(self, batch: list[PackedBatch], batch_idx: int) -> list[dict[str, float]]:
        """Return the scores of both answers of every pair."""
        found = []
        for micro in batch:
            scores = self.scores(micro).tolist()
            found += [{"chosen": a, "rejected": b} for a, b in zip(scores[0::2], scores[1::2], strict=True)]
        return found
