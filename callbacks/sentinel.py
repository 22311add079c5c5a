"""Stops a run that has stopped learning, instead of wasting the rest of its budget."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any, Literal, get_args

import lightning.pytorch as pl
from typing_extensions import override

from nbg_lightning import log
from nbg_lightning.callbacks.checkpoint import save_state
from nbg_lightning.callbacks.rewind import Rewind, check_rewind, go_back
from nbg_lightning.contracts import CountsSkippedSteps, KeepsRollouts, LimitsAnswers
from nbg_lightning.quantities import count_text

SentinelRule = Literal[
    "zero_advantage", "errors", "mismatch", "entropy", "truncation", "bad_cases", "non_finite", "spike"
]


_USUAL_STEPS = 64  # good steps whose median loss is the baseline


class Sentinel(pl.Callback):
    """Monitors the metrics of every step, and stops the run or warns when one has been bad for several steps in a row.

    ============== ======================================================= ===================================
    rule           bad is                                                  metrics
    ============== ======================================================= ===================================
    zero_advantage groups whose answers all have the same score            ``rollout/zero_variance``
    errors         answers without a score, since the verifier failed      ``rollout/errors``
    mismatch       engine and trainer disagree about probabilities         ``policy/mismatch_kl``, ``policy/p99_ratio``
    entropy        the policy has collapsed to few answers                 ``policy/entropy``
    truncation     answers cut off by the length limit                     ``rollout/truncated``
    bad_cases      answers that loop or are malformed                      ``rollout/loop``, ``rollout/malformed``
    non_finite     steps that were skipped, or whose loss is not finite    ``train/loss``, skipped steps
    spike          a loss far above the recent ones                        ``train/loss``
    ============== ======================================================= ===================================

    Metrics that a run does not log are ignored, so it works with SFT and DPD too (``non_finite``). The message names the
    cause and what to change in the YAML. Before it stops, the state is saved, so the run can be resumed. With ``rewind`` it
    goes back to a checkpoint instead of stopping, and skips the data that followed.

    Args:
        patience: consecutive bad steps before it acts.
        max_zero_variance: share of groups without variance at or above which a step is bad; None disables a rule, here and
            below.
        max_errors: maximum share of answers without a score.
        max_mismatch_kl: maximum KL divergence of the engine from the trainer in nats per token.
        max_p99_ratio: maximum 99th percentile of the ratio of probabilities (the larger by the smaller).
        min_entropy: minimum entropy in nats per token.
        min_entropy_share: minimum entropy as a share of the run's entropy in its first ``patience`` steps.
        max_truncation: maximum share of truncated answers.
        max_bad_cases: maximum share of answers that loop or are malformed.
        max_loss_rise: maximum rise of the loss above the median of the last 64 good steps.
        stop: rules that stop the run; the others warn once, until the metric has been good again.
        rewind: when to rewind; None for never.

    Raises:
        ValueError: a value out of its range, or an unknown rule.
        RuntimeError: in training, when a rule stops the run.
    """

    def __init__(
        self,
        patience: int = 5,
        max_zero_variance: float | None = 1.0,
        max_errors: float | None = 0.2,
        max_mismatch_kl: float | None = 0.05,
        max_p99_ratio: float | None = 3.0,
        min_entropy: float | None = None,
        min_entropy_share: float | None = 0.05,
        max_truncation: float | None = 0.5,
        max_bad_cases: float | None = 0.5,
        max_loss_rise: float | None = None,
        stop: Sequence[SentinelRule] = ("zero_advantage", "errors", "mismatch", "non_finite"),
        rewind: Rewind | None = None,
    ):
        if patience < 1:
            raise ValueError(f"patience is invalid: {patience}; give at least 1 step")
        shares = {
            "max_zero_variance": max_zero_variance,
            "max_errors": max_errors,
            "min_entropy_share": min_entropy_share,
            "max_truncation": max_truncation,
            "max_bad_cases": max_bad_cases,
        }
        for name, value in shares.items():
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"{name} is invalid: {value}; give a share from 0 to 1, or null to switch it off")
        bounds = {"max_mismatch_kl": max_mismatch_kl, "max_p99_ratio": max_p99_ratio, "min_entropy": min_entropy}
        bounds["max_loss_rise"] = max_loss_rise
        for name, value in bounds.items():
            if value is not None and not value > 0:
                raise ValueError(f"{name} is invalid: {value}; give a number above 0, or null to switch it off")
        for name, rules in (("stop", stop), ("rewind.rules", () if rewind is None else rewind.rules)):
            if unknown := sorted(set(rules) - set(get_args(SentinelRule))):
                raise ValueError(
                    f"{name} is invalid: {', '.join(unknown)}; choose from {', '.join(get_args(SentinelRule))}"
                )
        self.patience = patience
        self.max_zero_variance, self.max_errors, self.max_truncation = max_zero_variance, max_errors, max_truncation
        self.max_bad_cases = max_bad_cases
        self.max_mismatch_kl, self.max_p99_ratio = max_mismatch_kl, max_p99_ratio
        self.min_entropy, self.min_entropy_share = min_entropy, min_entropy_share
        self.max_loss_rise = max_loss_rise
        self.stop, self.rewind, self.rewinds = tuple(stop), rewind, 0
        self.losses: list[float] = []  # of good steps
        self.bad_steps: dict[str, int] = {}
        self.first_entropies: list[float] = []
        self._skipped = 0

    # -- state: the same on all ranks ------------------------------------------------------------------------------------

    @override
    def state_dict(self) -> dict[str, Any]:
        kept = {"first_entropies": list(self.first_entropies), "losses": list(self.losses), "rewinds": self.rewinds}
        return {"bad_steps": dict(self.bad_steps), **kept}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # A stopped run is resumed because something was fixed: it starts with full patience.
        self.first_entropies = list(state_dict["first_entropies"])
        self.losses, self.rewinds = list(state_dict.get("losses", [])), state_dict.get("rewinds", 0)

    # -- every step ------------------------------------------------------------------------------------------------------

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._skipped = _skipped_steps(pl_module)
        if self.rewind is not None:
            check_rewind(trainer)

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        found = self._bad(metrics, pl_module)
        stopping: list[str] = []
        going_back: list[str] = []
        for rule in get_args(SentinelRule):
            if rule not in found:
                self.bad_steps[rule] = 0
                continue
            self.bad_steps[rule] = self.bad_steps.get(rule, 0) + 1
            may_go_back = self.rewind is not None and rule in self.rewind.rules
            if self.bad_steps[rule] >= self.patience and (rule in self.stop or may_go_back):
                (going_back if may_go_back else stopping).append(rule)
            elif self.bad_steps[rule] == self.patience:
                log.warn(f"step {trainer.global_step}: {self._explained(rule, found[rule])}")
        if going_back and not stopping and self._go_back(trainer, pl_module, found, going_back):
            return
        if stopping := [*stopping, *going_back]:
            text = "; also: ".join(self._explained(rule, found[rule]) for rule in stopping)
            save_state(trainer)  # what was learned is kept
            raise RuntimeError(f"stopped after step {trainer.global_step}: {text}")

    def _go_back(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, found: dict[str, str], rules: list[str]
    ) -> bool:
        """Rewind to before the bad steps, and return whether that was possible."""
        assert self.rewind is not None
        if self.rewinds >= self.rewind.most:
            return False
        bad = max(self.bad_steps[rule] for rule in rules)
        log.warn(
            f"step {trainer.global_step}: " + "; also: ".join(self._explained(rule, found[rule]) for rule in rules)
        )
        self.rewinds, self.bad_steps = self.rewinds + 1, {}
        return go_back(trainer, pl_module, trainer.global_step - bad) is not None

    def _explained(self, rule: str, problem: str) -> str:
        return f"{problem} ({rule}, {count_text(self.bad_steps[rule], 'step')} in a row)"

    # -- the rules: name to cause and fix, for those that this step violates ------------------------------------------------

    def _bad(self, metrics: dict[str, float], pl_module: pl.LightningModule) -> dict[str, str]:
        found = {
            "zero_advantage": self._zero_advantage(metrics),
            "errors": self._errors(metrics, pl_module),
            "mismatch": self._mismatch(metrics),
            "entropy": self._entropy(metrics),
            "truncation": self._truncation(metrics, pl_module),
            "bad_cases": self._bad_cases(metrics),
            "non_finite": self._non_finite(metrics, pl_module),
            "spike": self._spike(metrics),
        }
        return {rule: problem for rule, problem in found.items() if problem is not None}

    def _zero_advantage(self, metrics: dict[str, float]) -> str | None:
        share, limit = metrics.get("rollout/zero_variance"), self.max_zero_variance
        if share is None or limit is None or share < limit:
            return None
        mean, rate = metrics.get("reward/mean", math.nan), metrics.get("pass_rate/mean", math.nan)
        what = f"in {share:.0%} of the groups all answers have the same reward (mean {mean:.3g}), so nothing is learned"
        if metrics.get("rollout/truncated", 0.0) > 0.5:
            return f"{what}: most answers are cut off; raise model.init_args.max_new_tokens"
        if mean <= 0:
            return (
                f"{what}: the questions are too hard, or answers are not written as the reward reads them; run `nbg pass-rate` "
                "and set data.init_args.ledger, give easier sources, fine-tune on the answer format first, or raise "
                "model.init_args.group_size"
            )
        fix = "run `nbg pass-rate` and set data.init_args.ledger, or give"
        if rate > 0.5:
            return f"{what}: the questions are too easy; {fix} harder sources"
        return f"{what}: look at the answers (SampleTable), whether model.init_args.reward tells them apart; {fix} other sources"

    def _errors(self, metrics: dict[str, float], pl_module: pl.LightningModule) -> str | None:
        share, limit = metrics.get("rollout/errors"), self.max_errors
        if share is None or limit is None or share <= limit:
            return None
        first = next(
            (
                f"; for example: {result.detail or result.status}"
                for rollout in (pl_module.last_rollouts if isinstance(pl_module, KeepsRollouts) else ())
                for result in rollout.results
                if result.score is None
            ),
            "",
        )
        return (
            f"{share:.0%} of the answers have no score because verifier or engine fail{first}; fix model.init_args.reward "
            "(or its timeout), or allow more by Sentinel's max_errors"
        )

    def _mismatch(self, metrics: dict[str, float]) -> str | None:
        problems = []
        for name, limit in (("policy/mismatch_kl", self.max_mismatch_kl), ("policy/p99_ratio", self.max_p99_ratio)):
            value = metrics.get(name)
            if value is not None and limit is not None and not value <= limit:  # also for NaN
                problems.append(f"{name} is {value:.3g} (limit {limit:g})")
        if not problems:
            return None
        return (
            f"engine and trainer disagree about what was sampled: {' and '.join(problems)}; compute both in one precision "
            "(model.init_args.engine.init_args.dtype and model.init_args.parallel.compute_dtype), or use the native engine"
        )

    def _entropy(self, metrics: dict[str, float]) -> str | None:
        value = metrics.get("policy/entropy")
        if value is None:
            return None
        if len(self.first_entropies) < self.patience:
            self.first_entropies.append(value)
        first = math.fsum(self.first_entropies) / len(self.first_entropies)
        bounds = [self.min_entropy, None if self.min_entropy_share is None else self.min_entropy_share * first]
        limit = max((bound for bound in bounds if bound is not None), default=0.0)
        if value >= limit:
            return None
        return (
            f"the policy's entropy is {value:.3g} nats a token, {first:.3g} when the run began: it no longer explores; lower the "
            "learning rate, raise model.init_args.loss.clip_high, or set model.init_args.loss.kl_coefficient"
        )

    def _truncation(self, metrics: dict[str, float], pl_module: pl.LightningModule) -> str | None:
        share, limit = metrics.get("rollout/truncated"), self.max_truncation
        if share is None or limit is None or share <= limit:
            return None
        tokens = pl_module.max_new_tokens if isinstance(pl_module, LimitsAnswers) else None
        return (
            f"{share:.0%} of the answers are cut off{'' if tokens is None else f' at {tokens:,} tokens'} and not trained; raise "
            "model.init_args.max_new_tokens, or fine-tune on shorter answers first"
        )

    def _bad_cases(self, metrics: dict[str, float]) -> str | None:
        loops, malformed = (metrics.get(f"rollout/{kind}", 0.0) for kind in ("loop", "malformed"))
        if self.max_bad_cases is None or loops + malformed <= self.max_bad_cases:
            return None
        return (
            f"{loops:.0%} of the answers say the same again and again, {malformed:.0%} are malformed; look at them "
            "(SampleTable), lower the learning rate, or add nbg_lightning.rewards.BadCaseReward to the reward"
        )

    def _non_finite(self, metrics: dict[str, float], pl_module: pl.LightningModule) -> str | None:
        skipped = _skipped_steps(pl_module)
        more, self._skipped = skipped > self._skipped, skipped
        loss = metrics.get("train/loss", 0.0)
        if not more and math.isfinite(loss):
            return None
        return (
            f"loss ({loss:.3g}) or gradient is not finite, and the step was skipped; lower the learning rate or "
            "model.init_args.max_grad_norm, set parallel.compute_dtype to float32, and look at the data of these steps"
        )

    def _spike(self, metrics: dict[str, float]) -> str | None:
        loss = metrics.get("train/loss")
        if loss is None or self.max_loss_rise is None or not math.isfinite(loss):
            return None
        usual = statistics.median(self.losses) if len(self.losses) >= self.patience else loss
        if loss <= usual + self.max_loss_rise:
            self.losses = [*self.losses, loss][-_USUAL_STEPS:]
            return None
        return (
            f"the loss is {loss:.3g}, and was {usual:.3g} before: it has risen by more than {self.max_loss_rise:g}; look at the "
            "data of these steps, lower the learning rate or model.init_args.max_grad_norm, or set rewind"
        )


def _skipped_steps(pl_module: pl.LightningModule) -> int:
    return pl_module.skipped_steps if isinstance(pl_module, CountsSkippedSteps) else 0
