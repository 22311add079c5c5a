"""Reinforcement learning with rewards relative to a group of answers: GRPO and its variants."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import lightning.pytorch as pl
from torch import Tensor
from typing_extensions import override

from nbg_lightning import log
from nbg_lightning.callbacks.checkpoint import fail_before_step, leave_before_step
from nbg_lightning.contracts import ServesQuestions, datamodule_of
from nbg_lightning.core.batch import PackedBatch
from nbg_lightning.core.config import LanguageModelConfig, PresetName
from nbg_lightning.core.fingerprint import weights_fingerprint
from nbg_lightning.core.prefixes import SharePrefixes, shortest_shared
from nbg_lightning.distributed import gather_objects
from nbg_lightning.engines.chat import ChatFormat
from nbg_lightning.engines.protocol import Engine, Sampling
from nbg_lightning.environments.environment import Environment
from nbg_lightning.keywords import Keywords
from nbg_lightning.losses.policy_gradient import LossName, denominator
from nbg_lightning.modules.base import LanguageModule, LanguageModuleKeywords
from nbg_lightning.modules.grpo_callbacks import KeepRollouts, watching_callbacks
from nbg_lightning.modules.grpo_steps import answer_sampling, packing_of, run_of_steps, unless_stopped
from nbg_lightning.rewards.protocol import Reward
from nbg_lightning.rl.advantages import AdvantageEstimator, GroupNormalized, with_advantages
from nbg_lightning.rl.checks import check_gold_answers, check_settings, check_truncation, check_window
from nbg_lightning.rl.collector import Collected, RolloutCollector
from nbg_lightning.rl.held_out import HeldOut
from nbg_lightning.rl.metrics import PolicyRecord, RolloutSummary
from nbg_lightning.rl.policy_loss import DEFAULT_LOSS, PolicyLossConfig, loss_apart, policy_terms, rollout_statistics
from nbg_lightning.rl.reference import BasePolicy, ReferencePolicy, reference_policy
from nbg_lightning.rl.rollout_batch import RolloutBatch
from nbg_lightning.rl.rollout_settings import RolloutSettings, rollouts_apart
from nbg_lightning.rl.rollouts import Rollout
from nbg_lightning.rl.step import PackedStep, pack_step
from nbg_lightning.rl.training_rollouts import TrainingRollouts


class GRPOModule(LanguageModule):
    """Group-relative policy optimization: sample, score, compare within the group, update (arXiv 2402.03300).

    In each step, the `RolloutCollector` samples ``group_size`` answers per question with the current weights and scores
    them with the reward; the advantage estimator compares each answer with its group, and the policy loss raises the
    likelihood of the better ones. Strictly on-policy by default: one update per batch, after which the engine gets the new
    weights. Sums over the **whole step on all ranks** are divided once, so micro-batches and ranks do not change results.

    Samples depend only on (seed, step, question) and the weights: a resumed run continues with the answers that it would
    have had. As in Nanbeige4-3B (arXiv 2512.06266), by default there is no KL penalty and truncated answers are masked.

    Args:
        reward: scores answers; may be omitted if the environment scores them.
        core: see `LanguageModule`, also for ``base``; ``micro_batch_tokens`` counts positions of prompts and completions.
        environment: for multi-turn episodes (`ToolEnvironment`, or your own); without one, an answer is a single turn.
        engine: samples answers; by default `NativeEngine` on the live weights.
        group_size: answers per question.
        max_new_tokens: maximum length of an answer.
        temperature: of sampling and of the trained log-probs; there is no top-p or top-k, which would bias the ratios.
        rollouts: how answers are obtained: synchronously, ahead of the step, or from a ledger; deadline, validation samples.
        loss: name of a loss, or its settings (`PolicyLossConfig`).
        advantages: how answers are compared; by default with the mean and deviation of their group, as the loss defines it.
        inner_updates: updates on the same answers; from the second on, ratios differ from 1. Steps count batches.
        share_prefixes: compute a group's prompt once (the default, except for very short ones); gradients are the same.
        **base: arguments of `LanguageModule`.

    Raises:
        ValueError: an invalid setting, before anything is built.
    """

    trains_on = "questions"
    splits_context = draws_samples = True
    default_learning_rate = 1e-6
    _collected: Collected | None = None  # answers of the step about to start

    def __init__(
        self,
        reward: Reward | None = None,
        core: PresetName | LanguageModelConfig | None = None,
        *,
        environment: Environment | None = None,
        engine: Engine | None = None,
        group_size: int = 8,
        max_new_tokens: int = 256,
        temperature: float = 1.0,
        rollouts: RolloutSettings = RolloutSettings(),  # noqa: B008 - jsonargparse reads the default; never mutated
        loss: LossName | PolicyLossConfig = DEFAULT_LOSS,
        advantages: AdvantageEstimator | None = None,
        inner_updates: int = 1,
        share_prefixes: SharePrefixes = "auto",
        **base: Keywords[LanguageModuleKeywords],
    ):
        rollouts, base = rollouts_apart(rollouts, base)
        own_loss, base = loss_apart(loss, base)
        super().__init__(core, **base)
        self.loss_config, self.coefficients = own_loss, own_loss.coefficients
        check_settings(group_size, max_new_tokens, temperature, inner_updates)
        self.loss_config.reference_weights(self.base_weights)  # raises for a penalty without them
        self.collector = RolloutCollector(reward, engine, rollouts.deadline, environment)
        self.answers = TrainingRollouts(self.collector, rollouts, self.parallel.compute_dtype)
        self.longest_wait = rollouts.deadline  # seconds that a rank waits for another's engine
        self.advantages = advantages or GroupNormalized(self.loss_config.objective.scale_advantages)
        self.group_size, self.max_new_tokens, self.temperature = group_size, max_new_tokens, temperature
        self.inner_updates, self.validation_samples = inner_updates, rollouts.validation_samples
        self.tokens_per_unit = group_size * max_new_tokens * inner_updates  # per question
        self.shortest_prefix = shortest_shared(share_prefixes)
        self.last_rollouts: list[Rollout] = []
        self.reference: ReferencePolicy | BasePolicy | None = None  # not a submodule: neither trained, saved nor moved
        self._record, self._held_out = PolicyRecord(), HeldOut()

    # -- life ----------------------------------------------------------------------------------------------------------

    @override
    def setup(self, stage: str) -> None:
        super().setup(stage)
        if not isinstance(datamodule := datamodule_of(self.trainer), ServesQuestions):
            if stage == "fit":
                raise ValueError("GRPOModule needs questions; use PromptDataModule")
            return  # benchmarks provide what they need
        self.format: ChatFormat = datamodule.format
        check_window(datamodule.longest_prompt, self.max_new_tokens, self.shape.max_position_embeddings)
        self.collector.open_reward()  # before a model is built
        datamodule.check(self.collector.reward)

    @override
    def configure_callbacks(self) -> list[pl.Callback]:
        return [*super().configure_callbacks(), *watching_callbacks(self.trainer), KeepRollouts(self.answers)]

    @override
    def configure_model(self) -> None:
        super().configure_model()
        weights = self.loss_config.reference_weights(self.base_weights)
        if weights is not None and self.reference is None:
            own = self.adapter is not None and self.adapter.begins_from(weights)
            self.reference = reference_policy(weights, self.model, own, self.sharding, self._data_mesh(), self.device)

    @override
    def on_fit_start(self) -> None:
        """Check that the pass rates of the questions were measured with the run's initial weights; skipped when resuming."""
        datamodule: ServesQuestions = datamodule_of(self.trainer)
        if self.trainer.ckpt_path is None and datamodule.ledger is not None:
            datamodule.check_weights((self.adapter and self.adapter.first_weights) or weights_fingerprint(self.model))

    # -- one step ------------------------------------------------------------------------------------------------------

    def sampling(self, n: int, seed: int) -> Sampling:
        """Sampling settings, with ``n`` answers per question."""
        return answer_sampling(self, n, seed)

    @override
    def on_train_batch_start(self, batch: Any, batch_idx: int) -> int | None:
        """Sample and score the step's answers; -1 ends training before the step, if a signal requests it meanwhile."""
        if not self.answers.is_open:
            check_gold_answers(batch.questions, self.format, self.max_new_tokens)
            self.answers.open(run_of_steps(self, batch), self.global_step, self.trainer.ckpt_path is not None)
        draw, plan = partial(self.answers.collect, batch), "stopping before this step, whose answers are dropped"
        self._collected = unless_stopped(self.trainer, partial(draw, self.global_step), plan)
        if self._collected is not None:
            return None
        log.info(f"the answers of step {self.global_step + 1} are dropped: a resumed run draws the same")
        return leave_before_step(self.trainer)

    def prepare(self, rollouts: list[Rollout], seconds: dict[str, float]) -> PackedStep:
        """Compute advantages, select the answers to train on, and pack them. Collective."""
        self.last_rollouts = with_advantages(rollouts, self.advantages, *self.loss_config.left_out)
        return pack_step(self.last_rollouts, seconds, packing_of(self))

    @override
    def training_step(self, batch: Any, batch_idx: int) -> None:
        assert self._collected is not None
        collected, self._collected, begin = self._collected, None, time.perf_counter()
        micro, summary, _ = self.prepare(*collected)
        self._log_rollouts(summary)
        if self.reference is not None:
            micro = self.reference.with_log_probs(micro, self.temperature)
        counts, sample_hash = self.all_reduce_counts(micro, batch.sample_hash.sum())
        self._record = PolicyRecord()
        update = self.update_weights(micro, counts)
        if self.inner_updates > 1:
            micro = self._record.with_old_log_probs(micro)
        for _ in range(self.inner_updates - 1):
            update = self.update_weights(micro, counts, repeated=True)
        self.finish_step(update, sample_hash)
        joined = PolicyRecord.joined(gather_objects(self._record.on_host()))
        self.log_dict({**joined, "time/train": time.perf_counter() - begin})

    @override
    def count(self, batch: PackedBatch) -> dict[str, float]:
        assert isinstance(batch, RolloutBatch)
        count = denominator(batch.num_counted, batch.num_trained, self.loss_config.objective.aggregation)
        return dict.fromkeys(self.coefficients, count)

    @override
    def losses(self, batch: PackedBatch) -> dict[str, Tensor]:
        assert isinstance(batch, RolloutBatch)
        statistics = rollout_statistics(self.model, batch, self.temperature)
        found = policy_terms(statistics.log_probs, batch, self.loss_config, self.max_new_tokens)
        self._record.add(batch, statistics, found)
        return found.sums

    def _log_rollouts(self, summary: RolloutSummary) -> None:
        """Log metrics of the answers; a step in which no answer on any rank has a score stops the run."""
        metrics = summary.metrics()
        self._held_out.remember(metrics)
        for name, value in metrics.items():
            self.log(name, value, prog_bar=name == "reward/mean")
        if summary.first_problem and "reward/mean" not in metrics:
            problem = f"no answer of step {self.global_step} has a score, the first because: {summary.first_problem}"
            fail_before_step(self.trainer, problem, "reward")
        check_truncation(summary, self.global_step, self.max_new_tokens, self.loss_config.mask_truncated)

    # -- validation ----------------------------------------------------------------------------------------------------

    @override
    def on_averages_swapped(self) -> None:
        self.collector.invalidate_engine_weights()

    @override
    def on_validation_epoch_start(self) -> None:
        self._held_out.start()

    @override
    def validation_step(self, batch: Any, batch_idx: int) -> None:
        if not self._held_out.dropped:
            draw, plan = partial(self._validate, batch), "stopping, and this validation is dropped"
            found = unless_stopped(self.trainer, draw, plan)
            self._held_out.add(None if found is None else found.rollouts)
            if found is not None:
                self.measure_held_out(*found)

    def _validate(self, batch: Any) -> Collected | None:
        self.collector.open_engine(self.model, self.device)
        with self.answers.paused():
            sampling = self.sampling(self.validation_samples, self.seed)
            return self.collector.collect(batch, self.format, sampling, self.global_step)

    def measure_held_out(self, rollouts: list[Rollout], seconds: dict[str, float]) -> None:
        """Measure additional validation metrics of a subclass on the answers of one batch. Collective."""

    @override
    def on_validation_epoch_end(self) -> None:
        """Log reward and pass rate of each source's held-out questions."""
        self.log_dict(self._held_out.end())

    test_step = validation_step
    on_test_epoch_start = on_validation_epoch_start
    on_test_epoch_end = on_validation_epoch_end
