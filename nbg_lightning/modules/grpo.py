"""Reinforcement learning from rewards of groups of answers: GRPO and its relatives."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from torch import Tensor
from typing_extensions import override

from nbg_lightning import log, stopping
from nbg_lightning.callbacks.checkpoint import leave_before_step, save_before_step
from nbg_lightning.core.batch import PackedBatch
from nbg_lightning.core.config import LanguageModelConfig, ParallelConfig, PresetName
from nbg_lightning.core.fingerprint import weights_fingerprint
from nbg_lightning.core.head import TokenStatistics, linear_token_statistics
from nbg_lightning.core.sharding import reshard
from nbg_lightning.distributed import World
from nbg_lightning.engines.chat import ChatFormat
from nbg_lightning.engines.protocol import Engine, Sampling
from nbg_lightning.engines.supervised import EngineDied, SupervisedEngine
from nbg_lightning.losses.policy_gradient import (
    EngineCorrection,
    KLGradient,
    KLValue,
    LossName,
    denominator,
    engine_weights,
    group_advantages,
    kl_penalty,
    objective,
    policy_loss,
    token_weights,
)
from nbg_lightning.modules.base import LanguageModule
from nbg_lightning.modules.optimizer import AdamWConfig
from nbg_lightning.rewards.protocol import Reward
from nbg_lightning.rl.metrics import PolicyRecord, RolloutSummary
from nbg_lightning.rl.rollout_batch import RolloutBatch, TrainedAnswer, pack_answers, plan_micro_batches
from nbg_lightning.rl.rollouts import Rollout, score_rollouts


def completion_statistics(
    hidden_BLD: Tensor, weight_VD: Tensor, predicting_T: Tensor, targets_T: Tensor, temperature: float
) -> TokenStatistics:
    """Log-probs and entropies at the positions that predict a completion token; no logits are made for the others.

    Args:
        hidden_BLD: final hidden states.
        weight_VD: the head's weight.
        predicting_T: positions of the flattened batch.
        targets_T: tokens they predict.
        temperature: of the rollouts.
    """
    if not len(predicting_T):  # the head still takes part: other ranks have answers in this micro-batch
        predicting_T, targets_T = predicting_T.new_zeros(1), targets_T.new_zeros(1)
    hidden = hidden_BLD.flatten(0, 1).index_select(0, predicting_T)
    found = linear_token_statistics(hidden, weight_VD, targets_T, temperature)
    return TokenStatistics(found.log_probs.clone(), found.entropies.clone())  # FSDP warns of outputs that are views


class _CloseOnException(pl.Callback):
    """A run that fails ends its engine and its reward's processes too; Lightning calls no `teardown` then."""

    @override
    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        assert isinstance(pl_module, GRPOModule)
        pl_module.close()


class GRPOModule(LanguageModule):
    """Group-relative policy optimization: sample, score, compare with the group, update (arXiv 2402.03300).

    One step: the engine draws ``group_size`` answers to each question of the batch with the weights as they are, the reward
    scores them, and the policy loss raises the likelihood of answers that are better than their group. Strictly on policy by
    default: one update a batch, after which the engine has the new weights. All sums run over the **whole step on all ranks**
    and are divided once, so micro-batches and ranks change nothing.

    Samples depend on (seed, step, question) only: a run that is resumed goes on with the answers it would have had.

    Nanbeige4-3B (arXiv 2512.06266) has no KL penalty and masks truncated answers; so do the defaults here. The rest of its
    settings is unknown.

    Args:
        reward: what scores answers.
        core: see `LanguageModule`; so are ``optimizer``, ``parallel``, ``micro_batch_tokens`` (positions of prompts and
            completions in a forward), ``max_grad_norm``, ``ema_decay``, ``seed`` and ``base_weights``.
        engine: what draws answers; by default `NativeEngine` on the live weights.
        group_size: answers to each question.
        max_new_tokens: of an answer.
        temperature: of sampling, and of the log-probs that are trained. There is no top-p or top-k: with tokens that cannot
            be drawn, importance ratios are biased.
        loss: ``grpo``, ``dr_grpo``, ``dapo``, ``gspo`` or ``cispo`` (see `losses.policy_gradient`).
        clip_low: room of the ratio below 1; the loss's own by default.
        clip_high: room above 1.
        inner_updates: updates on the same answers. From the second on, ratios differ from 1 and are clipped. Steps,
            schedules and checkpoints count batches.
        engine_correction: what happens where engine and trainer disagree about a token (see `engine_weights`).
        correction_cap: its bound.
        mask_truncated: leave answers that ``max_new_tokens`` cut out of the loss. They count in their group's mean.
        zero_variance: groups whose scores are all equal have advantages of 0. ``keep`` computes them and counts them in the
            denominator; ``drop`` leaves them out of both.
        kl_coefficient: of the divergence from the reference; 0 needs no reference.
        kl_value: estimator that is reported.
        kl_gradient: estimator whose gradient is taken (see `kl_penalty`).
        reference: weights of the reference; ``base_weights`` by default.
        rollout_deadline: seconds that the engine has for a step's answers. What is not finished then is left out.
        validation_samples: answers to each validation question.

    Raises:
        ValueError: a setting that cannot work, before anything is built.
    """

    trains_on = "questions"
    default_learning_rate = 1e-6

    def __init__(
        self,
        reward: Reward,
        core: PresetName | LanguageModelConfig | None = None,
        optimizer: AdamWConfig = AdamWConfig(),  # noqa: B008 - jsonargparse reads the default; never mutated
        parallel: ParallelConfig = ParallelConfig(),  # noqa: B008
        micro_batch_tokens: int = 8192,
        max_grad_norm: float = 1.0,
        ema_decay: float | None = None,
        seed: int = 0,
        base_weights: str | None = None,
        engine: Engine | None = None,
        group_size: int = 8,
        max_new_tokens: int = 256,
        temperature: float = 1.0,
        loss: LossName = "grpo",
        clip_low: float | None = None,
        clip_high: float | None = None,
        inner_updates: int = 1,
        engine_correction: EngineCorrection = "truncate",
        correction_cap: float = 2.0,
        mask_truncated: bool = True,
        zero_variance: Literal["keep", "drop"] = "keep",
        kl_coefficient: float = 0.0,
        kl_value: KLValue = "k3",
        kl_gradient: KLGradient = "k2",
        reference: str | None = None,
        rollout_deadline: float = 900.0,
        validation_samples: int = 1,
    ):
        super().__init__(core, optimizer, parallel, micro_batch_tokens, max_grad_norm, ema_decay, seed, base_weights)
        counted = dict(
            max_new_tokens=max_new_tokens, inner_updates=inner_updates, validation_samples=validation_samples
        )
        for name, value in counted.items():
            if value < 1:
                raise ValueError(f"{name}={value} must be at least 1")
        if group_size < 2:
            raise ValueError(f"group_size={group_size}: an answer is compared with its group, so give at least 2")
        if not temperature > 0:
            raise ValueError(f"temperature={temperature} must be above 0: greedy answers of a group are all the same")
        if not rollout_deadline > 0:
            raise ValueError(f"rollout_deadline={rollout_deadline} seconds: give a number above 0")
        if zero_variance not in ("keep", "drop"):
            raise ValueError(f"zero_variance is {zero_variance!r}: choose keep or drop")
        if kl_coefficient < 0:
            raise ValueError(f"kl_coefficient={kl_coefficient} must not be negative: it would drive the policy away")
        if kl_coefficient and reference is None and base_weights is None:
            raise ValueError("kl_coefficient needs the weights of a reference: give reference, or base_weights")
        if reference is not None and not kl_coefficient:
            raise ValueError("reference has no effect without kl_coefficient: set that, or remove reference")
        self.objective = objective(loss, clip_low, clip_high)
        one = torch.zeros(1)
        engine_weights(one, one, engine_correction, correction_cap)  # refuses what they cannot be,
        kl_penalty(one, one, kl_value, kl_gradient)  # and so does this
        self.reward = reward
        self.engine = engine
        self.group_size, self.max_new_tokens, self.temperature = group_size, max_new_tokens, temperature
        self.inner_updates = inner_updates
        self.engine_correction: EngineCorrection = engine_correction
        self.correction_cap = correction_cap
        self.mask_truncated, self.zero_variance = mask_truncated, zero_variance
        self.kl_coefficient = kl_coefficient
        self.kl_value: KLValue = kl_value
        self.kl_gradient: KLGradient = kl_gradient
        self.reference = reference or base_weights
        self.rollout_deadline = rollout_deadline
        self.validation_samples = validation_samples
        self.coefficients = {"policy": 1.0, "kl": kl_coefficient}
        self.last_rollouts: list[Rollout] = []
        self._open = ExitStack()
        self._engine: SupervisedEngine | None = None
        self._reference: tuple[Any, ...] = ()  # in a tuple: it is no part of this module, nor of its checkpoints
        self._recorded = PolicyRecord()
        self._scored: tuple[list[Rollout], dict[str, float]] | None = None  # answers of the step that begins
        self._validated: list[Rollout] = []
        self._validation_dropped = False
        self._measured: set[str] = set()  # names of all metrics of answers so far
        self._limit_checked = False

    # -- life ----------------------------------------------------------------------------------------------------------

    @override
    def setup(self, stage: str) -> None:
        super().setup(stage)
        if not isinstance(getattr(self.trainer.datamodule, "format", None), ChatFormat):
            if stage == "fit":
                raise ValueError("GRPOModule needs questions: use PromptDataModule")
            return  # benchmarks bring what they need
        self.format: ChatFormat = self.trainer.datamodule.format
        self._check_window()
        self.close()
        self._open.enter_context(self.reward)  # refuses what it needs and has not, before a model is built
        self.trainer.datamodule.check(self.reward)

    def _check_window(self) -> None:
        longest, window = self.trainer.datamodule.longest_prompt, self.shape.max_position_embeddings
        if longest >= window:
            raise ValueError(
                f"the longest prompt has {longest:,} tokens, and the model's window is {window:,}: set the datamodule's "
                "max_prompt_tokens"
            )
        if longest + self.max_new_tokens > window:
            log.warn(
                f"the longest prompt ({longest:,} tokens) and max_new_tokens={self.max_new_tokens:,} exceed the model's "
                f"window of {window:,}: its answers are cut earlier"
            )

    @override
    def configure_callbacks(self) -> list[pl.Callback]:
        """Watch the run, and show its answers, unless the trainer has a `Sentinel` or `SampleTable` of its own."""
        from nbg_lightning.callbacks.sample_table import SampleTable
        from nbg_lightning.callbacks.sentinel import Sentinel

        there = tuple(type(callback) for callback in self.trainer.callbacks)  # type: ignore[attr-defined]
        watching: list[pl.Callback] = [
            kind() for kind in (Sentinel, SampleTable) if not any(issubclass(other, kind) for other in there)
        ]
        return [*super().configure_callbacks(), *watching, _CloseOnException()]

    @override
    def configure_model(self) -> None:
        super().configure_model()
        if not self.kl_coefficient or self._reference:
            return
        from nbg_lightning.core.create import create_model
        from nbg_lightning.core.weights import load_base_weights

        assert self.reference is not None
        model = create_model(self.shape, self.parallel, self._data_mesh(), self.device, self.seed)
        load_base_weights(model, self.reference)
        self._reference = (model.requires_grad_(False).eval(),)

    @override
    def on_train_start(self) -> None:
        self._opened_engine()

    def on_fit_start(self) -> None:
        """Compare the weights with those that the questions' pass rates were measured with; a resumed run has moved on."""
        if self.trainer.ckpt_path is None and self.trainer.datamodule.ledger is not None:
            self.trainer.datamodule.check_weights(weights_fingerprint(self.model))

    def _opened_engine(self) -> SupervisedEngine:
        """The engine, opened once in a run; all ranks together."""
        if self._engine is None:
            engine = self.engine
            if engine is None:
                from nbg_lightning.engines.native import NativeEngine

                engine = NativeEngine(self.model)
            supervised = SupervisedEngine(engine, self.model, self._probe)
            supervised.open()
            self._open.callback(supervised.close)
            self._engine = supervised
        return self._engine

    def close(self) -> None:
        """End the engine and the reward."""
        self._engine = None
        self._open.close()

    @override
    def teardown(self, stage: str) -> None:
        self.close()

    def _probe(self, ids: tuple[int, ...]) -> Any:
        """What the trainer says of a text, at temperature 1, for an engine to be compared with."""
        from nbg_lightning.engines.vllm import Probe

        tokens = torch.tensor(ids, device=self.device)
        places = torch.arange(len(ids) - 1, device=self.device)
        head = partial(completion_statistics, predicting_T=places, targets_T=tokens[1:], temperature=1.0)
        with torch.no_grad():
            log_probs = self.model(tokens[None], head=head).log_probs
        reshard(self.model)
        return Probe(ids, tuple(log_probs.tolist()))

    # -- rollouts ------------------------------------------------------------------------------------------------------

    def _sampling(self, n: int, seed: int) -> Sampling:
        return Sampling(
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            n=n,
            stop_ids=self.format.stop_ids,
            seed=seed,
        )

    def _sample(self, batch: Any, sampling: Sampling, plan: str) -> tuple[list[Rollout], dict[str, float]] | None:
        """Answers to the questions of a batch with their results, and the seconds that took.

        Args:
            batch: of questions.
            sampling: how they are answered.
            plan: what a signal does meanwhile, in a few words.

        Returns:
            None, on all ranks, where a signal on one of them asks for a stop: what is there is dropped.
        """
        with stopping.dropping(plan):
            return self._sampled(batch, sampling)

    def _sampled(self, batch: Any, sampling: Sampling) -> tuple[list[Rollout], dict[str, float]] | None:
        engine = self._opened_engine()
        begin = time.perf_counter()
        engine.seconds_of_sync = 0.0
        try:
            completions = engine.generate(batch.prompts, sampling, self.rollout_deadline, self.global_step)
        except EngineDied as error:
            save_before_step(self.trainer)
            raise RuntimeError(f"{error}; the state before this step is saved: mend it and resume") from error
        if self._stop_asked():
            return None
        middle = time.perf_counter()
        rollouts = [
            Rollout(question, prompt, tuple(self.format.read(completion) for completion in samples), ())
            for question, prompt, samples in zip(batch.questions, batch.prompts, completions, strict=True)
        ]
        self._check_engine(rollouts)
        scored = stopping.unless_stopped(lambda: score_rollouts(self.reward, rollouts))
        if self._stop_asked() or scored is None:
            return None
        seconds = {
            "sync": engine.seconds_of_sync,
            "engine": middle - begin - engine.seconds_of_sync,
            "reward": time.perf_counter() - middle,
        }
        return scored, seconds

    @staticmethod
    def _stop_asked() -> bool:
        """Whether a signal has asked a rank to stop; all ranks together."""
        return any(World().gather(stopping.stop_asked()))

    def _check_engine(self, rollouts: Sequence[Rollout]) -> None:
        """Refuse answers that cannot be trained on.

        Raises:
            ValueError: they are no token ids, or lack log-probs that are needed.
            RuntimeError: they were drawn with other weights.
        """
        for rollout in rollouts:
            for answer in rollout.answers:
                completion = answer.completion
                if completion.finish_reason not in ("stop", "length"):
                    continue
                if not completion.ids:
                    raise ValueError("the engine gives texts and no token ids, which cannot be trained on: use another")
                if len(completion.log_probs) != len(completion.ids):
                    raise ValueError("the engine gives no log-probs, without which nobody sees how far off it is")
                if completion.weight_version != self.global_step:
                    raise RuntimeError(
                        f"the engine answered with the weights of step {completion.weight_version} in step "
                        f"{self.global_step}: they were not pushed"
                    )

    def _with_advantages(self, rollouts: Sequence[Rollout]) -> list[Rollout]:
        """Compare answers with their groups, and choose those that are trained."""
        if not rollouts:
            return []
        scores = [[math.nan if r.score is None else r.score for r in rollout.results] for rollout in rollouts]
        scores_GN = torch.tensor(scores, dtype=torch.float64)
        valid_GN = ~scores_GN.isnan()
        found = group_advantages(scores_GN, valid_GN, self.objective.scale_advantages)
        cut_GN = torch.tensor([[a.completion.finish_reason == "length" for a in r.answers] for r in rollouts])
        trained_GN = valid_GN & ~(cut_GN & self.mask_truncated)
        if self.zero_variance == "drop":
            trained_GN &= found.informative[:, None]
        return [
            dataclasses.replace(rollout, advantages=tuple(values), trained=tuple(trained))
            for rollout, values, trained in zip(rollouts, found.values.tolist(), trained_GN.tolist(), strict=True)
        ]

    # -- one step ------------------------------------------------------------------------------------------------------

    @override
    def on_train_batch_start(self, batch: Any, batch_idx: int) -> int | None:
        """Draw and score the step's answers; -1 ends training without the step, where a signal asks for that meanwhile."""
        self._check_limit(batch)
        sampling = self._sampling(self.group_size, (self.seed << 32) + self.global_step)
        self._scored = self._sample(batch, sampling, "stopping before this step, whose answers are dropped")
        if self._scored is None:
            log.info(f"the answers of step {self.global_step + 1} are dropped: a resumed run draws the same")
            return leave_before_step(self.trainer)
        return None

    @override
    def training_step(self, batch: Any, batch_idx: int) -> None:
        assert self._scored is not None
        (rollouts, seconds), self._scored = self._scored, None
        self.last_rollouts = rollouts = self._with_advantages(rollouts)
        begin = time.perf_counter()
        answers = _trained_answers(rollouts)
        plan = plan_micro_batches([answer.positions for answer in answers], self.micro_batch_tokens)
        summaries = World().gather(RolloutSummary.of(rollouts, seconds, len(plan)))
        self._log_rollouts(RolloutSummary.joined(summaries))
        # As many forwards on every rank; at least one, in which ranks agree about the step.
        most = max(1, *(summary.micro_batches for summary in summaries))
        parts = [[answers[index] for index in part] for part in plan] + [[]] * (most - len(plan))
        micro = [pack_answers(part).to(self.device) for part in parts]
        if self._reference:
            self._add_reference(micro)
        counts, sample_hash = self._agree(micro, batch.sample_hash.sum())
        self.step_length = sum(answer.positions for answer in answers) // max(1, len(answers))
        self._recorded = PolicyRecord()
        for update in range(self.inner_updates):
            means, grad_norm = self._update(micro, counts, repeated=update > 0)
        self._advance(sample_hash)
        self._log_step(means, grad_norm)
        joined = PolicyRecord.joined(World().gather(self._recorded.on_host()))
        self.log_dict({**joined, "time/train": time.perf_counter() - begin})

    def _check_limit(self, batch: Any) -> None:
        """Say once if gold answers do not fit into an answer: then no sample can be right."""
        if self._limit_checked:
            return
        self._limit_checked = True
        tokenizer = self.format.tokenizer
        golds = [question.answer for question in batch.questions if question.answer]
        lengths = [] if tokenizer is None else [len(tokenizer.encode(gold)) + 1 for gold in golds]
        if (number := sum(length > self.max_new_tokens for length in lengths)) > 0:
            log.warn(
                f"max_new_tokens={self.max_new_tokens} is shorter than {number} of the first {len(lengths)} gold answers "
                f"(the longest takes {max(lengths)} tokens with its end): no sample can be right there; raise it"
            )

    def _add_reference(self, micro: Sequence[RolloutBatch]) -> None:
        (model,) = self._reference
        with torch.no_grad():
            for part in micro:
                part.reference_log_probs = self._statistics(model, part).log_probs[: part.num_trained]
        reshard(model)

    def _statistics(self, model: Any, batch: RolloutBatch) -> TokenStatistics:
        head = partial(
            completion_statistics,
            predicting_T=batch.predicting,
            targets_T=batch.targets,
            temperature=self.temperature,
        )
        return model(batch.tokens, batch.positions, batch.offsets, head)

    @override
    def count(self, batch: PackedBatch) -> dict[str, float]:
        assert isinstance(batch, RolloutBatch)
        count = denominator(batch.num_answers, batch.num_trained, self.objective.aggregation)
        return {"policy": count, "kl": count} if self.kl_coefficient else {"policy": count}

    @override
    def losses(self, batch: PackedBatch) -> dict[str, Tensor]:
        assert isinstance(batch, RolloutBatch)
        statistics = self._statistics(self.model, batch)
        if not batch.num_answers:
            nothing = statistics.log_probs.sum() * 0.0
            return {"policy": nothing, "kl": nothing} if self.kl_coefficient else {"policy": nothing}
        log_probs = statistics.log_probs
        first = batch.old_log_probs is None
        if batch.old_log_probs is None:  # the first update: these weights drew the answers
            batch.old_log_probs = log_probs.detach()
        correction = engine_weights(
            batch.old_log_probs, batch.engine_log_probs, self.engine_correction, self.correction_cap
        )
        advantages = batch.advantages[batch.sequence]
        loss = policy_loss(log_probs, batch.old_log_probs, advantages, batch.sequence, batch.lengths, self.objective)
        weights = token_weights(batch.sequence, batch.lengths, self.objective.aggregation, self.max_new_tokens)
        self._recorded.add_update(loss.clipped)
        if first:
            self._recorded.add_rollouts(log_probs, statistics.entropies, batch.engine_log_probs, correction)
        terms = {"policy": (loss.token_losses.double() * correction * weights).sum()}
        if self.kl_coefficient:
            assert batch.reference_log_probs is not None
            penalty = kl_penalty(
                log_probs, batch.reference_log_probs, self.kl_value, self.kl_gradient, loss.ratios * correction
            )
            terms["kl"] = (penalty.double() * weights).sum()
        return terms

    def _log_rollouts(self, summary: RolloutSummary) -> None:
        """Metrics of the answers; stop where there is nothing that could be trained.

        Raises:
            RuntimeError: no answer of the step has a score, on any rank.
        """
        metrics = summary.metrics()
        self._measured |= set(metrics)
        for name, value in metrics.items():
            self.log(name, value, prog_bar=name == "reward/mean")
        if summary.answers and "reward/mean" not in metrics:
            save_before_step(self.trainer)
            raise RuntimeError(
                f"no answer of step {self.global_step} has a score, the first because: {summary.first_problem}; the state "
                "before this step is saved: mend it and resume"
            )
        if summary.answers and summary.truncated == summary.answers:
            log.warn(
                f"step {self.global_step}: all {summary.answers} answers were cut at max_new_tokens={self.max_new_tokens}"
                f"{', and none is trained' if self.mask_truncated else ''}: raise it"
            )

    # -- validation ----------------------------------------------------------------------------------------------------

    @override
    def on_validation_start(self) -> None:
        super().on_validation_start()
        self._push_again()

    @override
    def on_validation_end(self) -> None:
        super().on_validation_end()
        self._push_again()

    def _push_again(self) -> None:
        """The averaged weights come in or go out: an engine with weights of its own must have them."""
        if self.ema_decay is not None and self._engine is not None:
            self._engine.version = None

    @override
    def on_validation_epoch_start(self) -> None:
        self._validated, self._validation_dropped = [], False

    @override
    def validation_step(self, batch: Any, batch_idx: int) -> None:
        if self._validation_dropped:
            return
        sampling = self._sampling(self.validation_samples, self.seed)
        sampled = self._sample(batch, sampling, "stopping, and this validation is dropped")
        if sampled is None:
            self._validation_dropped = True
        else:
            self._validated += sampled[0]

    @override
    def on_validation_epoch_end(self) -> None:
        """Reward and pass rate of each source's held-out questions."""
        summary = RolloutSummary.joined(World().gather(RolloutSummary.of(self._validated, {}, 0)))
        kept = ("reward/", "pass_rate/", "rollout/truncated", "rollout/errors", "rollout/length")
        found = summary.metrics()
        self._measured |= set(found)
        metrics = {f"val/{k}": v for k, v in found.items() if k.startswith(kept)}
        if self._validation_dropped:
            log.info("this validation is dropped, and its metrics are NaN: those of a part would mislead")
            # Each that there would be: a `ModelCheckpoint` asks for its own.
            metrics = {f"val/{k}": math.nan for k in sorted(self._measured) if k.startswith(kept)}
        self.log_dict(metrics)
        self._validated = []

    test_step = validation_step
    on_test_start = on_validation_start
    on_test_end = on_validation_end
    on_test_epoch_start = on_validation_epoch_start
    on_test_epoch_end = on_validation_epoch_end


def _trained_answers(rollouts: Sequence[Rollout]) -> list[TrainedAnswer]:
    return [
        TrainedAnswer(rollout.prompt.ids, answer.completion.ids, answer.completion.log_probs, advantage)
        for rollout in rollouts
        for answer, advantage, trained in zip(rollout.answers, rollout.advantages, rollout.trained, strict=True)
        if trained
    ]
