"""OPD, on-policy distillation: a student learns a teacher's distributions on answers that it samples itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from typing_extensions import override

from nbg_lightning.callbacks.checkpoint import fail_before_step
from nbg_lightning.contracts import HasTokenizer, datamodule_of
from nbg_lightning.core.batch import PackedBatch
from nbg_lightning.core.config import LanguageModelConfig, PresetName
from nbg_lightning.core.head import TokenStatistics
from nbg_lightning.core.sharding import reshard
from nbg_lightning.distributed import gather_objects
from nbg_lightning.keywords import Keywords
from nbg_lightning.losses.distillation import Divergence, DivergenceKind
from nbg_lightning.modules.aligned import aligned_distillation_head
from nbg_lightning.modules.frozen import check_same_frozen
from nbg_lightning.modules.grpo import GRPOModule
from nbg_lightning.modules.grpo_keywords import GRPOModuleKeywords
from nbg_lightning.modules.grpo_steps import packing_of
from nbg_lightning.modules.opd_teachers import Listing, OnPolicyTeachers, TeacherPlace, Teaching
from nbg_lightning.rewards.protocol import Group, Reward, RewardResult
from nbg_lightning.rl.advantages import with_advantages
from nbg_lightning.rl.distillation import (
    DistillationBatch,
    DistillationResult,
    TeacherStep,
    distillation_head,
    joined_summary,
    with_all_finished,
    with_answers,
)
from nbg_lightning.rl.policy_loss import policy_terms
from nbg_lightning.rl.rollouts import Rollout
from nbg_lightning.rl.step import PackedStep, pack_step

DISTILLATION = "distillation"


class Unscored(Reward):
    """A reward that gives no scores, for runs that need none."""

    name = "unscored"

    @override
    def score(self, groups: Sequence[Group]) -> list[list[RewardResult]]:
        return [[RewardResult(None, "unscored", "no reward is set")] * len(group.answers) for group in groups]


class CloseTeachers(pl.Callback):
    """Closes teachers with the run, also after a failure, when Lightning does not call `teardown`."""

    def __init__(self, teachers: OnPolicyTeachers):
        self.teachers = teachers

    @override
    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self.teachers.close()

    @override
    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self.teachers.close()


class OPDModule(GRPOModule):
    """On-policy distillation: ``w_distill D + w_policy L_GRPO`` on answers that the student samples (GKD, arXiv 2306.13649).

    ``D = mean over the tokens of the answers of D(p_t, q_t)``: at each token sampled by the student, its next-token
    distribution p is pulled towards the teacher's q, so that the teacher corrects the states that the student actually
    reaches. The mean is over all tokens of the **whole step on all ranks**; no gradient flows through the sampling. Answers
    truncated by ``max_new_tokens`` and answers without a score are distilled too. Sampling, engines, validation and
    resuming are `GRPOModule`'s.

    ``w_policy`` adds the policy loss of `GRPOModule`, on the same answers in the same pass. Truncated answers then have an
    advantage of 0 (``loss.mask_truncated``), and count in the denominator.

    A teacher is one of three: weights that run beside the student, whose full distribution is compared; with ``cache``,
    weights queried for their ``top_k`` likeliest ids and the probability mass of the rest, cached by request; or a vLLM
    server, queried in the same way. Teachers with another tokenizer are compared over chunks of text, and D is a mean over
    chunks. Several teachers are selected by the source of the question: ``teacher: {math: runs/math, default: runs/all}``.

    Metrics besides `GRPOModule`'s: ``train/distillation`` and ``val/distillation``, D in nats per token.

    Args:
        teacher: see `OnPolicyTeachers`.
        core: see `LanguageModule`.
        reward: scores answers; needed with ``w_policy``, otherwise only logged. None computes no scores.
        w_distill: weight of D.
        w_policy: weight of the policy loss.
        divergence: ``reverse_kl`` (mode-seeking), ``jensen_shannon`` or ``forward_kl``; or a `Divergence` with temperature
            and mixture.
        cache: folder where teachers' outputs are cached; a run that samples the same answers does not query again.
        top_k: number of ids that a teacher lists if it does not run beside the student.
        **rollouts: arguments of `GRPOModule`; ``temperature`` is that of sampling.

    Raises:
        ValueError: an invalid setting, before anything is built.
    """

    def __init__(
        self,
        teacher: Teaching,
        core: PresetName | LanguageModelConfig | None = None,
        *,
        reward: Reward | None = None,
        w_distill: float = 1.0,
        w_policy: float = 0.0,
        divergence: DivergenceKind | Divergence = "reverse_kl",
        cache: str | None = None,
        top_k: int = 64,
        **rollouts: Keywords[GRPOModuleKeywords],
    ):
        super().__init__(reward or Unscored(), core, **rollouts)
        for name, value in (("w_distill", w_distill), ("w_policy", w_policy)):
            if not 0 <= value < float("inf"):
                raise ValueError(f"{name} is invalid: {value}; give a finite number of at least 0")
        if not w_distill:
            raise ValueError("w_distill is invalid: 0; give it a weight, or train with GRPOModule")
        if w_policy and reward is None:
            raise ValueError(f"w_policy is invalid: {w_policy}; it needs scores: set reward, or w_policy to 0")
        policy = self.coefficients
        if "kl" in policy and not w_policy:
            raise ValueError(
                "loss.kl_coefficient is invalid: it has no effect without w_policy; set that, or leave it out"
            )
        self.coefficients = {DISTILLATION: w_distill}
        if w_policy:
            self.coefficients |= {name: w_policy * weight for name, weight in policy.items()}
        self.w_policy = w_policy
        self.measure = divergence if isinstance(divergence, Divergence) else Divergence(divergence)
        self.teachers = OnPolicyTeachers(teacher, Listing(top_k, cache), self.measure.temperature)
        self._measured: list[tuple[float, float]] = []  # (sum, tokens) of each validation batch

    # -- life ----------------------------------------------------------------------------------------------------------

    @property
    def _tokenizer(self) -> Any:
        datamodule = datamodule_of(self.trainer)
        return datamodule.tokenizer if isinstance(datamodule, HasTokenizer) else None

    @override
    def setup(self, stage: str) -> None:
        super().setup(stage)
        self.teachers.check(self.shape, self._tokenizer, self.parallel.context)

    @override
    def configure_callbacks(self) -> list[pl.Callback]:
        return [*super().configure_callbacks(), CloseTeachers(self.teachers)]

    @override
    def configure_model(self) -> None:
        super().configure_model()
        self.teachers.open(TeacherPlace(self.sharding, self._data_mesh(), self.device), self._tokenizer)

    @override
    def on_train_batch_start(self, batch: Any, batch_idx: int) -> int | None:
        """As in `GRPOModule`; raises for sources without a teacher before anything is sampled."""
        for question in batch.questions:
            self.teachers.of(question.source)
        return super().on_train_batch_start(batch, batch_idx)

    # -- one step ------------------------------------------------------------------------------------------------------

    @override
    def prepare(self, rollouts: list[Rollout], seconds: dict[str, float]) -> PackedStep:
        """Compute advantages, pack the answers of each teacher, and query the teachers that do not run here."""
        compared = with_advantages(rollouts, self.advantages, self.loss_config.mask_truncated, False)
        self.last_rollouts = with_all_finished(compared)
        parts = self._packed(self.last_rollouts, seconds)
        try:
            batches = self.teachers.batches(with_answers(parts), self.device)
        except RuntimeError as error:
            fail_before_step(self.trainer, str(error), "teacher", error)
        return PackedStep(batches, joined_summary(parts), ())

    def _packed(self, rollouts: Sequence[Rollout], seconds: Mapping[str, float]) -> list[TeacherStep]:
        """This rank's answers by teacher. Collective."""
        return [
            TeacherStep(
                teacher,
                pack_step(
                    [rollout for rollout in rollouts if self.teachers.of(rollout.question.source) == teacher],
                    seconds,
                    packing_of(self),
                ),
            )
            for teacher in range(len(self.teachers))
        ]

    @override
    def count(self, batch: PackedBatch) -> dict[str, float]:
        assert isinstance(batch, DistillationBatch)
        counts = super().count(batch) if self.w_policy else {}
        return {**counts, DISTILLATION: float(batch.num_compared)}

    @override
    def losses(self, batch: PackedBatch) -> dict[str, Tensor]:
        """The sum of each term; that of the distillation without gradients, which `backward_micro_batch` computes."""
        return self._terms(batch, {})[1]

    @override
    def backward_micro_batch(self, batch: PackedBatch, scales: Mapping[str, float]) -> dict[str, Tensor]:
        """Compute the gradient of the divergences in one pass over the logits, which takes their weight."""
        loss, terms = self._terms(batch, scales)
        self.manual_backward(loss)
        return {name: term.detach().double() for name, term in terms.items()}

    def _terms(self, batch: PackedBatch, scales: Mapping[str, float]) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum of all terms of a micro-batch, differentiable, and the sum of each."""
        assert isinstance(batch, DistillationBatch)
        result = self._compared(batch, scales.get(DISTILLATION, 0.0), self.temperature if self.w_policy else None)
        sums = {DISTILLATION: result.divergences.double().sum() * bool(batch.num_compared)}
        loss = result.loss
        if self.w_policy:
            found = policy_terms(result.log_probs, batch, self.loss_config, self.max_new_tokens)
            self._record.add(batch, TokenStatistics(result.log_probs, result.entropies), found)
            loss = loss + torch.stack([scales.get(name, 0.0) * term for name, term in found.sums.items()]).sum()
            sums |= found.sums
        return loss, sums

    def _compared(self, batch: DistillationBatch, weight: float, temperature: float | None) -> DistillationResult:
        """Run a micro-batch through teacher and student."""
        chunks = self.teachers.chunks(batch, weight, self.measure)
        head: Any
        if chunks is not None:
            head = partial(aligned_distillation_head, batch=batch, term=chunks, temperature=temperature)
        else:
            head = partial(
                distillation_head,
                batch=batch,
                teacher=self.teachers.targets(batch),
                weight=weight,
                measure=self.measure,
                temperature=temperature,
            )
        result: DistillationResult = self.model(*batch.input, head)
        self.teachers.release(batch)
        return result

    # -- validation ----------------------------------------------------------------------------------------------------

    @override
    def on_validation_epoch_start(self) -> None:
        super().on_validation_epoch_start()
        self._measured = []

    @override
    @torch.no_grad()
    def measure_held_out(self, rollouts: list[Rollout], seconds: dict[str, float]) -> None:
        """Add the divergence on the answers to held-out questions."""
        untrained = [(0.0,) * len(rollout.answers) for rollout in rollouts]
        chosen = with_all_finished(
            Rollout(r.question, r.prompt, r.answers, r.results, none, (True,) * len(none))
            for r, none in zip(rollouts, untrained, strict=True)
        )
        for batch in self.teachers.batches(with_answers(self._packed(chosen, seconds)), self.device):
            divergences = self._compared(batch, 0.0, None).divergences
            if batch.num_compared:
                self._measured.append((divergences.double().sum().item(), float(batch.num_compared)))
        reshard(self.model)

    @override
    def on_validation_epoch_end(self) -> None:
        """Log the divergence on held-out questions in addition to the metrics of `GRPOModule`."""
        super().on_validation_epoch_end()
        parts = [part for own in gather_objects(self._measured) for part in own]
        tokens = sum(count for _, count in parts)
        if tokens:
            self.log(f"val/{DISTILLATION}", sum(total for total, _ in parts) / tokens, rank_zero_only=False)

    test_step = GRPOModule.validation_step
    on_test_epoch_start = on_validation_epoch_start
    on_test_epoch_end = on_validation_epoch_end

    # -- checkpoints ---------------------------------------------------------------------------------------------------

    @override
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["nbg_lightning"]["frozen"] = dict(self.teachers.identity)

    @override
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        check_same_frozen(checkpoint["nbg_lightning"].get("frozen", {}), self.teachers.identity)
