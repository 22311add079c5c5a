"""The head with a teacher and over pairs of answers, without full logits: everything is computed chunk by chunk.

Shape suffixes: T tokens, V vocabulary, D hidden size (of the student); U and E those of a teacher; K ids listed by a
teacher; S sequences, of which 2i and 2i + 1 are the chosen and the rejected one of pair i.

The gradient of a pair's loss is that of its two log-probabilities times a coefficient that depends on both. Chunks therefore
contain whole pairs, and only the logits of a pair longer than a chunk are computed twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nbg_lightning.core.head import (
    Normalizer,
    WeightGradient,
    device_type_of,
    logit_chunks,
    parts_to_run,
    statistics_dtype,
    tokens_per_chunk,
)
from nbg_lightning.core.head_teachers import LiveTargets, TeacherComparison, TopK, compared
from nbg_lightning.core.products import multiply_into
from nbg_lightning.losses.distillation import Divergence

# Elements of a chunk that are in float32 at once: on a CPU they fit in the cache.
_ELEMENTS_PER_BLOCK = {"cpu": 2**21, "cuda": 2**26}


def _rows_at_once(logits_TV: Tensor) -> Iterator[slice]:
    elements = _ELEMENTS_PER_BLOCK.get(device_type_of(logits_TV), 2**21)
    rows = max(1, elements // logits_TV.shape[1])
    for begin in parts_to_run(range(0, len(logits_TV), rows)):
        yield slice(begin, min(begin + rows, len(logits_TV)))


@torch.no_grad()
def linear_top_k(
    hidden_TD: Tensor, weight_VD: Tensor, k: int, temperature: float = 1.0, chunk_tokens: int | None = None
) -> TopK:
    """The k most likely ids of ``softmax(hidden @ weight.T / temperature)``, most likely first.

    Args:
        hidden_TD: final hidden states, ``[T, D]``.
        weight_VD: the head's weight.
        k: number of ids, at most V.
        temperature: divisor of the logits.
        chunk_tokens: as in `linear_cross_entropy`.

    Returns:
        `TopK`: int64 ids, and float32 (float64 for float64 inputs) log-probabilities. The tail is -inf for k = V.

    Raises:
        ValueError: k or temperature out of range.
    """
    if not 1 <= k <= len(weight_VD):
        raise ValueError(f"k is invalid: {k}; give 1 to {len(weight_VD)}, the size of the vocabulary")
    if temperature <= 0:
        raise ValueError(f"temperature is invalid: {temperature}; give a number above 0")
    dtype = statistics_dtype(hidden_TD)
    ids = torch.empty(len(hidden_TD), k, dtype=torch.int64, device=hidden_TD.device)
    log_probs = torch.empty(len(hidden_TD), k, dtype=dtype, device=hidden_TD.device)
    tail = torch.empty(len(hidden_TD), dtype=dtype, device=hidden_TD.device)
    for tokens, logits in logit_chunks(hidden_TD, weight_VD, chunk_tokens or tokens_per_chunk(weight_VD)):
        for block in _rows_at_once(logits):
            rows = slice(tokens.start + block.start, tokens.start + block.stop)
            z = logits[block].to(dtype).div_(temperature)
            top, ids[rows] = z.topk(k, dim=-1)
            normalizer = Normalizer.of(z, ids[rows, :1])
            log_probs[rows] = normalizer.apply_(top)
            # Summed directly: one minus the listed mass would lose a small tail to rounding.
            others = z.scatter_(-1, ids[rows], -math.inf).logsumexp(dim=-1, keepdim=True)
            tail[rows] = normalizer.apply_(others).squeeze(-1)
    return TopK(ids, log_probs, tail)


@torch.no_grad()
def linear_log_probs(hidden_TD: Tensor, weight_VD: Tensor, labels_T: Tensor, chunk_tokens: int | None = None) -> Tensor:
    """Log-probability of each label, ``[T]`` in float32 (float64 for float64 inputs), for instance of a reference."""
    found = torch.empty(len(hidden_TD), dtype=statistics_dtype(hidden_TD), device=hidden_TD.device)
    for tokens, logits in logit_chunks(hidden_TD, weight_VD, chunk_tokens or tokens_per_chunk(weight_VD)):
        _label_log_probs(logits, tokens, labels_T, found)
    return found


def _label_log_probs(logits_TV: Tensor, tokens: slice, labels_T: Tensor, log_probs_T: Tensor) -> Normalizer:
    """Write the log-probabilities of a chunk's labels; returns the chunk's normalizer."""
    empty = torch.empty(len(logits_TV), 1, dtype=log_probs_T.dtype, device=logits_TV.device)
    normalizer = Normalizer(empty, torch.empty_like(empty))
    for block in _rows_at_once(logits_TV):
        rows = slice(tokens.start + block.start, tokens.start + block.stop)
        z = logits_TV[block].to(log_probs_T.dtype)
        labels_T1 = labels_T[rows, None]
        own = Normalizer.of(z, labels_T1)
        normalizer.peak[block], normalizer.log_sum[block] = own
        log_probs_T[rows] = own.apply_(z.gather(-1, labels_T1)).squeeze(-1)
    return normalizer


class PreferenceResult(NamedTuple):
    """Result of `linear_preference`.

    Attributes:
        loss: the weighted sum of all terms, differentiable.
        sequence_loss: value of the sequence loss, detached; None without one.
        log_probs: sum of the log-probabilities of each sequence's labels ``[S]``, detached.
        divergences: divergence from the teacher per token ``[T]``, unweighted and detached; None without a teacher.
    """

    loss: Tensor
    sequence_loss: Tensor | None
    log_probs: Tensor
    divergences: Tensor | None


SequenceLoss = Callable[[Tensor], Tensor]


def linear_preference(
    hidden_TD: Tensor,
    weight_VD: Tensor,
    labels_T: Tensor,
    sequence_T: Tensor,
    num_sequences: int,
    sequence_loss: SequenceLoss | None = None,
    teacher: TopK | LiveTargets | None = None,
    token_weights_T: Tensor | None = None,
    measure: Divergence = Divergence(),  # noqa: B008 - frozen
    chunk_tokens: int | None = None,
    add_up: Callable[[Tensor], Any] | None = None,
) -> PreferenceResult:
    """A loss over pairs of sequences and a divergence from a teacher, in one pass over the student's logits.

    ``loss = f(L) + sum_t w_t D(p_t, q_t)`` with ``L_s = sum over the tokens t of sequence s of log p_t(label_t)``, where
    ``p = softmax(hidden @ weight.T)`` (for D at its temperature). There is no denominator: fold it into f and w. Gradients are
    exact. ``[T, V]`` is never materialized: additional memory is one chunk of logits, or two with a live teacher.

    Args:
        hidden_TD: final hidden states of the tokens with a loss.
        weight_VD: the head's weight.
        labels_T: ids of the labels, all within the vocabulary.
        sequence_T: index of each token's sequence, ascending.
        num_sequences: S, an even number.
        sequence_loss: f, a function of ``[S]``: a sum over pairs (2i, 2i + 1), so that the gradient of a pair does not depend on
            the others. None omits the term.
        teacher: the teacher; None omits the term. A live teacher with another vocabulary size is compared over the common ids,
            with each side normalized over these.
        token_weights_T: w, the weight of each token's divergence; 1 by default.
        measure: the divergence D.
        chunk_tokens: as in `linear_cross_entropy`.
        add_up: sums ``[S]`` over the ranks in place, if the tokens of a sequence are split over ranks. Each rank then returns
            the whole f with the divergences of its own tokens, and gradients of its own tokens.

    Returns:
        `PreferenceResult`; supports a single backward.
    """
    weights = torch.ones_like(labels_T, dtype=torch.float32) if token_weights_T is None else token_weights_T
    call = _Call(
        labels_T,
        sequence_T,
        num_sequences,
        sequence_loss,
        compared(teacher, measure, len(weight_VD), hidden_TD),
        weights,
        chunk_tokens or _tokens_per_chunk(weight_VD, teacher),
        torch.is_grad_enabled(),
        add_up,
    )
    loss, sequence, log_probs, divergences = _LinearPreference.apply(hidden_TD, weight_VD, call)  # type: ignore[no-untyped-call]
    return PreferenceResult(
        loss,
        None if sequence_loss is None else sequence,
        log_probs,
        None if teacher is None else divergences,
    )


def _tokens_per_chunk(weight_VD: Tensor, teacher: TopK | LiveTargets | None) -> int:
    """As in the other heads; beside a live teacher's logits, no more than for float32."""
    tokens = tokens_per_chunk(weight_VD)
    if not isinstance(teacher, LiveTargets):
        return tokens
    return max(16, tokens * min(weight_VD.element_size(), 4) // 4 // 16 * 16)


class _Call(NamedTuple):
    """The non-differentiable arguments of `linear_preference`."""

    labels: Tensor
    sequence: Tensor
    num_sequences: int
    sequence_loss: SequenceLoss | None
    teacher: TeacherComparison | None
    weights: Tensor
    chunk: int
    gradients: bool
    add_up: Callable[[Tensor], Any] | None


def _groups(call: _Call) -> list[list[slice]]:
    """Group chunks of tokens whose coefficients are known together: as many whole pairs as fit, or one longer pair.

    If other ranks hold tokens of the pairs, this is one group of all chunks: the sums need those of all ranks.
    """
    total, chunk = len(call.labels), call.chunk
    if call.add_up is not None:
        return [[slice(begin, min(begin + chunk, total)) for begin in range(0, total, chunk)]]
    if call.sequence_loss is None:
        return [[slice(begin, min(begin + chunk, total))] for begin in range(0, total, chunk)]
    lengths = torch.bincount(call.sequence // 2, minlength=call.num_sequences // 2).tolist()
    groups: list[list[slice]] = []
    begin = end = 0
    for length in [*lengths, chunk + 1]:  # the last one closes an open group
        if end > begin and end - begin + length > chunk:
            groups.append([slice(first, min(first + chunk, end)) for first in range(begin, end, chunk)])
            begin = end
        end += length
    return groups


class _LinearPreference(torch.autograd.Function):
    """Gradients are computed while the logits are in memory, and only scaled in the backward."""

    @staticmethod
    def forward(ctx: Any, hidden_TD: Tensor, weight_VD: Tensor, call: _Call) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        needs_hidden, needs_weight = (needed and call.gradients for needed in ctx.needs_input_grad[:2])
        groups = _groups(call)
        work = _Pass(hidden_TD, weight_VD, call, groups, needs_hidden, needs_weight)
        for group in parts_to_run(groups):
            work.visit(group)
        work.close()
        loss = (work.values.double() * call.weights).sum()
        sequence = loss.new_zeros(()) if call.sequence_loss is None else call.sequence_loss(work.sums)
        ctx.grads = (work.grad_hidden, None if work.grad_weight is None else work.grad_weight.result())
        dtype = work.values.dtype
        results = (loss + sequence).to(dtype), sequence.to(dtype), work.sums, work.values
        ctx.mark_non_differentiable(*results[1:])
        return results

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        assert ctx.grads is not None, "linear_preference keeps its gradients for one backward only"
        grads, ctx.grads = ctx.grads, None
        return *(grad if grad is None else grad.mul_(grad_loss) for grad in grads), None


class _Pass:
    """One pass over the student's logits, with its accumulators."""

    def __init__(
        self,
        hidden_TD: Tensor,
        weight_VD: Tensor,
        call: _Call,
        groups: list[list[slice]],
        needs_hidden: bool,
        needs_weight: bool,
    ):
        self.hidden, self.weight, self.call = hidden_TD, weight_VD, call
        longest = max((tokens.stop - tokens.start for group in groups for tokens in group), default=0)
        self.buffer: Tensor | None = hidden_TD.new_empty(longest, weight_VD.shape[0])
        self.present: slice | None = None  # the chunk whose logits are in the buffer
        self.log_probs = torch.zeros(len(hidden_TD), dtype=statistics_dtype(hidden_TD), device=hidden_TD.device)
        self.values = torch.zeros_like(self.log_probs)
        self.sums = torch.zeros(call.num_sequences, dtype=torch.float64, device=hidden_TD.device)
        self.grad_hidden = torch.empty_like(hidden_TD) if needs_hidden else None
        self.grad_weight = WeightGradient(weight_VD, sum(map(len, groups))) if needs_weight else None

    def visit(self, group: list[slice]) -> None:
        """Process the chunks of some whole pairs: first their log-probabilities, then the gradients that depend on the sums."""
        call = self.call
        for tokens in group:
            normalizer = _label_log_probs(self._logits(tokens), tokens, call.labels, self.log_probs)
        whole = slice(group[0].start, group[-1].stop) if group else slice(0, 0)
        self.sums.index_add_(0, call.sequence[whole], self.log_probs[whole].double())
        if call.add_up is not None:
            call.add_up(self.sums)
        if call.teacher is None and self.grad_hidden is None and self.grad_weight is None:
            return
        pull_T1 = _pull(call, self.sums)[call.sequence[whole], None].to(self.values.dtype)
        for tokens in reversed(group):  # the last one's logits are still in the buffer
            logits = self._logits(tokens)
            if tokens is not group[-1]:
                normalizer = _label_log_probs(logits, tokens, call.labels, self.log_probs)
            pull = pull_T1[tokens.start - whole.start : tokens.stop - whole.start]
            _to_gradients(logits, tokens, normalizer, pull, call, self.values)
            if self.grad_hidden is not None:
                multiply_into(self.grad_hidden[tokens], logits, self.weight)
            if self.grad_weight is not None:
                self.grad_weight.add(logits, self.hidden[tokens])

    def _logits(self, tokens: slice) -> Tensor:
        """The logits of a chunk in the common buffer; computed only if another chunk's are in it."""
        assert self.buffer is not None
        logits = self.buffer[: tokens.stop - tokens.start]
        if tokens is not self.present:
            multiply_into(logits, self.hidden[tokens], self.weight.t())
            self.present = tokens
        return logits

    def close(self) -> None:
        """Free the logits first: the weight's gradient briefly exists twice, in float32 and in its own dtype."""
        self.buffer = None
        if self.call.teacher is not None:
            self.call.teacher.close()


def _pull(call: _Call, sums_S: Tensor) -> Tensor:
    """The derivative of the loss by each sequence's log-probability; valid for pairs whose sums are complete."""
    if call.sequence_loss is None:
        return torch.zeros_like(sums_S)
    with torch.enable_grad():
        sums = sums_S.detach().requires_grad_()
        return torch.autograd.grad(call.sequence_loss(sums), sums)[0]


def _to_gradients(
    logits_TV: Tensor, tokens: slice, normalizer: Normalizer, pull_T1: Tensor, call: _Call, values_T: Tensor
) -> None:
    """Turn a chunk's logits into the gradient of the loss, in place, and write the chunk's divergences."""
    if call.teacher is not None:
        call.teacher.begin(tokens)
    for block in _rows_at_once(logits_TV):
        rows = slice(tokens.start + block.start, tokens.start + block.stop)
        z = logits_TV[block].to(values_T.dtype)  # a view if the dtype allows
        pull, own = pull_T1[block], normalizer.rows(block)
        if call.teacher is None:
            own.apply_(z).exp_().mul_(-pull)
        else:
            weights = call.weights[rows, None].to(values_T.dtype)
            values_T[rows] = call.teacher(z, block, rows, own, pull, weights)
        z.scatter_add_(-1, call.labels[rows, None], pull)  # d log p_y / dz = 1_y - p
        if z.dtype != logits_TV.dtype:
            logits_TV[block] = z
