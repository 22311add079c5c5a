"""DPD, dual preference distillation: distillation on both answers of a pair, and a preference loss between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from nbg_lightning import log
from nbg_lightning.contracts import HasTeacherCache, HasTokenizer, datamodule_of
from nbg_lightning.core.batch import IGNORE, PackedBatch
from nbg_lightning.core.checkpoint_folder import checkpoint_at
from nbg_lightning.core.config import LanguageModelConfig, PresetName
from nbg_lightning.core.head_distillation import PreferenceResult
from nbg_lightning.core.head_teachers import LiveTargets, TopK
from nbg_lightning.core.prefixes import SharePrefixes, shortest_shared
from nbg_lightning.data.pair_batch import PairBatch, pair_sequences
from nbg_lightning.keywords import Keywords
from nbg_lightning.losses.distillation import Divergence, DivergenceKind
from nbg_lightning.losses.preference import Preference, PreferenceKind, preference_loss
from nbg_lightning.modules.adapter import AdapterOff
from nbg_lightning.modules.aligned import AlignedTerm, Alignment, alignment_with, cached_alignment, with_chunks
from nbg_lightning.modules.answer_tokens import AnswerTokens, label_log_probs, preference_head
from nbg_lightning.modules.base import LanguageModule, LanguageModuleKeywords
from nbg_lightning.modules.context import check_whole_rows
from nbg_lightning.modules.dpd_checks import check_cache, is_comparable
from nbg_lightning.modules.frozen import check_same_frozen, open_frozen
from nbg_lightning.modules.preference_scores import PreferenceScores

if TYPE_CHECKING:
    from nbg_lightning.data.tokenizer import Tokenizer
    from nbg_lightning.teachers.cache import TeacherCache
    from nbg_lightning.teachers.live import LiveTeacher

PAIR_TERMS = ("dpo", "margin", "accuracy", "chosen_shift", "rejected_shift")
TOKEN_TERMS = ("pos", "neg")


class Scores(NamedTuple):
    """Scores of a micro-batch: each term's values per pair ``[P]`` or per token, with the row that each belongs to.

    Attributes:
        loss: the weighted sum of the terms, differentiable.
        values: values of each term, detached.
        rows: for each term, the batch row of each value.
        log_probs: log-probabilities of the answers ``[2 x P]``.
    """

    loss: Tensor
    values: dict[str, Tensor]
    rows: dict[str, Tensor]
    log_probs: Tensor


class DPDModule(LanguageModule):
    """Dual preference distillation: ``w_dpo L_DPO + w_pos L_pos + w_neg L_neg`` (Nanbeige4-3B, arXiv 2512.06266).

    * ``L_DPO = mean over pairs of l(log pi(y+|x) / ref(y+|x), log pi(y-|x) / ref(y-|x))``: the margin between the answers.
    * ``L_pos = mean over the trained tokens of chosen answers of D(p_t, q_t)``, and ``L_neg`` the same over rejected
      answers: the student's next-token distribution p is pulled towards the teacher's q on both. ``L_neg`` thus teaches how
      the teacher would continue after the student's own mistakes; it does not push the rejected answer down, which only
      ``L_DPO`` does.

    Each mean has its own denominator, over the **whole step on all ranks**. Weights of 0 give the ablations: a DPO-only run
    needs no teacher, a token-only run no reference. The paper shows the sum without coefficients; the kind of divergence,
    temperature and beta are not published.

    The reference is the frozen model at the start of the run (``base_weights``), or ``reference``; with ``lora`` and the
    former, it is the model with its adapter disabled, and needs no second copy. The teacher is a frozen model of any size;
    one with another tokenizer is compared over chunks of text instead of tokens
    (`nbg_lightning.core.head_alignment.aligned_divergence`), and the means are over chunks. Both are sharded like the
    student, outside its module tree. Outputs in the datamodule's cache replace either, which then does not run at all.
    Policy log-probs and divergences are computed in one pass over the student's logits, in chunks: see
    `nbg_lightning.core.head_distillation`.

    Metrics in training (``train/``) and validation (``val/``, also per domain): ``dpo``, ``pos``, ``neg`` (the terms);
    ``margin`` (beta times the difference of the chosen and the rejected answer's log-ratios), ``accuracy`` (share of pairs
    with a positive margin), ``chosen_shift`` and ``rejected_shift`` (log-probability of the answer minus the reference's).

    Args:
        core: see `LanguageModule`, also for ``base``; a row holds whole pairs, so that no micro-batch splits one.
        w_dpo: weight of the preference loss.
        w_pos: weight of the divergence on chosen answers.
        w_neg: weight of the divergence on rejected answers.
        preference: ``sigmoid`` (DPO), ``ipo`` or ``hinge``: see `nbg_lightning.losses.preference.Preference`.
        beta: strength of the regularization towards the reference.
        label_smoothing: assumed probability that a pair is mislabelled (``sigmoid`` only).
        length_normalised: use the mean instead of the sum of log-ratios over an answer's tokens.
        divergence: ``forward_kl``, ``reverse_kl`` or ``jensen_shannon``: see
            `nbg_lightning.losses.distillation.Divergence`.
        temperature: temperature of both distributions in the divergence.
        mixture: the teacher's share in the Jensen-Shannon mixture.
        teacher: weights of a live teacher.
        reference: weights of the reference, if other than ``base_weights``.
        share_prefixes: whether common beginnings of a micro-batch's sequences (a pair's prompt) are computed once, by
            student, reference and teacher; gradients are the same. ``auto``: if they are long enough to save time.
        **base: arguments of `LanguageModule`; ``base_weights`` is where the student starts, typically an SFT checkpoint.

    Raises:
        ValueError: an invalid setting.
    """

    trains_on = "pairs"
    splits_context = True
    default_learning_rate = 1e-6

    def __init__(
        self,
        core: PresetName | LanguageModelConfig | None = None,
        *,
        w_dpo: float = 1.0,
        w_pos: float = 1.0,
        w_neg: float = 1.0,
        preference: PreferenceKind = "sigmoid",
        beta: float = 0.1,
        label_smoothing: float = 0.0,
        length_normalised: bool = False,
        divergence: DivergenceKind = "forward_kl",
        temperature: float = 1.0,
        mixture: float = 0.5,
        teacher: str | None = None,
        reference: str | None = None,
        share_prefixes: SharePrefixes = "auto",
        **base: Keywords[LanguageModuleKeywords],
    ):
        super().__init__(core, **base)
        weights = {"w_dpo": w_dpo, "w_pos": w_pos, "w_neg": w_neg}
        for name, weight in weights.items():
            if not 0 <= weight < float("inf"):
                raise ValueError(f"{name} is invalid: {weight}; give a finite number of at least 0")
        if not any(weights.values()):
            raise ValueError(
                "w_dpo is invalid: 0, as w_pos and w_neg are; give one of them a weight, else nothing is trained"
            )
        if teacher is not None and not (w_pos or w_neg):
            raise ValueError(
                "teacher is invalid: it has no effect with w_pos and w_neg 0; leave it out, or raise one of them"
            )
        self.coefficients = {"dpo": w_dpo, "pos": w_pos, "neg": w_neg, **dict.fromkeys(PAIR_TERMS[1:], 0.0)}
        self.preference = Preference(preference, beta, label_smoothing, length_normalised)
        self.measure = Divergence(divergence, temperature, mixture)
        self.teacher_weights = None if teacher is None else checkpoint_at(teacher)
        self.reference_weights = self.base_weights if reference is None else checkpoint_at(reference)
        self.shortest_prefix = shortest_shared(share_prefixes)
        self.teacher: LiveTeacher | None = None  # not submodules: neither trained, saved nor moved
        self.reference: LiveTeacher | AdapterOff | None = None
        self.alignment: Alignment | None = None  # with a teacher of another tokenizer
        self.terms: tuple[str, ...] = ()  # the computed terms, set in `setup`
        self._live: tuple[bool, bool] = False, False  # whether teacher and reference run here
        self._identity: dict[str, str] = {}  # fingerprints of both, for checkpoints

    # -- teacher and reference -----------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Decide whether teacher and reference run or are read from the cache, and check both."""
        super().setup(stage)
        datamodule = datamodule_of(self.trainer)
        cache = datamodule.teacher_cache if isinstance(datamodule, HasTeacherCache) else None
        tokenizer = datamodule.tokenizer if isinstance(datamodule, HasTokenizer) else None
        distilled = bool(self.coefficients["pos"] or self.coefficients["neg"]) and self._has_teacher(cache, tokenizer)
        cached_reference = cache is not None and cache.identity.reference is not None
        compared = bool(self.coefficients["dpo"]) or cached_reference
        if compared and not cached_reference and self.reference_weights is None:
            raise ValueError(
                "there is no reference for the preference loss; set base_weights (where the student starts), reference, or "
                "data.init_args.cache to a cache built with --reference"
            )
        self._live = distilled and cache is None, compared and not cached_reference
        self.terms = (PAIR_TERMS if compared else ()) + (TOKEN_TERMS if distilled else ())
        if not compared:
            log.info("w_dpo is 0 and no reference is cached: there will be no margin, accuracy or shifts")
        if cache is not None:
            first = self.trainer.is_global_zero  # fingerprints cover whole files: one rank reads them
            check_cache(
                cache,
                self.shape,
                self.measure.temperature if distilled else None,
                self.teacher_weights if first else None,
                self.reference_weights if first and cached_reference else None,
            )
            self._identity = {
                "cached teacher": cache.identity.teacher,
                "cached reference": str(cache.identity.reference),
            }

    def _has_teacher(self, cache: TeacherCache | None, tokenizer: Tokenizer | None) -> bool:
        """Whether there is a usable teacher; if none matches, its terms are left out of the loss."""
        if cache is not None:
            self.alignment = cached_alignment(cache, self.shape, tokenizer)
            if self.alignment is not None:
                check_whole_rows(self.parallel.context)
            return True  # its tokenizer was checked when it was opened
        if self.teacher_weights is None:
            raise ValueError(
                "w_pos and w_neg need a teacher; set teacher (a folder or checkpoint), data.init_args.cache (made by "
                "nbg build-cache), or both weights to 0"
            )
        self.alignment = alignment_with(self.teacher_weights, self.shape, tokenizer)
        if self.alignment is not None:
            check_whole_rows(self.parallel.context)
            return True
        if is_comparable(self.teacher_weights, self.shape, tokenizer, only_loss=not self.coefficients["dpo"]):
            return True
        self.coefficients["pos"] = self.coefficients["neg"] = 0.0
        return False

    def configure_model(self) -> None:
        """Build the student, and the frozen models that run."""
        super().configure_model()
        live_teacher, live_reference = self._live
        if live_teacher and self.teacher is None:
            self.teacher = self._frozen("teacher", self.teacher_weights)
        if live_reference and self.reference is None:
            own = self.adapter is not None and self.reference_weights == self.base_weights
            self.reference = (
                AdapterOff(self.model, str(self.base_weights))
                if own
                else self._frozen("reference", self.reference_weights)
            )
        if self.reference is not None and self.reference.shape.vocab_size != self.shape.vocab_size:
            raise ValueError(
                f"the reference {self.reference.where} has {self.reference.shape.vocab_size} ids, the student "
                f"{self.shape.vocab_size}; give a reference with the student's tokenizer"
            )

    def _frozen(self, name: str, weights: str | None) -> LiveTeacher:
        assert weights is not None
        frozen, fingerprint = open_frozen(weights, self.sharding, self._data_mesh(), self.device)
        self._identity[f"live {name} in {self.parallel.compute_dtype}"] = fingerprint
        return frozen

    def _reference_sums(self, batch: PairBatch, answers: AnswerTokens) -> Tensor | None:
        """Log-probability of each answer under the reference."""
        if batch.reference_log_probs is not None:
            return answers.sums(batch.reference_log_probs.flatten()[answers.positions])
        if self.reference is None:
            return None
        sums = answers.sums(self.reference.run(batch, partial(label_log_probs, answers=answers)))
        if not torch.isfinite(sums).all():
            raise RuntimeError(
                f"the reference {self.reference.where} gives non-finite log-probabilities; check its weights, or compute in "
                "another dtype"
            )
        return sums

    def _targets(self, batch: PairBatch, answers: AnswerTokens) -> TopK | LiveTargets | None:
        """The teacher's distributions at the trained positions, if it has the student's tokenizer."""
        if "pos" not in self.terms or self.alignment is not None:
            return None
        if batch.teacher_ids is not None:
            assert batch.teacher_log_probs is not None and batch.teacher_tail is not None
            ids, log_probs = (x.flatten(0, 1)[answers.positions] for x in (batch.teacher_ids, batch.teacher_log_probs))
            return TopK(ids, log_probs, batch.teacher_tail.flatten()[answers.positions])
        assert self.teacher is not None
        return self.teacher.targets(batch, answers.places)

    def _chunks(self, batch: PairBatch, sides: Tensor) -> AlignedTerm | None:
        """The targets for chunks of text of a teacher with another tokenizer, with the weight of each side's ``[2]``."""
        if self.alignment is None or "pos" not in self.terms:
            return None
        assert batch.aligned is not None
        targets: TopK | LiveTargets | None = batch.aligned.listed
        if targets is None:
            assert self.teacher is not None
            targets = self.teacher.targets(batch.aligned, batch.aligned.positions)
        weights = sides[batch.aligned.sequence % 2]
        return AlignedTerm(batch.aligned, targets, self.alignment.columns(sides.device), weights, self.measure)

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Split a batch into micro-batches, share prefixes in each, and take this rank's part, while it is on the CPU."""
        if not isinstance(batch, PairBatch):
            return batch
        cut: list[Any] = batch.split(self.micro_batch_tokens * self.ranks_per_sample)
        return [self._prepared(micro) for micro in cut]

    def _prepared(self, micro: PairBatch) -> PairBatch:
        shared = micro.with_shared_prefixes(self.shortest_prefix, self.ranks_per_sample)
        if self.alignment is not None:
            return replace(shared, aligned=self.alignment.batch(pair_sequences(shared), self.shortest_prefix))
        return shared if self.context is None else shared.part_of(self.context)

    # -- the loss ------------------------------------------------------------------------------------------------------

    def count(self, batch: PackedBatch) -> dict[str, float]:
        """Pairs for terms per pair; for the divergences, the trained tokens or chunks of their side.

        Among ranks that share a micro-batch, the first counts its pairs, and each counts its tokens.
        """
        assert isinstance(batch, PairBatch) and batch.sequence is not None
        counts = dict.fromkeys(PAIR_TERMS, float(batch.num_pairs) if self._counts_pairs else 0.0)
        trained = batch.labels != IGNORE
        for side, term in enumerate(TOKEN_TERMS):
            if batch.aligned is None:
                counts[term] = (trained & (batch.sequence % 2 == side)).sum().item()
            else:
                counts[term] = (batch.aligned.sequence % 2 == side).sum().item()
        return {term: counts[term] for term in self.terms}

    @property
    def _counts_pairs(self) -> bool:
        return self.context is None or self.context.is_first

    def losses(self, batch: PackedBatch) -> dict[str, Tensor]:
        """The sum of each term over a micro-batch, without gradients: `backward_micro_batch` computes those of all terms at
        once.
        """
        with torch.no_grad():
            return {name: values.sum() for name, values in self.scores(batch, {}).values.items()}

    def backward_micro_batch(self, batch: PackedBatch, scales: Mapping[str, float]) -> dict[str, Tensor]:
        """Run one pass over the logits for all terms, which takes their weights and denominators."""
        scores = self.scores(batch, scales)
        self.manual_backward(scores.loss)
        return {name: values.double().sum() for name, values in scores.values.items()}

    def scores(self, batch: PackedBatch, scales: Mapping[str, float]) -> Scores:
        """Run a micro-batch through the student, and through the frozen models that run.

        Args:
            batch: a micro-batch of pairs.
            scales: factor of each term's sum in ``loss``; 0 for absent terms.
        """
        assert isinstance(batch, PairBatch)
        answers = AnswerTokens.of(batch, self.context)
        reference = self._reference_sums(batch, answers)
        targets = self._targets(batch, answers)
        scale = scales.get("dpo", 0.0)
        pairs = None
        if reference is not None and scale:
            pairs = partial(self._pair_losses_sum, reference_S=reference, lengths_S=answers.lengths, scale=scale)
        sides = torch.tensor([scales.get(term, 0.0) for term in TOKEN_TERMS], device=answers.labels.device)
        weights = None if targets is None else sides[answers.sequence % 2]
        chunks = self._chunks(batch, sides)
        head = partial(
            preference_head,
            answers=answers,
            sequence_loss=pairs,
            teacher=targets,
            weights=weights,
            measure=self.measure,
        )
        result: PreferenceResult = self.model(*batch.input, with_chunks(head, chunks))
        if self.teacher is not None:
            self.teacher.release()
        return self._scores(result, batch, answers, reference)

    def _ratios(self, sums_S: Tensor, reference_S: Tensor, lengths_S: Tensor) -> tuple[Tensor, Tensor]:
        """Log-ratios of the chosen and of the rejected answers, as the loss expects them."""
        ratios = sums_S - reference_S
        if self.preference.length_normalised:
            ratios = ratios / lengths_S
        return ratios[0::2], ratios[1::2]

    def _pair_losses_sum(self, sums_S: Tensor, reference_S: Tensor, lengths_S: Tensor, scale: float) -> Tensor:
        return scale * preference_loss(*self._ratios(sums_S, reference_S, lengths_S), self.preference).sum()

    def _scores(
        self, result: PreferenceResult, batch: PairBatch, answers: AnswerTokens, reference: Tensor | None
    ) -> Scores:
        rows = answers.positions // batch.tokens.shape[1]
        values: dict[str, Tensor] = {}
        if reference is not None:
            chosen, rejected = self._ratios(result.log_probs, reference, answers.lengths)
            margin = self.preference.beta * (chosen - rejected)
            shifts = result.log_probs - reference
            of_pairs = (
                preference_loss(chosen, rejected, self.preference),
                margin,
                (margin > 0).double(),
                shifts[0::2],
                shifts[1::2],
            )
            values |= dict(zip(PAIR_TERMS, of_pairs, strict=True))
            if not self._counts_pairs:
                values = {term: of_pair[:0] for term, of_pair in values.items()}
        places = dict.fromkeys(values, batch.rows_of_pairs()[: None if self._counts_pairs else 0])
        if result.divergences is not None:
            aligned = batch.aligned
            sequence, rows = (answers.sequence, rows) if aligned is None else (aligned.sequence, aligned.row)
            for side, term in enumerate(TOKEN_TERMS):
                mine = sequence % 2 == side
                values[term], places[term] = result.divergences[mine], rows[mine]
        return Scores(result.loss, values, places, result.log_probs)

    # -- evaluation ----------------------------------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        domains = datamodule_of(self.trainer).domains
        self.validation_scores = PreferenceScores(domains, list(self.terms)).to(self.device)

    @torch.no_grad()
    def validation_step(self, batch: list[PackedBatch], batch_idx: int) -> None:
        for micro in batch:
            scores = self.scores(micro, {})
            for term, values in scores.values.items():
                self.validation_scores.update(term, values, micro.source[scores.rows[term]])

    def on_validation_epoch_end(self) -> None:
        found = self.validation_scores.compute()
        terms = [name for name in ("dpo", *TOKEN_TERMS) if f"val/{name}" in found]
        if terms:
            found["val/loss"] = sum(self.coefficients[name] * found[f"val/{name}"] for name in terms)
        self.log_dict(found, rank_zero_only=False)
        del self.validation_scores

    test_step = validation_step
    on_test_epoch_start = on_validation_epoch_start
    on_test_epoch_end = on_validation_epoch_end

    @torch.no_grad()
    def predict_step(self, batch: list[PackedBatch], batch_idx: int) -> list[dict[str, Any]]:
        """Return, for every pair, the log-probabilities of both answers and the other scores (margin, ...)."""
        found = []
        for micro in batch:
            scores = self.scores(micro, {})
            columns: dict[str, Tensor] = {"chosen": scores.log_probs[0::2], "rejected": scores.log_probs[1::2]}
            columns |= {name: values for name, values in scores.values.items() if name in PAIR_TERMS}
            rows = zip(*(values.tolist() for values in columns.values()), strict=True)
            found += [dict(zip(columns, row, strict=True)) for row in rows]
        return found

    # -- checkpoints ---------------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["nbg_lightning"]["frozen"] = dict(self._identity)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        check_same_frozen(checkpoint["nbg_lightning"].get("frozen", {}), self._identity)
