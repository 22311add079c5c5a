"""Policy-gradient losses for groups of answers, GRPO and its variants, as functions of log-probabilities.

Everything is per completion token, flattened over answers. Functions return token losses and token weights, never means:
the module divides ``sum_t w_t l_t`` by a denominator of the **whole step on all ranks** (`denominator`), so that the
gradient does not depend on micro-batches, ranks or packing.

Shape suffixes: T completion tokens, S answers (sequences), G groups, N answers of a group.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

LossName = Literal["grpo", "dr_grpo", "dapo", "gspo", "cispo"]
Aggregation = Literal["sequence_mean", "token_mean", "constant_length"]
"""How token losses are aggregated: with equal weight per answer, equal weight per token, or over a constant length."""
Ratio = Literal["token", "sequence", "weight"]
"""Kind of importance ratio: per token, per sequence, or per token as a weight without gradient."""
EngineCorrection = Literal["truncate", "mask", "none"]
KLValue = Literal["k1", "k2", "k3"]
KLGradient = Literal["k2", "k3"]

LOG_RATIO_LIMIT = 20.0
"""Log-ratios are exponentiated within this of 0, as veRL and torchtitan do: e^20 is beyond any clip range, and e^89, which is
infinite in float32, times an advantage of 0 would be NaN."""

# Scores of a group that differ by no more are one score: what is left is rounding, and dividing by it would be noise.
_EQUAL_SCORES = 1e-6


# -- advantages --------------------------------------------------------------------------------------------------------


class Advantages(NamedTuple):
    """Advantages ``[G, N]`` (0 if there is none), and flags of informative groups ``[G]``."""

    values: Tensor
    informative: Tensor


def group_advantages(scores_GN: Tensor, valid_GN: Tensor, scale: bool = True, constant: float = 1e-4) -> Advantages:
    """Advantage of an answer over its group: ``A = (R - mean R) / (std R + constant)``.

    Mean and standard deviation (with n - 1, as in other libraries) run over the valid answers of the group. A group with
    fewer than two valid answers, or with equal scores, is uninformative: its advantages are exactly 0, and it is marked as
    such.

    Args:
        scores_GN: score of each answer; values at invalid places are ignored, even NaN.
        valid_GN: which answers have a score.
        scale: divide by the standard deviation (GRPO, arXiv 2402.03300); Dr. GRPO (arXiv 2503.20783) does not, since this
            weights easy and hard questions more than others.
        constant: added to the standard deviation.

    Example:
        >>> advantages = group_advantages(torch.tensor([[1.0, 0.0], [1.0, 1.0]]), torch.ones(2, 2, dtype=bool), scale=False)
        >>> advantages.values.tolist(), advantages.informative.tolist()
        ([[0.5, -0.5], [0.0, 0.0]], [True, False])
    """
    scores = torch.where(valid_GN, scores_GN, 0.0)
    count_G1 = valid_GN.sum(dim=1, keepdim=True)
    mean_G1 = scores.sum(dim=1, keepdim=True) / count_G1.clamp(min=1)
    centred = torch.where(valid_GN, scores - mean_G1, 0.0)
    informative_G = (count_G1.squeeze(1) > 1) & (centred.abs().amax(dim=1) > _EQUAL_SCORES)
    if scale:
        variance_G1 = centred.square().sum(dim=1, keepdim=True) / (count_G1 - 1).clamp(min=1)
        centred = centred / (variance_G1.sqrt() + constant)
    return Advantages(torch.where(informative_G[:, None], centred, 0.0), informative_G)


# -- what is maximised -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Objective:
    """Complete definition of a policy loss.

    Attributes:
        ratio: see `Ratio`.
        aggregation: see `Aggregation`.
        scale_advantages: see `group_advantages`.
        clip_low: ratios below ``1 - clip_low`` are clipped.
        clip_high: ratios above ``1 + clip_high`` are clipped.

    Raises:
        ValueError: an invalid clip range.
    """

    ratio: Ratio
    aggregation: Aggregation
    scale_advantages: bool
    clip_low: float
    clip_high: float

    def __post_init__(self) -> None:
        if not (0 <= self.clip_low <= 1 and self.clip_high >= 0):
            raise ValueError(
                f"clip_low and clip_high are invalid: {self.clip_low}, {self.clip_high}; give 0 to 1, and at least 0: "
                "ratios are kept in "
                "[1 - clip_low, 1 + clip_high]"
            )


OBJECTIVES: dict[LossName, Objective] = {
    # DeepSeekMath, arXiv 2402.03300, eq. 3, with PPO's usual range.
    "grpo": Objective("token", "sequence_mean", True, 0.2, 0.2),
    # "Understanding R1-Zero-like training", arXiv 2503.20783: neither length nor difficulty changes an answer's weight.
    "dr_grpo": Objective("token", "constant_length", False, 0.2, 0.2),
    # DAPO, arXiv 2503.14476: every token alike, and more room upwards ("clip higher").
    "dapo": Objective("token", "token_mean", True, 0.2, 0.28),
    # GSPO, arXiv 2507.18071, section 5.1.
    "gspo": Objective("sequence", "sequence_mean", True, 3e-4, 4e-4),
    # CISPO (MiniMax-M1, arXiv 2506.13585) has no lower bound and does not give the upper one; 5 is ScaleRL's (2510.13786).
    "cispo": Objective("weight", "token_mean", True, 1.0, 4.0),
}


def objective(name: LossName, clip_low: float | None = None, clip_high: float | None = None) -> Objective:
    """A loss by name, with its default clip range or the given one.

    Raises:
        ValueError: an unknown loss, or an invalid clip range.
    """
    if name not in get_args(LossName):
        raise ValueError(f"loss is invalid: {name!r}; choose one of {', '.join(get_args(LossName))}")
    own = OBJECTIVES[name]
    return dataclasses.replace(
        own,
        clip_low=own.clip_low if clip_low is None else clip_low,
        clip_high=own.clip_high if clip_high is None else clip_high,
    )


class PolicyLoss(NamedTuple):
    """Loss of every token (differentiable), its ratio, and whether its gradient is clipped away (or bounded, CISPO)."""

    token_losses: Tensor
    ratios: Tensor
    clipped: Tensor


def log_ratio(log_probs: Tensor, other_log_probs: Tensor) -> Tensor:
    """``log p - log q`` of tokens, finite wherever neither is NaN.

    An infinite difference is ``LOG_RATIO_LIMIT`` of its sign, and that of two equal infinities is 0; both are constants,
    without gradient. NaN stays NaN.

    Example:
        >>> minus = -float("inf")
        >>> log_ratio(torch.tensor([-1.0, minus, -1.0, minus]), torch.tensor([-3.0, -3.0, minus, minus])).tolist()
        [2.0, -20.0, 20.0, 0.0]
    """
    difference = log_probs - other_log_probs
    infinite = (log_probs.isinf() | other_log_probs.isinf()) & ~(log_probs.isnan() | other_log_probs.isnan())
    limited = difference.detach().nan_to_num(nan=0.0, posinf=LOG_RATIO_LIMIT, neginf=-LOG_RATIO_LIMIT)
    return torch.where(infinite, limited, difference)


def policy_loss(
    log_probs_T: Tensor,
    old_log_probs_T: Tensor,
    advantages_T: Tensor,
    sequence_T: Tensor,
    lengths_S: Tensor,
    what: Objective,
    add_up: Callable[[Tensor], Tensor] | None = None,
) -> PolicyLoss:
    """Loss of every token.

    With ``r_t = exp(log p_t - log p_t,old)`` and ``clip(r) = min(max(r, 1 - clip_low), 1 + clip_high)``:

    * ``token``: ``l_t = -min(r_t A, clip(r_t) A)`` (GRPO, Dr. GRPO, DAPO).
    * ``sequence``: the same with the answer's ``s = exp(mean_t (log p_t - log p_t,old))`` in place of ``r_t`` (GSPO); each
      token of an answer has the answer's loss.
    * ``weight``: ``l_t = -sg[clip(r_t)] A log p_t`` (CISPO): no token loses its gradient.

    Log-ratios are kept within ``LOG_RATIO_LIMIT`` of 0, and have no gradient beyond; see `log_ratio` for infinite
    log-probs. In ``weight`` an infinite log p is replaced by ``log p_old`` plus the clamped log-ratio, as a constant. So
    every token with finite or infinite log-probs has a finite loss, unless all of log p and log p_old are infinite alike
    and A is not 0 in ``weight``; with ``A = 0`` loss and gradient are exactly 0. A NaN among log-probs or advantages is a
    loss of NaN, with ``A = 0`` too: it is never hidden.

    Strictly on policy (``old_log_probs = log_probs.detach()``) the gradient of all of them is ``-A grad log p_t``, of
    ``sequence`` with its mean over the answer.

    Args:
        log_probs_T: log-probs under the current policy, at the rollouts' temperature.
        old_log_probs_T: log-probs under the policy at the start of the step; no gradient flows here.
        advantages_T: advantage of each token's answer.
        sequence_T: index of each token's answer in S. GSPO's ratio needs all tokens of an answer, here or by ``add_up``.
        lengths_S: tokens of each answer.
        what: definition of the loss.
        add_up: adds up sums of each answer ``[S]`` over the ranks that have its tokens, differentiable; None where all are here.
    """
    old_log_probs_T = old_log_probs_T.detach()
    log_ratios = token_log_ratios = log_ratio(log_probs_T, old_log_probs_T).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    if what.ratio == "sequence":
        sums_S = torch.zeros(len(lengths_S), dtype=log_ratios.dtype, device=log_ratios.device)
        sums_S = sums_S.index_add(0, sequence_T, log_ratios)
        log_ratios = ((sums_S if add_up is None else add_up(sums_S)) / lengths_S)[sequence_T]
    ratios = log_ratios.exp()
    low, high = 1.0 - what.clip_low, 1.0 + what.clip_high
    bounded = ratios.clamp(low, high)
    if what.ratio == "weight":
        kept_T = torch.where(log_probs_T.isinf(), (old_log_probs_T + token_log_ratios).detach(), log_probs_T)
        # 0 times an infinite value would be NaN; a NaN stays one.
        kept_T = torch.where((advantages_T == 0) & kept_T.isinf(), 0.0, kept_T)
        losses = -bounded.detach() * advantages_T * kept_T
        clipped = (ratios < low) | (ratios > high)
    else:
        losses = -torch.minimum(ratios * advantages_T, bounded * advantages_T)
        clipped = ((ratios < low) & (advantages_T < 0)) | ((ratios > high) & (advantages_T > 0))
    return PolicyLoss(losses, ratios.detach(), clipped.detach())


def engine_weights(
    log_probs_T: Tensor, engine_log_probs_T: Tensor, correction: EngineCorrection, cap: float = 2.0
) -> Tensor:
    """Factor of a token's loss that corrects for numerical differences between the engine that sampled it and the trainer.

    With ``w = p_trainer / p_engine``, both with the weights that sampled the token: ``truncate`` gives ``min(w, cap)``
    (truncated importance sampling: Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy RL
    training"), ``mask`` gives w inside ``[1 / cap, cap]`` and 0 outside, ``none`` gives 1. No gradient flows here. Values
    are at most ``cap``, so no token can dominate a step. A log-prob of NaN gives a weight of NaN, in ``mask`` too: it is an
    engine failure, not a reason to exclude the token.

    Args:
        log_probs_T: the trainer's log-probs, before the first update of the step.
        engine_log_probs_T: log-probs returned by the engine.
        correction: see above.
        cap: at least 1.

    Raises:
        ValueError: an unknown correction, or a cap below 1.
    """
    if correction not in get_args(EngineCorrection):
        raise ValueError(
            f"engine_correction is invalid: {correction!r}; choose one of {', '.join(get_args(EngineCorrection))}"
        )
    if not cap >= 1:
        raise ValueError(f"correction_cap is invalid: {cap}; give at least 1")
    if correction == "none":
        return torch.ones_like(log_probs_T).detach()
    weights = log_ratio(log_probs_T.detach(), engine_log_probs_T).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp()
    if correction == "truncate":
        return weights.clamp(max=cap)
    return torch.where((weights < 1.0 / cap) | (weights > cap), 0.0, weights)


# -- aggregation of token losses ---------------------------------------------------------------------------------------


def token_weights(sequence_T: Tensor, lengths_S: Tensor, aggregation: Aggregation, max_length: int) -> Tensor:
    """Weight of each token in the sum that `denominator` divides.

    ``1 / length`` of its answer (``sequence_mean``), 1 (``token_mean``), or ``1 / max_length`` (``constant_length``).
    """
    if aggregation == "sequence_mean":
        return 1.0 / lengths_S.double()[sequence_T]
    value = 1.0 if aggregation == "token_mean" else 1.0 / max_length
    return torch.full(sequence_T.shape, value, dtype=torch.float64, device=sequence_T.device)


def denominator(num_sequences: float, num_tokens: float, aggregation: Aggregation) -> float:
    """The denominator of the weighted sum: trained tokens for ``token_mean``, otherwise trained answers, over the whole
    step.
    """
    return num_tokens if aggregation == "token_mean" else num_sequences


# -- Kullback-Leibler divergence from a reference ----------------------------------------------------------------------


def kl_value(log_probs: Tensor, reference_log_probs: Tensor, estimator: KLValue) -> Tensor:
    """Estimate of ``KL(policy || reference)`` from tokens sampled by the policy, per token (Schulman 2020).

    With ``d = log p - log p_reference``: ``k1 = d`` (no bias, may be negative), ``k2 = d^2 / 2`` (biased, low variance),
    ``k3 = exp(-d) - 1 + d`` (no bias, never negative). In k3 d is at least ``-LOG_RATIO_LIMIT``; see `log_ratio` for infinite
    log-probs.

    For reporting only: as a loss, the gradient of each estimator differs from what its value suggests, see `kl_penalty`.

    Raises:
        ValueError: an unknown estimator.
    """
    difference = log_ratio(log_probs, reference_log_probs)
    if estimator == "k1":
        return difference
    if estimator == "k2":
        return difference.square() / 2
    if estimator == "k3":
        difference = difference.clamp(min=-LOG_RATIO_LIMIT)
        return torch.expm1(-difference) + difference
    raise ValueError(f"KL estimator is invalid: {estimator!r}; choose one of {', '.join(get_args(KLValue))}")


def kl_penalty(
    log_probs: Tensor,
    reference_log_probs: Tensor,
    value: KLValue = "k3",
    gradient: KLGradient = "k2",
    ratios: Tensor | None = None,
) -> Tensor:
    """KL penalty per token, with the value of one estimator and the gradient of another.

    In expectation over tokens of the policy, the gradient of

    * ``k2`` is that of ``KL(policy || reference)``: ``E[d grad log p]``;
    * ``k3`` is that of ``KL(reference || policy)``: ``E[(1 - exp(-d)) grad log p]``. It is the choice of GRPO's paper, and
      is close to the former only while both policies are close;
    * ``k1`` is 0, ``E[grad log p]``: pure noise. It cannot be chosen.

    Args:
        log_probs: log-probs under the current policy.
        reference_log_probs: log-probs under the reference.
        value: estimator of the reported value.
        gradient: estimator whose gradient is taken.
        ratios: importance ratios, if the tokens were sampled by an older policy; without gradient.

    Raises:
        ValueError: an unknown estimator, or one whose gradient is zero.
    """
    if gradient not in get_args(KLGradient):
        raise ValueError(
            f"kl_gradient is invalid: {gradient}; give k2 (gradient of KL(policy || reference)) or k3 (of the "
            "reverse); that of k1 is 0 on average"
        )
    reference_log_probs = reference_log_probs.detach()
    number = kl_value(log_probs, reference_log_probs, value).detach()
    slope = kl_value(log_probs, reference_log_probs, gradient)
    term = number + (slope - slope.detach())
    return term if ratios is None else term * ratios.detach()
