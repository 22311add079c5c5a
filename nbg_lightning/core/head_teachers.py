"""Teachers for the head: their outputs, and the divergence from them for one chunk of logits.

Shape suffixes as in `head_distillation`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from nbg_lightning.core.head import Normalizer, statistics_dtype
from nbg_lightning.core.products import multiply_into
from nbg_lightning.losses.distillation import LOG_FLOOR, Divergence, divergence, group_targets


class TopK(NamedTuple):
    """A teacher's most likely ids ``[T, K]`` (distinct), their log-probabilities, and the log of the remaining mass ``[T]``."""

    ids: Tensor
    log_probs: Tensor
    tail: Tensor


class LiveTargets(NamedTuple):
    """A teacher's final hidden states ``[T, E]`` and head weight ``[U, E]``: its logits are computed chunk by chunk."""

    hidden: Tensor
    weight: Tensor


def compared(
    teacher: TopK | LiveTargets | None, measure: Divergence, vocab_size: int, hidden_TD: Tensor
) -> TeacherComparison | None:
    """Create the comparison for this kind of teacher; None without a teacher."""
    if teacher is None:
        return None
    if isinstance(teacher, TopK):
        return ListedComparison(teacher, measure, statistics_dtype(hidden_TD))
    return LiveComparison(teacher, measure, min(vocab_size, len(teacher.weight)), vocab_size)


def _apart(
    z_TV: Tensor,
    shared: int,
    temperature: float,
    normalizer: Normalizer,
    pull_T1: Tensor,
    compare: Callable[..., Tensor],
) -> Tensor:
    """Compare with a separate softmax: at another temperature, or over the first ``shared`` ids only."""
    other = z_TV[:, :shared] / temperature
    values = compare(other, Normalizer.of(other), torch.zeros_like(pull_T1))
    normalizer.apply_(z_TV).exp_().mul_(-pull_T1)
    z_TV[:, :shared].add_(other, alpha=1 / temperature)
    return values


class ListedComparison:
    """Comparison with a teacher's listed ids: a few ids and the mass of all others.

    A divergence D of groups g has ``dD/dz_v = d_g p_v / p_g - p_v sum_g d_g`` with ``d_g = dD / d log p_g``: for all unlisted ids
    this is a common factor times p_v.
    """

    def __init__(self, targets: TopK, measure: Divergence, dtype: torch.dtype):
        self.ids = targets.ids.long()
        self.log_q = group_targets(targets.log_probs.to(dtype), targets.tail.to(dtype))
        self.measure = measure

    def begin(self, tokens: slice) -> None:
        """Do nothing: no chunk-wide values are needed."""

    def close(self) -> None:
        """Do nothing: there is no buffer."""

    def __call__(
        self, z_TV: Tensor, block: slice, rows: slice, normalizer: Normalizer, pull_T1: Tensor, weights_T1: Tensor
    ) -> Tensor:
        def compare(z: Tensor, normalizer: Normalizer, pull: Tensor) -> Tensor:
            return self._compare(z, rows, normalizer, pull, weights_T1)

        if self.measure.temperature == 1:
            return compare(z_TV, normalizer, pull_T1)
        return _apart(z_TV, z_TV.shape[1], self.measure.temperature, normalizer, pull_T1, compare)

    def _compare(
        self, z_TV: Tensor, rows: slice, normalizer: Normalizer, pull_T1: Tensor, weights_T1: Tensor
    ) -> Tensor:
        ids, log_q = self.ids[rows], self.log_q[rows]
        log_p_listed = normalizer.apply_(z_TV.gather(-1, ids))
        # In place: probabilities, with those of the listed ids set to 0, so that the rest is summed directly.
        p = normalizer.apply_(z_TV).exp_().scatter_(-1, ids, 0.0)
        tail = p.sum(dim=-1, keepdim=True).clamp_(min=torch.finfo(p.dtype).tiny)
        whole = ids.shape[1] == p.shape[1]  # all ids are listed: there is no rest
        groups = log_p_listed if whole else torch.cat((log_p_listed, tail.log()), dim=-1)
        with torch.enable_grad():
            groups = groups.detach().requires_grad_()
            values = divergence(groups, log_q[:, :-1] if whole else log_q, self.measure.kind, self.measure.mixture)
            (d,) = torch.autograd.grad(values.sum(), groups)
        d.mul_(weights_T1)
        total = d.sum(dim=-1, keepdim=True).add_(pull_T1)
        p.mul_((0.0 if whole else d[:, -1:] / tail) - total)
        listed = d[:, : ids.shape[1]] - log_p_listed.exp() * total
        p.scatter_(-1, ids, listed)
        return values.detach()


class LiveComparison:
    """Comparison with a teacher's full distribution, from its hidden states and head."""

    def __init__(self, teacher: LiveTargets, measure: Divergence, shared: int, vocab_size: int):
        self.hidden, self.weight = teacher.hidden, teacher.weight[:shared]
        self.measure, self.shared = measure, shared
        self.apart = measure.temperature != 1 or shared != vocab_size
        self.buffer: Tensor | None = None

    def begin(self, tokens: slice) -> None:
        """Compute the teacher's logits of a chunk."""
        length = tokens.stop - tokens.start
        if self.buffer is None or len(self.buffer) < length:
            self.buffer = None  # free it before allocating a larger one
            self.buffer = self.hidden.new_empty(length, len(self.weight))
        multiply_into(self.buffer[:length], self.hidden[tokens], self.weight.t())

    def close(self) -> None:
        """Free the buffer."""
        self.buffer = None

    def __call__(
        self, z_TV: Tensor, block: slice, rows: slice, normalizer: Normalizer, pull_T1: Tensor, weights_T1: Tensor
    ) -> Tensor:
        assert self.buffer is not None
        log_q = self.buffer[block].to(z_TV.dtype).div_(self.measure.temperature)
        Normalizer.of(log_q).apply_(log_q).clamp_(min=LOG_FLOOR)

        def compare(z: Tensor, normalizer: Normalizer, pull: Tensor) -> Tensor:
            return self._compare(z, log_q, normalizer, pull, weights_T1)

        if self.apart:
            return _apart(z_TV, self.shared, self.measure.temperature, normalizer, pull_T1, compare)
        return compare(z_TV, normalizer, pull_T1)

    def _compare(
        self, z_TV: Tensor, log_q_TV: Tensor, normalizer: Normalizer, pull_T1: Tensor, weights_T1: Tensor
    ) -> Tensor:
        """Values; writes ``w p_v (r_v - sum_v p_v r_v) - pull p_v`` with ``r_v = dD/dp_v`` into z. Overwrites log_q."""
        log_p, log_q = normalizer.apply_(z_TV), log_q_TV
        if self.measure.kind == "forward_kl":  # p r = -q
            q = log_q.exp()
            values = log_q.sub_(log_p).mul_(q).sum(dim=-1)
            log_p.exp_().mul_(weights_T1 - pull_T1).sub_(q.mul_(weights_T1))
            return values
        if self.measure.kind == "reverse_kl":
            r = log_q.neg_().add_(log_p)
            p = log_p.exp_()
            values = mean = (p * r).sum(dim=-1)
        else:
            share = self.measure.mixture
            log_m = torch.logaddexp(log_q + math.log(share), log_p + math.log1p(-share))
            from_teacher = log_q.exp().mul_(log_q.sub_(log_m)).sum(dim=-1)
            r = torch.sub(log_p, log_m, out=log_m).mul_(1 - share)
            p = log_p.exp_()
            mean = (p * r).sum(dim=-1)
            values = share * from_teacher + mean
        p.mul_(r.sub_(mean[:, None]).mul_(weights_T1).sub_(pull_T1))
        return values


TeacherComparison = ListedComparison | LiveComparison
"""A comparison, depending on the kind of teacher."""
