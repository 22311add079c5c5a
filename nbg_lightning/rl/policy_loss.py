"""The policy loss on sampled answers: its settings, and its terms for a micro-batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, Literal, NamedTuple, TypeVar, cast

import torch
from torch import Tensor

from nbg_lightning import log
from nbg_lightning.core.head import TokenStatistics, linear_token_statistics
from nbg_lightning.core.sharding import reshard
from nbg_lightning.engines.capabilities import Probe
from nbg_lightning.losses.policy_gradient import (
    EngineCorrection,
    KLGradient,
    KLValue,
    LossName,
    Objective,
    engine_weights,
    kl_penalty,
    objective,
    policy_loss,
    token_weights,
)
from nbg_lightning.rl.rollout_batch import RolloutBatch

Settings = TypeVar("Settings", bound=Mapping[str, Any])


@dataclass(frozen=True)
class PolicyLossConfig:
    """Settings of the policy loss on sampled answers.

    Attributes:
        name: ``grpo``, ``dr_grpo``, ``dapo``, ``gspo`` or ``cispo`` (see `losses.policy_gradient`).
        clip_low: clip range of the ratio below 1; defaults to that of the loss.
        clip_high: clip range of the ratio above 1; defaults to that of the loss.
        engine_correction: correction for differences between the probabilities of engine and trainer (see
            `engine_weights`).
        correction_cap: its upper bound.
        mask_truncated: exclude answers truncated by ``max_new_tokens`` from the loss. They still count in their group's
            mean.
        zero_variance: handling of groups whose scores are all equal, which have advantages of 0. ``keep`` computes them and
            counts them in the denominator; ``drop`` excludes them from both.
        kl_coefficient: weight of the KL divergence from the reference; 0 needs no reference.
        kl_value: estimator of the reported value.
        kl_gradient: estimator of the gradient (see `kl_penalty`).
        reference: weights of the reference; the module's ``base_weights`` by default.

    Raises:
        ValueError: an invalid setting.
    """

    name: LossName
    clip_low: float | None = None
    clip_high: float | None = None
    engine_correction: EngineCorrection = "truncate"
    correction_cap: float = 2.0
    mask_truncated: bool = True
    zero_variance: Literal["keep", "drop"] = "keep"
    kl_coefficient: float = 0.0
    kl_value: KLValue = "k3"
    kl_gradient: KLGradient = "k2"
    reference: str | None = None

    def __post_init__(self) -> None:
        objective(self.name, self.clip_low, self.clip_high)  # raises for invalid values,
        one = torch.zeros(1)
        engine_weights(one, one, self.engine_correction, self.correction_cap)  # and so does this,
        kl_penalty(one, one, self.kl_value, self.kl_gradient)  # and this
        if self.zero_variance not in ("keep", "drop"):
            raise ValueError(f"zero_variance is invalid: {self.zero_variance!r}; choose keep or drop")
        if not self.kl_coefficient >= 0:
            raise ValueError(
                f"kl_coefficient is invalid: {self.kl_coefficient}; give at least 0: below, it would drive the policy away"
            )
        if self.reference is not None and not self.kl_coefficient:
            raise ValueError(
                "reference is invalid: it has no effect without kl_coefficient; set that, or remove reference"
            )

    @property
    def objective(self) -> Objective:
        """The loss as an `Objective`."""
        return objective(self.name, self.clip_low, self.clip_high)

    @property
    def left_out(self) -> tuple[bool, bool]:
        """Whether truncated answers are excluded, and whether groups with equal scores are."""
        return self.mask_truncated, self.zero_variance == "drop"

    @property
    def coefficients(self) -> dict[str, float]:
        """Factor of each term of the loss by name; ``kl`` is present only if its coefficient is not 0."""
        return {"policy": 1.0, "kl": self.kl_coefficient} if self.kl_coefficient else {"policy": 1.0}

    def reference_weights(self, base_weights: str | None) -> str | None:
        """The reference weights of the KL penalty; None without a penalty.

        Args:
            base_weights: initial weights of the policy, which are the reference unless another is set.

        Raises:
            ValueError: there are none.
        """
        if not self.kl_coefficient:
            return None
        if self.reference is None and base_weights is None:
            raise ValueError(
                f"kl_coefficient is invalid: {self.kl_coefficient}; it needs the weights of a reference: give "
                "loss.reference, or base_weights"
            )
        return self.reference or base_weights


DEFAULT_LOSS: LossName = "grpo"
MOVED_SETTINGS = tuple(field.name for field in fields(PolicyLossConfig) if field.name != "name")
"""Settings of the loss that stood beside it in earlier versions; where they still do, they are read as the loss's."""


def with_moved_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of `GRPOModule` with those of the loss moved into ``loss``, wherever they were given.

    >>> with_moved_settings({"group_size": 8, "loss": "dapo", "clip_high": 0.3})
    {'group_size': 8, 'loss': {'name': 'dapo', 'clip_high': 0.3}}
    """
    moved = {name: settings[name] for name in MOVED_SETTINGS if name in settings}
    kept = {name: value for name, value in settings.items() if name not in moved}
    if not moved:
        return kept
    loss = kept.get("loss")
    if isinstance(loss, PolicyLossConfig):
        raise ValueError(f"{next(iter(moved))} is given beside a PolicyLossConfig; put it in there")
    own = {"name": loss} if isinstance(loss, str) else dict(loss or {})
    if twice := sorted(own.keys() & moved.keys()):
        raise ValueError(f"{twice[0]} is given twice, in loss and beside it; remove the one that is beside it")
    log.info(f"{', '.join(moved)}: read as part of loss, where such settings stand; write loss: {{name: NAME, ...}}")
    return {**kept, "loss": {**own, **moved}}


def loss_apart(loss: LossName | PolicyLossConfig, others: Settings) -> tuple[PolicyLossConfig, Settings]:
    """The loss with all its settings, and the remaining settings: see `with_moved_settings`."""
    settings = with_moved_settings({**others, "loss": loss})
    own = settings.pop("loss")
    if not isinstance(own, PolicyLossConfig):
        own = PolicyLossConfig(**({"name": own} if isinstance(own, str) else own))
    return own, cast(Settings, settings)


# -- of a micro-batch --------------------------------------------------------------------------------------------------


def completion_statistics(
    hidden_BLD: Tensor, weight_VD: Tensor, predicting_T: Tensor, targets_T: Tensor, temperature: float
) -> TokenStatistics:
    """Log-probs and entropies at the positions that predict a completion token; logits are computed for these only.

    Args:
        hidden_BLD: final hidden states.
        weight_VD: weight of the head.
        predicting_T: positions in the flattened batch.
        targets_T: tokens that they predict.
        temperature: temperature of the rollouts.
    """
    if not len(predicting_T):  # the head must still take part: other ranks have answers in this micro-batch
        predicting_T, targets_T = predicting_T.new_zeros(1), targets_T.new_zeros(1)
    hidden = hidden_BLD.flatten(0, 1).index_select(0, predicting_T)
    found = linear_token_statistics(hidden, weight_VD, targets_T, temperature)
    return TokenStatistics(found.log_probs.clone(), found.entropies.clone())  # FSDP warns of outputs that are views


def rollout_statistics(model: Any, batch: RolloutBatch, temperature: float) -> TokenStatistics:
    """Log-probs and entropies of the completion tokens of a micro-batch; if there are none, of one placeholder token."""
    head = partial(
        completion_statistics, predicting_T=batch.predicting, targets_T=batch.targets, temperature=temperature
    )
    return model(*batch.input, head)


def probe_of(model: Any, ids: tuple[int, ...], device: torch.device) -> Probe:
    """Compute the trainer's log-probs of a text at temperature 1, for comparison with an engine."""
    tokens = torch.tensor(ids, device=device)
    places = torch.arange(len(ids) - 1, device=device)
    head = partial(completion_statistics, predicting_T=places, targets_T=tokens[1:], temperature=1.0)
    with torch.no_grad():
        log_probs = model(tokens[None], head=head).log_probs
    reshard(model)
    return Probe(ids, tuple(log_probs.tolist()))


class PolicyTerms(NamedTuple):
    """The loss of a micro-batch and its parts.

    Attributes:
        sums: sum of each term (``policy``, and ``kl`` with a reference), differentiable.
        correction: weight of each token for the mismatch of engine and trainer ``[T]``.
        clipped: whether the gradient of a token is clipped away ``[T]``.
    """

    sums: dict[str, Tensor]
    correction: Tensor
    clipped: Tensor


def policy_terms(
    log_probs_T: Tensor, batch: RolloutBatch, config: PolicyLossConfig, max_new_tokens: int
) -> PolicyTerms:
    """The sum of each term over the answers of a micro-batch, to be divided by `denominator`.

    Args:
        log_probs_T: log-probs under the current policy. If the batch has no ``old_log_probs``, this is the first update on
            its answers, and they also serve as the old log-probs.
        batch: with ``reference_log_probs``, if there is a KL coefficient. Without answers, or without tokens on this rank,
            each sum and its gradient are 0.
        config: the loss.
        max_new_tokens: the constant length of `token_weights`.
    """
    if not batch.num_answers:
        nothing = log_probs_T.sum() * 0.0
        return PolicyTerms(dict.fromkeys(config.coefficients, nothing), log_probs_T[:0].detach(), batch.targets > 0)
    what, log_probs_T = config.objective, log_probs_T[: batch.num_trained]
    old_log_probs_T = log_probs_T.detach() if batch.old_log_probs is None else batch.old_log_probs
    correction = engine_weights(
        old_log_probs_T, batch.engine_log_probs, config.engine_correction, config.correction_cap
    )
    add_up = None if batch.context is None else batch.context.sum
    loss = policy_loss(log_probs_T, old_log_probs_T, batch.advantages_T, batch.sequence, batch.lengths, what, add_up)
    weights = token_weights(batch.sequence, batch.lengths, what.aggregation, max_new_tokens)
    sums = {"policy": (loss.token_losses.double() * correction * weights).sum()}
    if config.kl_coefficient:
        if batch.reference_log_probs is None:
            raise ValueError("the batch has no reference_log_probs, which the KL term needs; add them first")
        ratios = loss.ratios * correction
        penalty = kl_penalty(log_probs_T, batch.reference_log_probs, config.kl_value, config.kl_gradient, ratios)
        sums["kl"] = (penalty.double() * weights).sum()
    return PolicyTerms(sums, correction, loss.clipped)
