"""Divergences of a student's next-token distribution from a teacher's.

Shape suffixes: V vocabulary, K ids that the teacher lists, G = K + 1 groups: each listed id, and all others together.
Values are in nats per token, without reduction: the caller sums them and divides by the count of the whole step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

LOG_FLOOR = -100.0
"""Minimum log-probability of a teacher, as in `torch.nn.BCELoss`: an outcome that it rules out (a logit of -inf) costs a student
100 nats times its probability in the reverse KL, not infinitely many, and the loss stays finite."""

DivergenceKind = Literal["forward_kl", "reverse_kl", "jensen_shannon"]


@dataclass(frozen=True)
class Divergence:
    """The kind of divergence of a student p from a teacher q.

    * ``forward_kl``: ``KL(q || p) = sum_v q_v (log q_v - log p_v)``, mode-covering (Hinton et al., arXiv 1503.02531);
    * ``reverse_kl``: ``KL(p || q)``, mode-seeking (MiniLLM, arXiv 2306.08543);
    * ``jensen_shannon``: ``b KL(q || m) + (1 - b) KL(p || m)`` with ``m = b q + (1 - b) p`` and b = ``mixture``
      (GKD, arXiv 2306.13649, equation 1).

    Attributes:
        kind: one of these.
        temperature: both distributions are ``softmax(logits / temperature)``. The result is not multiplied by its square;
            raise the weight of the term instead.
        mixture: b of the Jensen-Shannon mixture.

    Raises:
        ValueError: an unknown kind, or a number out of range.
    """

    kind: DivergenceKind = "forward_kl"
    temperature: float = 1.0
    mixture: float = 0.5

    def __post_init__(self) -> None:
        if self.kind not in get_args(DivergenceKind):
            raise ValueError(f"divergence is invalid: {self.kind}; there are {', '.join(get_args(DivergenceKind))}")
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise ValueError(f"temperature of the divergence is invalid: {self.temperature}; give a number above 0")
        if not 0 < self.mixture < 1:
            raise ValueError(f"mixture of Jensen-Shannon is invalid: {self.mixture}; give a number from 0 to 1")


def divergence(log_p: Tensor, log_q: Tensor, kind: DivergenceKind, mixture: float = 0.5) -> Tensor:
    """Divergence of each token, from the log-probabilities of both sides over the same outcomes.

    An outcome with teacher probability 0 (``log_q = -inf``) adds nothing to the forward KL; see `LOG_FLOOR` for the others.

    Args:
        log_p: log-probabilities of the student ``[..., V]``; differentiable.
        log_q: log-probabilities of the teacher ``[..., V]``.
        kind: see `Divergence`.
        mixture: b of Jensen-Shannon.

    Returns:
        ``[...]``.

    Example:
        >>> p, q = torch.tensor([0.5, 0.5]).log(), torch.tensor([1.0, 0.0]).log()
        >>> round(divergence(p, q, "forward_kl").item(), 4)  # log 2
        0.6931
    """
    log_q = log_q.clamp(min=LOG_FLOOR)
    if kind == "forward_kl":
        return _expected(log_q, log_q, log_p)
    if kind == "reverse_kl":
        return _expected(log_p, log_p, log_q)
    log_m = torch.logaddexp(log_q + math.log(mixture), log_p + math.log1p(-mixture))
    return mixture * _expected(log_q, log_q, log_m) + (1 - mixture) * _expected(log_p, log_p, log_m)


def _expected(log_weights: Tensor, log_a: Tensor, log_b: Tensor) -> Tensor:
    """``sum_v w_v (log a_v - log b_v)``, where an outcome of weight 0 adds 0 to the sum and to every gradient."""
    possible = log_weights > -math.inf
    difference = torch.where(possible, log_a, 0.0) - torch.where(possible, log_b, 0.0)
    return (torch.where(possible, log_weights, -math.inf).exp() * difference).sum(dim=-1)


def group_targets(log_probs_TK: Tensor, tail_T: Tensor) -> Tensor:
    """The teacher's log-probabilities of the groups, ``[..., G]``, normalized to sum to one.

    Stored in half precision in a cache, they do not sum to one exactly.
    """
    log_q = torch.cat((log_probs_TK, tail_T[..., None]), dim=-1)
    return log_q - log_q.logsumexp(dim=-1, keepdim=True)


def top_k_divergence(
    log_p_TV: Tensor,
    ids_TK: Tensor,
    log_probs_TK: Tensor,
    tail_T: Tensor,
    kind: DivergenceKind,
    mixture: float = 0.5,
) -> Tensor:
    """Divergence over groups: each id that the teacher lists, and all other ids together.

    Grouping outcomes never raises a divergence: this is a lower bound of the divergence over the whole vocabulary, and
    equal to it if the student distributes the tail like the teacher.

    Args:
        log_p_TV: log-probabilities of the student over the vocabulary.
        ids_TK: ids that the teacher lists, different ones for each token.
        log_probs_TK: its log-probabilities of these.
        tail_T: log of its probability of all others.
        kind: see `Divergence`.
        mixture: b of Jensen-Shannon.
    """
    listed = log_p_TV.gather(-1, ids_TK)
    others = log_p_TV.scatter(-1, ids_TK, -math.inf).logsumexp(dim=-1, keepdim=True)
    return divergence(torch.cat((listed, others), dim=-1), group_targets(log_probs_TK, tail_T), kind, mixture)
